//! Whether a record is the next of its partition: the decision that makes repeats harmless and holes visible.

use crate::label::Label;

/// What to do with a labelled record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the next one.
    Apply,
    /// It was applied before.
    Skip,
    /// Records between are missing: nothing of this partition is applied until they have been sent again.
    Gap,
}

/// `last` is the label applied last, `previous` the one that the record says was before it.
pub(crate) fn judge(last: Label, label: Label, previous: Label) -> Verdict {
    // Whether nothing of the label's era lies before.
    let is_before_era = |before: Label| before.era < label.era || before.position == 0;
    if label <= last {
        Verdict::Skip
    } else if previous == last || (is_before_era(previous) && is_before_era(last)) {
        // The first record of an era follows on whatever was before it.
        Verdict::Apply
    } else {
        Verdict::Gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(position: i64) -> Label {
        Label { era: 1, position }
    }

    #[test]
    fn the_next_record_is_applied_a_repeat_skipped_and_a_hole_noticed() {
        assert_eq!(judge(Label::START, label(5), Label::START), Verdict::Apply);
        assert_eq!(judge(label(5), label(9), label(5)), Verdict::Apply);
        assert_eq!(judge(label(5), label(5), label(3)), Verdict::Skip);
        assert_eq!(judge(label(5), label(4), label(3)), Verdict::Skip);
        assert_eq!(judge(label(5), label(9), label(7)), Verdict::Gap);
        assert_eq!(judge(Label::START, label(9), label(7)), Verdict::Gap);
        assert_eq!(judge(label(5), label(9), Label::START), Verdict::Gap);
    }

    #[test]
    fn the_first_record_of_a_new_era_follows_on_anything() {
        let first = Label { era: 2, position: 3 };
        assert_eq!(judge(label(5), first, Label::START), Verdict::Apply);
        assert_eq!(judge(label(5), Label { era: 2, position: 9 }, first), Verdict::Gap);
    }

    #[test]
    fn a_group_that_was_put_over_to_a_new_era_goes_on_where_it_was() {
        let of = |era, position| Label { era, position };
        // It has applied up to 5, and the new era begins to be published at 3 for the sake of another group.
        let last = of(2, 5);
        assert_eq!(judge(last, of(2, 4), of(2, 2)), Verdict::Skip);
        assert_eq!(judge(last, of(2, 5), of(2, 4)), Verdict::Skip);
        assert_eq!(judge(last, of(2, 9), of(2, 5)), Verdict::Apply);
        // Begun behind what it needs, the relay is asked for the rest.
        assert_eq!(judge(last, of(2, 12), of(2, 9)), Verdict::Gap);
    }

    #[test]
    fn records_of_a_lost_future_are_never_applied_in_a_new_era() {
        let of = |era, position| Label { era, position };
        for last in [of(2, 5), of(2, 0)] {
            assert_eq!(judge(last, of(1, 6), of(1, 5)), Verdict::Skip);
            assert_eq!(judge(last, of(1, 900), Label::START), Verdict::Skip);
        }
    }

    #[test]
    fn a_group_that_has_applied_nothing_takes_the_first_record_of_the_new_era_and_no_later_one() {
        let nothing = Label { era: 2, position: 0 };
        let (third, ninth) = (Label { era: 2, position: 3 }, Label { era: 2, position: 9 });
        assert_eq!(judge(nothing, third, Label::START), Verdict::Apply);
        assert_eq!(judge(nothing, ninth, third), Verdict::Gap);
    }
}
