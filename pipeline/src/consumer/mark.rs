//! How far a partition is.

use uuid::Uuid;

use crate::label::Label;
use crate::partition::Slot;

/// The last record of the relay's that was met: where, and its label, which may be lower than others that were met. By it
/// the partition is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tip {
    pub(super) label: Label,
    pub(super) offset: i64,
}

/// Where a partition stands behind some record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The highest label that was applied or passed over.
    pub(super) label: Label,
    /// The event that bears it; none where it was met by somebody else, or an earlier self.
    pub(super) event_id: Option<Uuid>,
    pub(super) tip: Option<Tip>,
    /// The offset to go on at.
    pub(super) next_offset: i64,
}

/// A step of a partition that is to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) slot: Slot,
    /// Of the owner.
    pub(super) epoch: i64,
    /// The label and the offset that are stored now. Who finds others has not stored what stands there.
    pub(super) before: (Label, i64),
    pub(super) upto: Mark,
}

impl Progress {
    /// The event that bears the new label, where that is a new one.
    pub(super) fn event_id(&self) -> Option<Uuid> {
        self.upto.event_id.filter(|_| self.upto.label != self.before.0)
    }
}
