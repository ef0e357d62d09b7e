//! The orders that the API holds until they rest, on connections of their own.

use std::rc::Rc;
use std::time::Instant;

use anyhow::Result;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;

use crate::load::line::Line;
use crate::load::tally::Tally;
use crate::load::work::Work;

/// How many are held at the same time at most; more than that wait for a connection. It takes a pipeline that is
/// thousands of orders behind.
const HELD_MAX: usize = 512;

/// Connections that are opened as they are needed.
#[derive(Debug)]
pub(super) struct Held {
    work: Rc<Work>,
    tally: Rc<Tally>,
    release: Sender<Line>,
    free: Receiver<Line>,
    opened: usize,
    tasks: JoinSet<()>,
}

impl Held {
    pub(super) fn new(work: Rc<Work>, tally: Rc<Tally>) -> Held {
        let (release, free) = mpsc::channel(HELD_MAX);
        Held { work, tally, release, free, opened: 0, tasks: JoinSet::new() }
    }

    /// Places an order on a connection that is free, and does not wait for its answer.
    pub(super) async fn place(&mut self, number: usize, due: Option<Instant>) -> Result<()> {
        let mut line = match self.free.try_recv() {
            Ok(line) => line,
            Err(_) if self.opened < HELD_MAX => {
                self.opened += 1;
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
