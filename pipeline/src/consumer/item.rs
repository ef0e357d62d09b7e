//! A record that was read, and what is to be done with it.

use crate::dead_letters::Code;
use crate::label::Label;
use crate::record::{Received, Record};

/// A record that is to be applied, or only to be passed over.
#[derive(Clone, Debug)]
pub(super) struct Item<E> {
    pub(super) record: Record,
    pub(super) epoch: i64,
    /// The partition's last label before this record.
    pub(super) before: Label,
    /// The partition's last label once this record is done with.
    pub(super) label: Label,
    /// The record's own label.
    pub(super) tip: Option<Label>,
    /// What it says.
    pub(super) received: Result<Received<E>, (Code, String)>,
    /// Whether it is to be applied.
    pub(super) fate: Fate,
}

/// What is to be done with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is applied, or put aside.
    Apply,
    /// It is of no interest to the group: only the offset moves, and need not at once.
    PassOver,
    /// It was applied before: only the offset moves.
    Skip,
}

impl<E> Item<E> {
    pub(super) fn applies(&self) -> bool {
        self.fate == Fate::Apply
    }
}
