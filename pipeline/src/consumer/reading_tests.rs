//! The reading of a partition, case by case.

use super::*;

pub(super) fn label(position: i64) -> Label {
    Label { era: 1, position }
}

/// A record of the relay's at that offset.
pub(super) fn own(offset: i64, position: i64, previous: i64) -> Met {
    let previous = if previous == 0 { Label::START } else { label(previous) };
    Met { offset, own: Some(Own { label: label(position), previous, event_id: id(position) }) }
}

pub(super) fn foreign(offset: i64) -> Met {
    Met { offset, own: None }
}

pub(super) fn id(position: i64) -> Uuid {
    Uuid::from_u128(u128::from(position.unsigned_abs()))
}

fn stored(position: i64, tip_offset: Option<i64>, next_offset: i64) -> Mark {
    let tip = tip_offset.map(|offset| Tip { label: label(position), offset });
    Mark { label: label(position), event_id: None, tip, next_offset }
}

/// Has applied up to position 5, which lies at offset 6.
fn reading() -> Reading {
    Reading::new(1, stored(5, Some(6), 7))
}

/// Meets a record that would be of interest, with room for foreign ones.
fn meet(reading: &mut Reading, met: &Met) -> Fate {
    reading.meet(met, || true, || true, Instant::now())
}

#[test]
fn reading_begins_at_the_last_own_record_to_see_whether_it_is_still_the_same_log() {
    for high in [7, 10] {
        let mut reading = reading();
        assert_eq!(reading.start(0, high), Start { offset: 6, ask_for: None });
        assert_eq!(meet(&mut reading, &own(6, 5, 4)), Fate::Leave);
        assert!(matches!(meet(&mut reading, &own(7, 6, 5)), Fate::Apply(_)));
    }
}

#[test]
fn what_was_read_and_is_not_stored_is_read_again_and_awaited_behind_what_is_stored() {
    let mut reading = reading();
    reading.start(0, 10);
    assert_eq!(reading.awaited(), None, "it is not known whether this is the same log");
    assert!(!reading.reread(), "nothing was read");
    assert_eq!(meet(&mut reading, &own(6, 5, 4)), Fate::Leave);
    assert_eq!(reading.awaited(), Some(label(5)));
    assert!(matches!(meet(&mut reading, &own(7, 6, 5)), Fate::Apply(_)));
    assert_eq!(meet(&mut reading, &own(8, 9, 7)), Fate::AskFor(label(6)));
    assert_eq!(reading.awaited(), None, "a record is missing");
    assert!(reading.reread());
    assert_eq!(reading.awaited(), Some(label(5)));
    assert!(matches!(meet(&mut reading, &own(7, 6, 5)), Fate::Apply(_)));
}

#[test]
fn what_loops_back_moves_the_label_and_where_it_lies_the_offset() {
    let mut reading = reading();
    let now = Instant::now();
    let of = |position, previous| own(0, position, previous).own.unwrap();
    let lies = |position, offset| Lies { label: label(position), offset };
    let Fate::Apply(mark) = reading.meet_looped_back(&of(6, 5), || true, now) else {
        panic!("it is the next one")
    };
    assert_eq!((mark.label, mark.tip, mark.next_offset), (label(6), reading.stored.tip, 7));
    assert_eq!(reading.meet_looped_back(&of(8, 6), || false, now), Fate::PassOver);
    assert_eq!(reading.meet_looped_back(&of(8, 6), || true, now), Fate::Leave, "it was met");
    assert_eq!(reading.meet_looped_back(&of(12, 11), || true, now), Fate::Leave, "one is missing");
    assert_eq!(reading.lies(lies(6, 7), now), Placed::Next);
    assert_eq!(reading.lies(lies(6, 7), now), Placed::Known);
    assert_eq!(reading.lies(lies(8, 9), now), Placed::Beyond, "of what lies between nothing is known");
    assert_eq!(meet(&mut reading, &foreign(8)), Fate::PutAside(Mark { next_offset: 9, ..reading.read }));
    assert_eq!(reading.lies(lies(8, 9), now), Placed::Next);
    assert_eq!(reading.lies(lies(9, 10), now), Placed::NotRead);
    let upto = reading.progress(slot()).unwrap().upto;
    assert_eq!(upto, Mark { event_id: Some(id(8)), ..stored(8, Some(9), 10) });
    // A successor that is told less begins before, and skips what was applied.
    let mut next = Reading::new(2, mark);
    assert_eq!(next.start(0, 10), Start { offset: 6, ask_for: None });
    assert_eq!(meet(&mut next, &own(6, 5, 4)), Fate::Leave);
    assert_eq!(meet(&mut next, &own(7, 6, 5)), Fate::Skip);
    assert!(matches!(meet(&mut next, &own(9, 8, 6)), Fate::Apply(_)));
}

#[test]
fn what_lies_behind_the_last_own_record_does_no_harm_and_is_not_met_twice() {
    // Two foreign ones, and a hole that a control record has left.
    let mut reading = Reading::new(1, stored(5, Some(6), 9));
    assert_eq!(reading.start(0, 12), Start { offset: 6, ask_for: None });
    for met in [own(6, 5, 4), foreign(7), foreign(8)] {
        assert_eq!(meet(&mut reading, &met), Fate::Leave);
    }
    assert!(matches!(meet(&mut reading, &foreign(9)), Fate::PutAside(_)));
    assert!(matches!(meet(&mut reading, &own(11, 6, 5)), Fate::Apply(_)));
}

#[test]
fn a_log_that_is_not_the_one_that_was_read_is_read_from_its_start() {
    for other in [own(6, 4, 3), own(8, 5, 4), foreign(6)] {
        let mut reading = reading();
        reading.start(2, 10);
        assert_eq!(meet(&mut reading, &other), Fate::BeginAt(2), "{other:?}");
        assert_eq!(meet(&mut reading, &own(2, 4, 3)), Fate::Skip);
        assert!(matches!(meet(&mut reading, &own(3, 6, 5)), Fate::Apply(_)));
    }
}

#[test]
fn a_log_that_was_lost_or_expired_is_read_from_its_start() {
    let start = |low, high| {
        let mut reading = reading();
        let Start { offset, ask_for } = reading.start(low, high);
        (offset, ask_for, reading.verify_or_begin_at)
    };
    assert_eq!(start(0, 3), (0, Some(label(5)), None), "lost");
    assert_eq!(start(7, 10), (7, None, None), "what was read is thrown away, and no more");
    assert_eq!(start(9, 10), (9, Some(label(5)), None), "and more");
    let mut new = Reading::new(1, Mark { label: Label::START, event_id: None, tip: None, next_offset: 0 });
    assert_eq!(new.start(4, 10), Start { offset: 4, ask_for: None });
    let mut only_foreign = Reading::new(1, Mark { next_offset: 4, ..new.stored });
    assert_eq!(only_foreign.start(0, 10), Start { offset: 4, ask_for: None });
}

#[test]
fn a_foreign_record_moves_the_offset_and_nothing_else() {
    let mut reading = reading();
    let Fate::PutAside(mark) = meet(&mut reading, &foreign(7)) else { panic!("it is not put aside") };
    assert_eq!(mark, Mark { next_offset: 8, ..reading.stored });
    // It is still to be put aside, so that it lies there may not be stored without.
    assert_eq!(reading.storable(slot()), None);
    let fate = reading.meet(&foreign(8), || true, || false, Instant::now());
    assert_eq!(fate, Fate::Count);
    assert_eq!(reading.progress(slot()).unwrap().upto, Mark { next_offset: 9, ..reading.stored });
}

#[test]
fn a_foreign_record_neither_ends_a_gap_nor_moves_what_is_stored_past_it() {
    let mut reading = reading();
    assert_eq!(meet(&mut reading, &own(7, 9, 8)), Fate::AskFor(label(5)));
    assert_eq!(meet(&mut reading, &foreign(8)), Fate::Count);
    assert_eq!(meet(&mut reading, &own(9, 4, 3)), Fate::Leave, "a repeat does not, either");
    assert_eq!(meet(&mut reading, &own(10, 10, 9)), Fate::Leave);
    assert_eq!((reading.progress(slot()), reading.view().is_missing), (None, true));
    assert!(matches!(meet(&mut reading, &own(11, 8, 5)), Fate::Apply(_)));
    assert!(!reading.view().is_missing);
}

#[test]
fn what_is_passed_over_may_be_stored_as_long_as_nothing_before_it_is_to_be_applied() {
    let mut reading = reading();
    let pass = |reading: &mut Reading, met: &Met| reading.meet(met, || false, || true, Instant::now());
    assert_eq!(pass(&mut reading, &own(7, 6, 5)), Fate::PassOver);
    let storable = reading.storable(slot()).unwrap();
    assert_eq!(
        (storable.before.0, storable.upto.label, storable.event_id()),
        (label(5), label(6), Some(id(6)))
    );
    let Fate::Apply(mark) = meet(&mut reading, &own(8, 7, 6)) else { panic!("it is of interest") };
    assert_eq!(pass(&mut reading, &own(9, 8, 7)), Fate::PassOver);
    assert_eq!(reading.storable(slot()), Some(storable));
    assert_eq!(reading.progress(slot()).unwrap().upto.label, label(8));
    // The batch was stored in part.
    reading.stored(mark);
    assert_eq!(reading.storable(slot()), None);
    let progress = reading.progress(slot()).unwrap();
    assert_eq!((progress.before.0, progress.upto.label), (label(7), label(8)));
}

pub(super) fn slot() -> Slot {
    Slot { topic: "cups", partition: 0 }
}
