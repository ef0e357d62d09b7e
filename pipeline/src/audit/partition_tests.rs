use std::convert::Infallible;

use super::*;

fn id(position: i64) -> Uuid {
    Uuid::from_u128(position.unsigned_abs().into())
}

fn label(position: i64) -> Label {
    if position == 0 { Label::START } else { Label { era: 1, position } }
}

/// What the record of `position` is to say.
fn digest(position: i64) -> Digest {
    [u8::try_from(position % 256).unwrap(); 32]
}

fn row(position: i64) -> Row {
    Row { position, event_id: id(position), digest: digest(position) }
}

fn published(previous: i64, position: i64) -> Published {
    Published {
        label: label(position),
        previous: label(previous),
        event_id: id(position),
        digest: digest(position),
    }
}

/// The record of `position`, which says that `previous` came before it.
fn record(previous: i64, position: i64) -> Met {
    Met::Ours(published(previous, position))
}

/// The records of positions, each following on the one before.
fn records(positions: &[i64]) -> Vec<Met> {
    let before = std::iter::once(0).chain(positions.iter().copied());
    before.zip(positions).map(|(previous, position)| record(previous, *position)).collect()
}

struct Outcome {
    violations: Vec<String>,
    figures: Figures,
}

fn compare_from(begins_late: bool, upto: i64, rows: &[i64], records: Vec<Met>) -> Outcome {
    let mut comparison = Comparison::new("cups[3]".to_owned(), 0, label(upto), begins_late);
    let mut check = Check::new("kafka");
    let mut records = records.into_iter();
    let mut pull = || Ok::<_, Infallible>(records.next());
    for position in rows {
        comparison.row(row(*position), &mut check, &mut pull).unwrap();
    }
    comparison.finish(&mut check, &mut pull).unwrap();
    assert_eq!(check.violation_count, check.violations.len() as u64);
    Outcome { violations: check.violations, figures: comparison.figures }
}

fn compare(upto: i64, rows: &[i64], records: Vec<Met>) -> Outcome {
    compare_from(false, upto, rows, records)
}

#[test]
fn a_partition_that_holds_what_the_log_says_has_no_violation() {
    let outcome = compare(9, &[2, 5, 9], records(&[2, 5, 9]));
    assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
    assert_eq!(outcome.figures, Figures::default());
    assert!(compare(0, &[], Vec::new()).violations.is_empty());
}

#[test]
fn a_row_without_a_record_is_named_and_so_is_the_gap_that_consumers_meet() {
    let outcome = compare(9, &[2, 5, 9], vec![record(0, 2), record(5, 9)]);
    assert_eq!(
        outcome.violations,
        [
            format!("log position 5, event {}: not in cups[3], where consumers come to 1-2", id(5)),
            format!("log position 9, event {}: not in cups[3], where consumers come to 1-2", id(9)),
            "cups[3]: consumers stop after 1-2, since 1-9 says that 1-5 comes before it".to_owned(),
        ]
    );
}

#[test]
fn a_row_that_the_chain_of_records_leaves_out_is_missing() {
    let outcome = compare(9, &[2, 5, 9], vec![record(0, 2), record(2, 9)]);
    assert_eq!(
        outcome.violations,
        [format!("log position 5, event {}: not in cups[3], which goes up to 1-9", id(5))]
    );
}

#[test]
fn rows_at_the_end_without_records_are_missing() {
    assert_eq!(compare(9, &[2, 5, 9], records(&[2])).violations.len(), 2);
    let empty = compare(9, &[2, 5, 9], Vec::new());
    assert_eq!(empty.violations.len(), 3);
    assert!(empty.violations[2].ends_with("not in cups[3], which has none"), "{:?}", empty.violations);
}

#[test]
fn of_many_missing_rows_only_the_first_are_told_but_all_are_counted() {
    let mut comparison = Comparison::new("cups[3]".to_owned(), 0, label(500), false);
    let mut check = Check::new("kafka");
    let mut pull = || Ok::<_, Infallible>(None);
    for position in 1..=500 {
        comparison.row(row(position), &mut check, &mut pull).unwrap();
    }
    comparison.finish(&mut check, &mut pull).unwrap();
    assert_eq!((check.violation_count, check.violations.len() as u64), (500, TOLD_MAX));
}

#[test]
fn repeats_are_dropped() {
    let mut all = records(&[2, 5, 9]);
    all.extend([record(2, 5), record(5, 9), record(9, 12)]);
    let outcome = compare(12, &[2, 5, 9, 12], all);
    assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
    assert_eq!(outcome.figures.repeats, 2);
}

#[test]
fn rows_that_were_lost_and_sent_again_later_are_found_behind_higher_ones() {
    let lost = [record(0, 2), record(9, 12), record(12, 15)];
    let again = [record(2, 5), record(5, 9), record(9, 12), record(12, 15), record(15, 20)];
    let outcome = compare(20, &[2, 5, 9, 12, 15, 20], [&lost[..], &again].concat());
    assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
    assert_eq!(outcome.figures.repeats, 2);
}

#[test]
fn a_gap_that_was_only_half_mended_still_stops_consumers() {
    let all = vec![record(0, 2), record(5, 9), record(9, 12), record(2, 5), record(5, 9)];
    let outcome = compare(12, &[2, 5, 9, 12], all);
    assert_eq!(
        outcome.violations,
        [
            format!("log position 12, event {}: not in cups[3], where consumers come to 1-9", id(12)),
            "cups[3]: consumers stop after 1-2, since 1-9 says that 1-5 comes before it".to_owned(),
        ]
    );
}

#[test]
fn what_lies_above_the_cursor_is_still_under_way() {
    let outcome = compare(5, &[2, 5], vec![record(0, 2), record(2, 5), record(7, 9)]);
    assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
}

#[test]
fn rows_below_the_log_start_are_counted_and_no_violation() {
    let outcome = compare_from(true, 9, &[2, 5, 9], vec![record(5, 9)]);
    assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
    assert_eq!(outcome.figures.expired, 2);
    assert_eq!(compare_from(true, 9, &[2, 5, 9], Vec::new()).figures.expired, 3);
    // Behind the first record that is left, nothing was thrown away.
    assert_eq!(compare_from(true, 9, &[2, 5, 9], vec![record(0, 2), record(5, 9)]).violations.len(), 3);
}

#[test]
fn rows_below_a_log_start_that_lies_in_an_earlier_era_are_no_violation_either() {
    let mut comparison = Comparison::new("cups[3]".to_owned(), 0, Label { era: 2, position: 9 }, true);
    let mut check = Check::new("kafka");
    let mut records = vec![record(2, 5), record(5, 9)].into_iter();
    let mut pull = || Ok::<_, Infallible>(records.next());
    for position in [2, 5, 9] {
        comparison.row(row(position), &mut check, &mut pull).unwrap();
    }
    comparison.finish(&mut check, &mut pull).unwrap();
    assert_eq!((check.violations, comparison.figures.expired), (Vec::new(), 1));
}

#[test]
fn foreign_records_are_counted_and_no_violation() {
    let all = vec![Met::Foreign, record(0, 2), Met::Foreign, record(2, 5), Met::Foreign];
    let outcome = compare(5, &[2, 5], all);
    assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
    assert_eq!(outcome.figures.foreign, 3);
}

#[test]
fn a_record_that_the_log_does_not_have_is_a_violation() {
    let outcome = compare(9, &[2, 9], records(&[2, 5, 9]));
    assert_eq!(outcome.violations, ["cups[3]: holds 1-5, which the log does not have"]);
    let outcome = compare(9, &[2], records(&[2, 9]));
    assert_eq!(outcome.violations, ["cups[3]: holds 1-9, which the log does not have"]);
}

#[test]
fn a_record_with_another_event_is_a_violation() {
    let other = Published { event_id: id(77), ..published(2, 5) };
    let outcome = compare(9, &[2, 5, 9], vec![record(0, 2), Met::Ours(other), record(5, 9)]);
    assert_eq!(
        outcome.violations,
        [format!("log position 5: event {}, but event {} in cups[3]", id(5), id(77))]
    );
}

#[test]
fn a_record_that_says_something_else_is_a_violation() {
    let other = Published { digest: digest(77), ..published(2, 5) };
    let outcome = compare(9, &[2, 5, 9], vec![record(0, 2), Met::Ours(other), record(5, 9)]);
    let expected =
        format!("log position 5, event {}: another key, type, version or payload in cups[3]", id(5));
    assert_eq!(outcome.violations, [expected]);
}

#[test]
fn records_of_an_earlier_era_may_differ_from_the_log() {
    let lost = Published { event_id: id(77), ..published(2, 5) };
    let anew = Published { label: Label { era: 2, position: 5 }, ..published(2, 5) };
    let records = [record(0, 2), Met::Ours(lost), record(5, 7), Met::Ours(anew)];
    let mut records = records.into_iter();
    let mut pull = || Ok::<_, Infallible>(records.next());
    let mut comparison = Comparison::new("cups[3]".to_owned(), 0, Label { era: 2, position: 5 }, false);
    let mut check = Check::new("kafka");
    for position in [2, 5] {
        comparison.row(row(position), &mut check, &mut pull).unwrap();
    }
    comparison.finish(&mut check, &mut pull).unwrap();
    assert!(check.ok, "{:?}", check.violations);
}

#[test]
fn an_era_that_began_in_the_middle_of_the_log_owes_nothing_before() {
    let upto = Label { era: 2, position: 9 };
    let mut comparison = Comparison::new("cups[3]".to_owned(), 5, upto, false);
    let mut check = Check::new("kafka");
    let of = |position| Label { era: 2, position };
    let published = |previous, position| {
        Met::Ours(Published { label: of(position), previous: of(previous), ..published(previous, position) })
    };
    // The era began at 8, and somebody has asked for what lies above 5 since.
    let mut records = [published(7, 9), published(4, 7), published(7, 9)].into_iter();
    let mut pull = || Ok::<_, Infallible>(records.next());
    for position in [7, 9] {
        comparison.row(row(position), &mut check, &mut pull).unwrap();
    }
    comparison.finish(&mut check, &mut pull).unwrap();
    assert_eq!(check.violations, Vec::<String>::new());
}
