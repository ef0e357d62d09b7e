//! What keys are called.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use uuid::Uuid;

/// How long a name may be: shorter than every form of a UUID, so that no name is taken for an id.
const LENGTH_MAX: usize = 30;

/// The name of a key: 1 to 30 letters, digits, `.`, `_` and `-` of ASCII, a letter or a digit first. Who has an
/// administrator's key is known by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyName([u8; LENGTH_MAX]);

/// A text that is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a key's name has 1 to 30 letters, digits, `.`, `_` and `-`, and begins with a letter or a digit")]
pub struct NotAKeyName;

impl KeyName {
    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default().trim_end_matches('\0')
    }
}

impl FromStr for KeyName {
    type Err = NotAKeyName;

    fn from_str(text: &str) -> Result<KeyName, NotAKeyName> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let begins_well = text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
        if !begins_well || text.len() > LENGTH_MAX || !text.bytes().all(is_allowed) {
            return Err(NotAKeyName);
        }
        let mut name = [0; LENGTH_MAX];
        for (place, byte) in name.iter_mut().zip(text.bytes()) {
            *place = byte;
        }
        Ok(KeyName(name))
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

/// Which key is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRef {
    /// The administrator's key of that name.
    Name(KeyName),
    /// The key of that id, whoever has it.
    Id(Uuid),
}

impl KeyRef {
    /// Both as a query compares them.
    pub(super) fn parts(&self) -> (Option<Uuid>, Option<&str>) {
        match self {
            KeyRef::Name(name) => (None, Some(name.as_str())),
            KeyRef::Id(id) => (Some(*id), None),
        }
    }
}

impl FromStr for KeyRef {
    type Err = NotAKeyName;

    fn from_str(text: &str) -> Result<KeyRef, NotAKeyName> {
        match text.parse::<Uuid>() {
            Ok(id) => Ok(KeyRef::Id(id)),
            Err(_) => text.parse().map(KeyRef::Name),
        }
    }
}

impl fmt::Display for KeyRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyRef::Name(name) => fmt::Display::fmt(name, formatter),
            KeyRef::Id(id) => fmt::Display::fmt(id, formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_as_it_was_given() {
        for text in ["a", "7", "environment", "Minji.Kim_2-b", &"n".repeat(30)] {
            let name: KeyName = text.parse().unwrap();
            assert_eq!(name.as_str(), text);
            assert_eq!((name.to_string(), format!("{name:?}")), (text.to_owned(), format!("{text:?}")));
        }
    }

    #[test]
    fn what_could_be_something_else_is_no_name() {
        let long = "n".repeat(31);
        for text in ["", "-a", ".a", "_a", "a b", "a:b", "a\0", "김", "a@b", long.as_str()] {
            assert_eq!(text.parse::<KeyName>(), Err(NotAKeyName), "{text:?}");
        }
    }

    #[test]
    fn no_form_of_an_id_is_taken_for_a_name() {
        let id = Uuid::from_u128(0x0192_f0c1_7a3e_7000_8000_0000_0000_0001);
        for text in [id.to_string(), id.simple().to_string(), id.urn().to_string(), id.braced().to_string()] {
            assert_eq!(text.parse::<KeyRef>(), Ok(KeyRef::Id(id)), "{text}");
            assert!(text.parse::<KeyName>().is_err(), "{text}");
        }
        assert_eq!("minji".parse::<KeyRef>().map(|key| key.to_string()), Ok("minji".to_owned()));
    }
}
