//! What all checks found.

use jiff::Timestamp;
use serde::Serialize;

use super::check::Check;

/// What all checks found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether everything is as it should be.
    pub ok: bool,
    /// The checks.
    pub checks: Vec<Check>,
    /// When the looking began.
    pub at: Timestamp,
}

impl Report {
    /// What these checks found.
    #[must_use]
    pub fn new(checks: Vec<Check>, at: Timestamp) -> Report {
        Report { ok: checks.iter().all(|check| check.ok), checks, at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_check_makes_the_report_bad() {
        let (good, mut bad) = (Check::new("cups"), Check::new("pots"));
        bad.violation("a pot is gone");
        assert!(!Report::new(vec![good.clone(), bad], Timestamp::UNIX_EPOCH).ok);
        assert!(Report::new(vec![good], Timestamp::UNIX_EPOCH).ok);
    }
}
