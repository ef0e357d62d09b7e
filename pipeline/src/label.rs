//! The label of a record: its place in the log, by which repeats and gaps are told.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// `<era>-<position>`. An era begins where a log is taken over by another database; within one, the
/// position is the order of publication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// Counts logs, from 1; 0 stands before every record.
    pub era: i32,
    /// The position in the log, from 1.
    pub position: i64,
}

impl Label {
    /// Stands before every record.
    pub const START: Label = Label { era: 0, position: 0 };
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.era, self.position)
    }
}

/// The text is not a label.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("not a label of the form <era>-<position>")]
pub struct NotALabel;

impl FromStr for Label {
    type Err = NotALabel;

    fn from_str(text: &str) -> Result<Label, NotALabel> {
        let (era, position) = text.split_once('-').ok_or(NotALabel)?;
        let label = Label {
            era: era.parse().map_err(|_| NotALabel)?,
            position: position.parse().map_err(|_| NotALabel)?,
        };
        if label.era > 0 && label.position > 0 { Ok(label) } else { Err(NotALabel) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_reads_back_as_written_and_orders_by_era_first() {
        let label = Label { era: 2, position: 7 };
        assert_eq!(label.to_string().parse(), Ok(label));
        assert!(Label { era: 1, position: 900 } < label);
        for wrong in ["", "7", "0-1", "1-0", "1-x", "-1-2"] {
            assert_eq!(wrong.parse::<Label>(), Err(NotALabel), "{wrong}");
        }
    }
}
