//! Dead letters: messages that a group could not apply, and what waits behind them.
//!
//! A message that can't be applied is put aside whole, in the transaction that moves the group's offset past it, and
//! its key is parked: what comes later for that key in that group is put aside as well, to wait. A replay applies a
//! letter from its row, inside the group that failed, and then what waits, in order; so the order of a key holds,
//! and nobody else sees a replay.
//!
//! Whoever decides about a parked key locks its row in `parked_key` first, then the letter's row.

pub mod edits;
pub mod halts;
pub mod letters;
pub mod replays;

pub(crate) mod aside;
pub(crate) mod flood;
pub(crate) mod lines;
pub(crate) mod parked_keys;
pub(crate) mod verdicts;
pub(crate) mod working;

use jiff::Timestamp;

/// An enum whose variants have names that are public and stable.
macro_rules! named {
    ($(#[$about:meta])* $Enum:ident { $($(#[$says:meta])* $Variant:ident = $name:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, sqlx::Type)]
        #[sqlx(type_name = "text")]
        pub enum $Enum {
            $($(#[$says])* #[serde(rename = $name)] #[sqlx(rename = $name)] $Variant,)*
        }

        impl $Enum {
            /// All there are.
            pub const ALL: [$Enum; [$($name),*].len()] = [$($Enum::$Variant),*];

            /// The public name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $($Enum::$Variant => $name,)* }
            }

            /// The one of that name, if there is one.
            #[must_use]
            pub fn from_name(name: &str) -> Option<$Enum> {
                $Enum::ALL.into_iter().find(|known| known.name() == name)
            }
        }
    };
}
pub(crate) use named;

named! {
    /// Why a message was not applied.
    Code {
        /// It is not the relay's: not signed, or not as it lies there. It parks no key, and is never applied.
        Foreign = "FOREIGN",
        /// Its type or version is not known.
        UnknownType = "UNKNOWN_TYPE",
        /// Its payload is not JSON.
        Undecodable = "UNDECODABLE",
        /// Its payload does not have the shape that its type promises.
        Schema = "SCHEMA",
        /// Its key is not the one that its payload says.
        KeyMismatch = "KEY_MISMATCH",
        /// It breaks a rule, of what decides or of the database.
        Rule = "RULE",
        /// The program fails over it.
        Bug = "BUG",
    }
}

impl Code {
    /// Whether later messages of the key wait. What is not ours has no place in a key's history.
    #[must_use]
    pub const fn parks_the_key(self) -> bool {
        !matches!(self, Code::Foreign)
    }

    /// The error of a message as the log tells it: where it quotes the message, that is left to the letter, which administrators see.
    pub(crate) fn told(self, error: &str) -> &str {
        match self {
            Code::UnknownType | Code::Undecodable | Code::Schema => "the letter says what is wrong with it",
            _ => error,
        }
    }
}

named! {
    /// What has become of a message that was put aside.
    State {
        /// It failed, and somebody must decide.
        Parked = "PARKED",
        /// It has not been tried: a letter of its key is before it.
        Waiting = "WAITING",
        /// A replay has selected it, and has not come to it yet.
        Replayed = "REPLAYED",
        /// It has been applied.
        Resolved = "RESOLVED",
        /// Somebody has decided that it is not applied.
        Discarded = "DISCARDED",
    }
}

named! {
    /// What a replay made of a message.
    Verdict {
        /// It has been applied, and changed something.
        Applied = "APPLIED",
        /// Everything it asks for had been done before.
        AlreadyApplied = "ALREADY_APPLIED",
        /// It failed again and is parked again, or has been discarded meanwhile.
        FailedAgain = "FAILED_AGAIN",
        /// It waits behind a letter that is not done with.
        Waiting = "WAITING",
    }
}

impl Verdict {
    /// Of a message that was applied: whether that changed anything.
    #[must_use]
    pub(crate) const fn of_effect(had_effect: bool) -> Verdict {
        if had_effect { Verdict::Applied } else { Verdict::AlreadyApplied }
    }
}

/// Why one message was not applied.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// For programs.
    pub code: Code,
    /// For operators.
    pub error: String,
    /// How many attempts were made.
    pub attempts: i32,
    /// When the first attempt failed.
    pub first_failed_at: Timestamp,
    /// When the last attempt failed.
    pub last_failed_at: Timestamp,
}

/// PostgreSQL's text can't hold NUL, and a dead letter must not fail over what is wrong with it.
pub(crate) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_told_why_a_message_failed_but_not_what_it_says() {
        assert_eq!(Code::Rule.told("too many cups"), "too many cups");
        for code in [Code::UnknownType, Code::Undecodable, Code::Schema] {
            assert!(!code.told("invalid type: string \"Kim\"").contains("Kim"), "{}", code.name());
        }
    }

    #[test]
    fn names_are_unique_and_read_back() {
        for state in State::ALL {
            assert_eq!(State::from_name(state.name()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
        for verdict in Verdict::ALL {
            assert_eq!(Verdict::from_name(verdict.name()), Some(verdict));
            assert_eq!(serde_json::to_value(verdict).unwrap(), verdict.name());
        }
        let told = ordermill_schemas::dead_letters::CODES.map(|(code, _)| code);
        assert_eq!(Code::ALL.map(Code::name), told, "the contract tells other codes");
    }
}
