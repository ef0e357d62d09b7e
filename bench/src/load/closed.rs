//! The closed loop: every connection sends its next order when the last one is answered.

use std::rc::Rc;

use anyhow::Result;

use crate::load::lines::Lines;
use crate::load::tally::Tally;
use crate::load::work::Work;

/// Places all orders, as fast as they are answered.
pub(super) async fn run(work: &Rc<Work>, tally: &Rc<Tally>, connections: usize) -> Result<()> {
    let mut lines = Lines::open(work, tally, connections).await?;
    let mut held = Lines::held(work, tally);
    for number in 0..work.requests.len() {
        // An order that finds no connection that is free holds up those behind it.
        if work.is_held(number) {
            held.place(number, None).await?;
        } else {
            lines.place(number, None).await?;
        }
    }
    lines.finish().await?;
    held.finish().await
}
