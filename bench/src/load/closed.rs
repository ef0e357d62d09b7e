//! The closed loop: every connection sends its next order when the last one is answered.

use std::cell::Cell;
use std::rc::Rc;

use anyhow::Result;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::load::held::Held;
use crate::load::line::Line;
use crate::load::tally::Tally;
use crate::load::work::{Work, is_held};

/// Places all orders, as fast as they are answered.
pub(super) async fn run(work: Rc<Work>, connections: usize) -> Result<Rc<Tally>> {
    let lines = Line::open_all(work.address, connections).await?;
    let (tally, next) = (Rc::new(Tally::new()?), Rc::new(Cell::new(0)));
    // One that finds no connection to be held on holds up who would place it.
    let (hold, mut to_be_held) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    for mut line in lines {
        let (work, tally, next, hold) = (work.clone(), tally.clone(), next.clone(), hold.clone());
        tasks.spawn_local(async move {
            while next.get() < work.requests.len() {
                let number = next.replace(next.get() + 1);
                if is_held(number) {
                    // It fails where the other side has failed, which is told there.
                    let _ = hold.send(number).await;
                } else {
                    line.place(&work, number, None, &tally).await;
                }
            }
        });
    }
    drop(hold);
    let mut held = Held::new(work, tally.clone());
    while let Some(number) = to_be_held.recv().await {
        held.place(number, None).await?;
    }
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    held.finish().await?;
    Ok(tally)
}
