//! The closed loop: every connection sends its next order when the last one is answered.

use std::cell::Cell;
use std::rc::Rc;

use anyhow::Result;
use tokio::task::JoinSet;

use super::tally::Tally;
use super::{Line, Load};

/// Places all orders, as fast as they are answered.
pub(super) async fn run(load: Rc<Load>, connections: usize) -> Result<Rc<Tally>> {
    let mut lines = Vec::with_capacity(connections);
    for _ in 0..connections {
        lines.push(Line::open(load.address).await?);
    }
    let (tally, next) = (Rc::new(Tally::new()?), Rc::new(Cell::new(0)));
    let mut tasks = JoinSet::new();
    for mut line in lines {
        let (load, tally, next) = (load.clone(), tally.clone(), next.clone());
        tasks.spawn_local(async move {
            while next.get() < load.requests.len() {
                let number = next.replace(next.get() + 1);
                line.place(&load, number, None, &tally).await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(tally)
}
