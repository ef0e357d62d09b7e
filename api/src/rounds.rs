//! Work that is cheaper for many at once.
//!
//! What is asked for waits in a bounded queue. A round takes all that waits; meanwhile the next one gathers, so that rounds grow with the
//! load and nobody waits for a timer.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Does `work` for all that waits in `queue`, at most `max` at once, round after round, until everything is done after `drained`.
pub(crate) async fn in_rounds<T, W>(
    mut queue: mpsc::Receiver<T>,
    max: usize,
    drained: CancellationToken,
    mut work: impl FnMut(Vec<T>) -> W,
) where
    W: Future<Output = ()> + Send + 'static,
{
    loop {
        let mut round = Vec::new();
        let taken = tokio::select! {
            taken = queue.recv_many(&mut round, max) => taken,
            () = drained.cancelled() => {
                queue.close();
                queue.recv_many(&mut round, max).await
            }
        };
        if taken == 0 {
            return;
        }
        // A task of its own, so that a panic takes this round with it but not the next ones.
        if let Err(error) = tokio::spawn(work(round)).await {
            tracing::error!(%error, "a round of requests ended without a result");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_is_asked_for_during_a_round_makes_the_next_one() {
        let (queue, asked) = mpsc::channel(9);
        let rounds: Arc<Mutex<Vec<Vec<u32>>>> = Arc::default();
        let (begun, has_begun) = oneshot::channel();
        let (go_on, gate) = oneshot::channel::<()>();
        let drained = CancellationToken::new();
        let mut first = Some((begun, gate));
        let seen = rounds.clone();
        let running = tokio::spawn(in_rounds(asked, 3, drained.clone(), move |round| {
            let (first, seen) = (first.take(), seen.clone());
            async move {
                seen.lock().unwrap().push(round);
                if let Some((begun, gate)) = first {
                    begun.send(()).unwrap();
                    gate.await.unwrap();
                }
            }
        }));
        queue.send(1).await.unwrap();
        has_begun.await.unwrap();
        for number in 2..=6 {
            queue.send(number).await.unwrap();
        }
        drained.cancel();
        go_on.send(()).unwrap();
        running.await.unwrap();
        assert_eq!(*rounds.lock().unwrap(), [vec![1], vec![2, 3, 4], vec![5, 6]]);
        assert!(queue.send(7).await.is_err());
    }

    #[tokio::test]
    async fn a_round_that_panics_takes_no_other_with_it() {
        let (queue, asked) = mpsc::channel(9);
        let drained = CancellationToken::new();
        let running = tokio::spawn(in_rounds(asked, 1, drained.clone(), |round| async move {
            let reply: oneshot::Sender<()> = round.into_iter().next().unwrap();
            assert!(!reply.is_closed(), "on purpose");
            reply.send(()).unwrap();
        }));
        let (lost, _) = oneshot::channel();
        queue.send(lost).await.unwrap();
        let (reply, answer) = oneshot::channel();
        queue.send(reply).await.unwrap();
        answer.await.unwrap();
        drained.cancel();
        running.await.unwrap();
    }
}
