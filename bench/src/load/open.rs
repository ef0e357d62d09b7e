//! The open loop: every order is sent at its moment, whatever has become of those before.

use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinSet;

use crate::load::held::Held;
use crate::load::line::Line;
use crate::load::tally::Tally;
use crate::load::work::{Work, is_held};

/// From the last preparation to the first order.
const RUN_UP: Duration = Duration::from_millis(50);

/// An order whose moment has come.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Due {
    number: usize,
    at: Instant,
}

/// Places all orders, `rate` a second at even distances.
pub(super) async fn run(work: Rc<Work>, connections: usize, rate: f64) -> Result<Rc<Tally>> {
    if !(rate.is_finite() && rate > 0.0) {
        bail!("{rate} orders a second can't be sent");
    }
    let lines = Line::open_all(work.address, connections).await?;
    let tally = Rc::new(Tally::new()?);
    let begin = Instant::now() + RUN_UP;
    let (held, answered): (Vec<Due>, Vec<Due>) =
        schedule(work.requests.len(), rate, begin).partition(|due| is_held(due.number));
    let (held, answered) = tokio::join!(
        hold(Held::new(work.clone(), tally.clone()), strike(held)),
        dispatch(work, lines, strike(answered), tally.clone()),
    );
    held?;
    answered?;
    Ok(tally)
}

/// When each order is due.
fn schedule(count: usize, rate: f64, begin: Instant) -> impl Iterator<Item = Due> {
    #[expect(clippy::cast_precision_loss, reason = "nobody sends 2^53 orders")]
    (0..count).map(move |number| Due { number, at: begin + Duration::from_secs_f64(number as f64 / rate) })
}

/// Tells of each order when it is due. A thread of its own, since the runtime's timers are a millisecond coarse.
fn strike(schedule: Vec<Due>) -> UnboundedReceiver<Due> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for due in schedule {
            thread::sleep(due.at.saturating_duration_since(Instant::now()));
            if sender.send(due).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn hold(mut held: Held, mut orders: UnboundedReceiver<Due>) -> Result<()> {
    while let Some(due) = orders.recv().await {
        held.place(due.number, Some(due.at)).await?;
    }
    held.finish().await
}

/// Sends each order on a connection that is free, and waits for one where none is.
async fn dispatch(
    work: Rc<Work>,
    lines: Vec<Line>,
    mut orders: UnboundedReceiver<Due>,
    tally: Rc<Tally>,
) -> Result<()> {
    let (release, mut free) = mpsc::channel(lines.len().max(1));
    for line in lines {
        release.try_send(line)?;
    }
    let mut tasks = JoinSet::new();
    while let Some(due) = orders.recv().await {
        let Some(mut line) = free.recv().await else { break };
        let (work, tally, release) = (work.clone(), tally.clone(), release.clone());
        tasks.spawn_local(async move {
            line.place(&work, due.number, Some(due.at), &tally).await;
            // Nobody waits for a connection after the last order.
            let _ = release.try_send(line);
        });
        while let Some(ended) = tasks.try_join_next() {
            ended?;
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_due_at_even_distances() {
        let begin = Instant::now();
        let due: Vec<Due> = schedule(5, 400.0, begin).collect();
        for (number, due) in due.iter().enumerate() {
            assert_eq!(due.number, number);
            let expected = Duration::from_micros(2_500) * u32::try_from(number).unwrap();
            assert_eq!(due.at - begin, expected);
        }
    }

    #[tokio::test]
    async fn no_order_is_told_of_before_it_is_due() {
        let begin = Instant::now();
        let mut orders = strike(schedule(20, 2_000.0, begin).collect());
        let mut count = 0;
        while let Some(due) = orders.recv().await {
            assert!(Instant::now() >= due.at);
            count += 1;
        }
        assert_eq!(count, 20);
    }
}
