//! The connections of one kind of orders: those that are answered at once, or those that the API holds until they rest.

use std::rc::Rc;
use std::time::Instant;

use anyhow::Result;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;

use crate::load::line::Line;
use crate::load::tally::Tally;
use crate::load::work::Work;

/// How many orders are held at the same time at most; more than that wait for a connection. It takes a pipeline that is
/// thousands of orders behind.
const HELD_MAX: usize = 512;

/// Connections, each with one order at a time.
#[derive(Debug)]
pub(super) struct Lines {
    work: Rc<Work>,
    tally: Rc<Tally>,
    release: Sender<Line>,
    free: Receiver<Line>,
    /// How many more may be opened.
    unopened: usize,
    tasks: JoinSet<()>,
}

impl Lines {
    /// So many, all of them open.
    ///
    /// # Errors
    /// Where nobody listens there.
    pub(super) async fn open(work: &Rc<Work>, tally: &Rc<Tally>, count: usize) -> Result<Lines> {
        let lines = Lines { unopened: 0, ..Lines::unopened(work, tally, count) };
        for _ in 0..count {
            lines.release.try_send(Line::open(work.address).await?)?;
        }
        Ok(lines)
    }

    /// Those of orders that are held. They are opened as they are needed.
    pub(super) fn held(work: &Rc<Work>, tally: &Rc<Tally>) -> Lines {
        Lines::unopened(work, tally, HELD_MAX)
    }

    fn unopened(work: &Rc<Work>, tally: &Rc<Tally>, count: usize) -> Lines {
        let (release, free) = mpsc::channel(count);
        let (work, tally) = (work.clone(), tally.clone());
        Lines { work, tally, release, free, unopened: count, tasks: JoinSet::new() }
    }

    /// Places an order on a connection that is free, and does not wait for its answer.
    pub(super) async fn place(&mut self, number: usize, due: Option<Instant>) -> Result<()> {
        let mut line = match self.free.try_recv() {
            Ok(line) => line,
            Err(_) if self.unopened > 0 => {
                self.unopened -= 1;
                Line::new(self.work.address)
            }
            // It never ends, since `self` can send.
            Err(_) => self.free.recv().await.unwrap_or_else(|| Line::new(self.work.address)),
        };
        let (work, tally, release) = (self.work.clone(), self.tally.clone(), self.release.clone());
        self.tasks.spawn_local(async move {
            line.place(&work, number, due, &tally).await;
            // There is room for every one that was opened; nobody takes it back after the last order.
            let _ = release.try_send(line);
        });
        while let Some(ended) = self.tasks.try_join_next() {
            ended?;
        }
        Ok(())
    }

    /// Waits for the answers that are not there yet.
    pub(super) async fn finish(mut self) -> Result<()> {
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        Ok(())
    }
}
