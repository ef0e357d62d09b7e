//! The open loop: every order is sent at its moment, whatever has become of those before.

use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::load::lines::Lines;
use crate::load::tally::Tally;
use crate::load::work::Work;

/// From the last preparation to the first order.
const RUN_UP: Duration = Duration::from_millis(50);

/// An order whose moment has come.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Due {
    number: usize,
    at: Instant,
}

/// Places all orders, `rate` a second at even distances.
pub(super) async fn run(work: &Rc<Work>, tally: &Rc<Tally>, connections: usize, rate: f64) -> Result<()> {
    if !(rate.is_finite() && rate > 0.0) {
        bail!("{rate} orders a second can't be sent");
    }
    let lines = Lines::open(work, tally, connections).await?;
    let begin = Instant::now() + RUN_UP;
    let (held, answered): (Vec<Due>, Vec<Due>) =
        schedule(work.requests.len(), rate, begin).partition(|due| work.is_held(due.number));
    let (held, answered) =
        tokio::join!(place(Lines::held(work, tally), strike(held)), place(lines, strike(answered)));
    held.and(answered)
}

/// When each order is due.
fn schedule(count: usize, rate: f64, begin: Instant) -> impl Iterator<Item = Due> {
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

/// Places each order when it is due, or, where no connection is free, as soon as one is.
async fn place(mut lines: Lines, mut orders: UnboundedReceiver<Due>) -> Result<()> {
    while let Some(due) = orders.recv().await {
        lines.place(due.number, Some(due.at)).await?;
    }
    lines.finish().await
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
