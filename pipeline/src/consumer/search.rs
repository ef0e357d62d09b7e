//! How many records to try together, so that those that can't be applied are found in few attempts.

/// Halves what has failed until one record is left. Records that fail in a row are taken one by one, and then in steps
/// that double, so that a long row of them costs two attempts each and not a search each.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// So many of the next records are known to hold one that fails.
    suspect: usize,
    /// How many are tried at once after a row of failures; as many as there are otherwise.
    step: Option<usize>,
    /// The record before the next one has failed alone.
    behind_a_failure: bool,
}

impl Search {
    /// How many of the `left` records to try next; 1 at least.
    pub(super) fn next(&self, left: usize) -> usize {
        let all = self.step.unwrap_or(left).min(left);
        if self.suspect > 0 { (self.suspect / 2).max(1) } else { all.max(1) }
    }

    /// So many were applied.
    pub(super) fn applied(&mut self, count: usize) {
        self.suspect = self.suspect.saturating_sub(count);
        self.behind_a_failure = false;
        if self.suspect == 0 {
            self.step = self.step.map(|step| step.saturating_mul(2));
        }
    }

    /// So many, more than one, have failed together.
    pub(super) fn failed(&mut self, count: usize) {
        self.suspect = count;
    }

    /// One has failed alone and has been put aside.
    pub(super) fn put_aside(&mut self) {
        self.suspect = 0;
        self.step = self.behind_a_failure.then_some(1);
        self.behind_a_failure = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many attempts it takes, those that put aside included. Checks that exactly the bad ones are put aside.
    fn attempts(records: usize, is_bad: impl Fn(usize) -> bool) -> usize {
        let (mut search, mut at, mut attempts, mut found) = (Search::default(), 0, 0, Vec::new());
        while at < records {
            let count = search.next(records - at);
            attempts += 1;
            if !(at..at + count).any(&is_bad) {
                at += count;
                search.applied(count);
            } else if count > 1 {
                search.failed(count);
            } else {
                found.push(at);
                at += 1;
                attempts += 1;
                search.put_aside();
            }
        }
        assert_eq!(found, (0..records).filter(|at| is_bad(*at)).collect::<Vec<_>>());
        attempts
    }

    #[test]
    fn good_records_are_tried_once_and_together() {
        assert_eq!(attempts(500, |_| false), 1);
    }

    #[test]
    fn one_bad_record_among_five_hundred_is_found_in_a_dozen_attempts() {
        let worst = (0..500).map(|bad| attempts(500, |at| at == bad)).max();
        assert!(worst <= Some(13), "{worst:?}");
    }

    #[test]
    fn bad_records_in_a_row_cost_about_two_attempts_each() {
        assert!(attempts(500, |_| true) <= 1_020);
        assert!(attempts(500, |at| (100..300).contains(&at)) <= 460);
    }

    #[test]
    fn every_other_record_being_bad_is_no_worse_than_trying_each() {
        let count = attempts(64, |at| at % 2 == 0);
        assert!(count <= 64 * 4, "{count}");
    }
}
