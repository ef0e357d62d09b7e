//! Aggregates: what the shop keeps a history of, each a document under a key.
//!
//! A document is a function of the log alone: `evolve` makes it from events and the log's times of them, so a document
//! that is rebuilt from the log is the same to the byte.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use uuid::Uuid;

/// Whether a member says what its absence says, so that it need not be written: most documents have it so.
pub(crate) fn is_default<T: Default + PartialEq>(member: &T) -> bool {
    *member == T::default()
}

/// A kind of aggregate.
pub trait Aggregate: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What is known of it without having one.
    const KIND: Kind;

    /// What it is called; its table has that name.
    const NOUN: &'static str = Self::KIND.noun;

    /// What of the document is large and seldom changes; `()` where nothing is.
    type Bulk: PartialEq + Serialize;

    /// The bulk, where it has one: the member that [`Kind::bulk`] names.
    fn bulk(&self) -> Option<&Self::Bulk> {
        None
    }

    /// Checks the rules that it keeps whatever is decided, given what it was before. The database has those that guard money,
    /// stock and coupons as well; these are known without writing.
    ///
    /// # Errors
    /// The rule that it breaks.
    fn check(&self, _before: Option<&Self>) -> Result<(), &'static str> {
        Ok(())
    }
}

/// Where keys of an aggregate stand in the documents of another one, `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// In a member; `given` that another member has that value.
    Member {
        /// The noun of those documents.
        of: &'static str,
        /// The member.
        member: &'static str,
        /// Another member and its value.
        given: Option<(&'static str, &'static str)>,
    },
    /// In a member of every line, of the bulk and of a further list.
    Lines {
        /// The noun of those documents.
        of: &'static str,
        /// The member of a line.
        member: &'static str,
        /// The path of the further list: `change,taken`.
        further: &'static str,
    },
}

/// What documents are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MadeOf {
    /// Each of the history of one aggregate.
    OneHistory,
    /// Each of events that are in the histories of several aggregates.
    SeveralHistories,
    /// Each counts what is in many histories.
    Sums,
}

/// What is known of a kind of aggregate without having one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// What it is called; its table has that name.
    pub noun: &'static str,
    /// What one of them is called: `order`.
    pub name: &'static str,
    /// The member of the document that is large and seldom changes. It is not written where it stays as it is, so it is
    /// left out by `Serialize` and told by [`Aggregate::bulk`].
    pub bulk: Option<&'static str>,
    /// The aggregate whose documents name keys of this one: whoever loads those needs these as well.
    pub follows: Option<Follows>,
    /// The noun of the aggregate with the same key that it is a part of, and that is born before it.
    pub part_of: Option<&'static str>,
    /// What its documents are made of.
    pub made_of: MadeOf,
    /// The column of the aggregate whose history it is a part of.
    pub owner: &'static str,
    /// The path of what a summary counts documents by, as SQL/JSON writes it below `$`.
    pub counted_by: Option<&'static str>,
    /// The paths of what a summary adds up; their last members are its names.
    pub sums: &'static [&'static str],
}

impl Kind {
    /// What most kinds are: made of histories of their own, without anything else.
    #[must_use]
    pub const fn new(noun: &'static str, name: &'static str) -> Kind {
        let (made_of, owner) = (MadeOf::OneHistory, "key");
        Kind {
            noun,
            name,
            bulk: None,
            follows: None,
            part_of: None,
            made_of,
            owner,
            counted_by: None,
            sums: &[],
        }
    }
}

/// A document as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The kind of aggregate.
    pub kind: &'static Kind,
    /// Its key.
    pub key: Uuid,
    /// Its state, as JSON without the bulk.
    pub state: String,
    /// The bulk as JSON; absent where the aggregate has none, or it stays as it is.
    pub bulk: Option<String>,
}

/// Why a document can't be read or written.
#[derive(Debug, Error)]
pub enum DocumentError {
    /// It is not what this program writes.
    #[error("{noun} {key}: the document can't be read: {source}")]
    Unreadable {
        /// The noun.
        noun: &'static str,
        /// The key.
        key: Uuid,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// It can't be written as JSON.
    #[error("{noun} {key}: the document can't be written: {source}")]
    Unwritable {
        /// The noun.
        noun: &'static str,
        /// The key.
        key: Uuid,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A rule would be broken by what was decided.
    #[error("{noun} {key}: {rule}")]
    Forbidden {
        /// The noun.
        noun: &'static str,
        /// The key.
        key: Uuid,
        /// The rule.
        rule: &'static str,
    },
}

/// Some aggregates in memory, as far as a decision touches them.
pub trait Documents: Clone + Default + Send + Sync + 'static {
    /// The kinds of its aggregates.
    const KINDS: &'static [Kind];

    /// Takes in a document as it is stored. One of another noun is left out.
    ///
    /// # Errors
    /// [`DocumentError::Unreadable`].
    fn put(&mut self, noun: &str, key: Uuid, state: &str, bulk: Option<&str>) -> Result<(), DocumentError>;

    /// The documents that are not as they were `before`.
    ///
    /// # Errors
    /// [`DocumentError::Unwritable`].
    fn changes(&self, before: &Self) -> Result<Vec<Document>, DocumentError>;

    /// Checks the rules of the documents that are not as they were `before`. A part of a history does not keep them: a shelf is made
    /// by many orders.
    ///
    /// # Errors
    /// [`DocumentError::Forbidden`].
    fn check(&self, before: &Self) -> Result<(), DocumentError>;
}

/// Reads a document, whose bulk stands apart.
///
/// # Errors
/// [`DocumentError::Unreadable`].
pub fn read<A: Aggregate>(key: Uuid, state: &str, bulk: Option<&str>) -> Result<A, DocumentError> {
    let joined = match (A::KIND.bulk, bulk) {
        (Some(member), Some(bulk)) => {
            let rest = state.trim_start().strip_prefix('{').unwrap_or_default().trim_start();
            let separator = if rest.starts_with('}') { "" } else { "," };
            serde_json::from_str(&format!("{{\"{member}\":{bulk}{separator}{rest}"))
        }
        _ => serde_json::from_str(state),
    };
    joined.map_err(|source| DocumentError::Unreadable { noun: A::NOUN, key, source })
}

/// Writes a document; its bulk only where it is not as it was `before`.
///
/// # Errors
/// [`DocumentError::Unwritable`].
pub fn write<A: Aggregate>(key: Uuid, after: &A, before: Option<&A>) -> Result<Document, DocumentError> {
    let unwritable = |source| DocumentError::Unwritable { noun: A::NOUN, key, source };
    let state = serde_json::to_string(after).map_err(unwritable)?;
    let changed = after.bulk().filter(|bulk| before.and_then(A::bulk) != Some(bulk));
    let bulk = changed.map(serde_json::to_string).transpose().map_err(unwritable)?;
    Ok(Document { kind: const { &A::KIND }, key, state, bulk })
}

/// Checks the rules of a document that is not as it was `before`.
pub(crate) fn check<A: Aggregate>(key: Uuid, after: &A, before: Option<&A>) -> Result<(), DocumentError> {
    after.check(before).map_err(|rule| DocumentError::Forbidden { noun: A::NOUN, key, rule })
}

/// The documents that are not as they were `before`, each with what it was.
pub(crate) fn changed<'a, A: Aggregate>(
    after: &'a BTreeMap<Uuid, A>,
    before: &'a BTreeMap<Uuid, A>,
) -> impl Iterator<Item = (Uuid, &'a A, Option<&'a A>)> {
    let both = after.iter().map(|(key, after)| (*key, after, before.get(key)));
    both.filter(|(_, after, before)| *before != Some(*after))
}

/// Makes a struct with maps of aggregates by key the [`Documents`] of a capability. The members stand in the order in which
/// their rows are locked.
macro_rules! documents {
    ($State:ty { $($member:ident: $Aggregate:ty),+ $(,)? }) => {
        const _: () = {
            use uuid::Uuid;
            use $crate::aggregate::{self, Aggregate, Document, DocumentError, Documents, Kind};

            impl Documents for $State {
                const KINDS: &'static [Kind] = &[$(<$Aggregate as Aggregate>::KIND),+];

                fn put(
                    &mut self,
                    noun: &str,
                    key: Uuid,
                    state: &str,
                    bulk: Option<&str>,
                ) -> Result<(), DocumentError> {
                    match noun {
                        $(<$Aggregate as Aggregate>::NOUN => {
                            self.$member.insert(key, aggregate::read(key, state, bulk)?);
                        })+
                        _ => {}
                    }
                    Ok(())
                }

                fn changes(&self, before: &Self) -> Result<Vec<Document>, DocumentError> {
                    let mut changes = Vec::new();
                    $(for (key, after, before) in aggregate::changed(&self.$member, &before.$member) {
                        changes.push(aggregate::write(key, after, before)?);
                    })+
                    Ok(changes)
                }

                fn check(&self, before: &Self) -> Result<(), DocumentError> {
                    $(for (key, after, before) in aggregate::changed(&self.$member, &before.$member) {
                        aggregate::check(key, after, before)?;
                    })+
                    Ok(())
                }
            }
        };
    };
}
pub(crate) use documents;

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Cup {
        #[serde(skip_serializing)]
        lines: Vec<u8>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        colour: Option<String>,
    }

    impl Aggregate for Cup {
        const KIND: Kind = Kind { bulk: Some("lines"), ..Kind::new("cups", "cup") };
        type Bulk = Vec<u8>;

        fn bulk(&self) -> Option<&Vec<u8>> {
            Some(&self.lines)
        }

        fn check(&self, before: Option<&Cup>) -> Result<(), &'static str> {
            let is_shorter = before.is_some_and(|before| self.lines.len() < before.lines.len());
            if is_shorter { Err("lines are never taken away") } else { Ok(()) }
        }
    }

    fn cup(lines: &[u8], colour: Option<&str>) -> Cup {
        Cup { lines: lines.to_vec(), colour: colour.map(str::to_owned) }
    }

    #[test]
    fn what_is_written_apart_is_read_together() {
        for whole in [cup(&[1, 2], Some("red")), cup(&[], None), cup(&[3], None)] {
            let Document { state, bulk, .. } = write(Uuid::nil(), &whole, None).unwrap();
            assert!(!state.contains("lines"));
            assert_eq!(read::<Cup>(Uuid::nil(), &state, bulk.as_deref()).unwrap(), whole);
        }
    }

    #[test]
    fn the_bulk_is_written_only_where_it_changes() {
        let before = cup(&[1], None);
        assert_eq!(write(Uuid::nil(), &cup(&[1], Some("red")), Some(&before)).unwrap().bulk, None);
        let changed = write(Uuid::nil(), &cup(&[1, 2], None), Some(&before)).unwrap();
        assert_eq!(changed.bulk.as_deref(), Some("[1,2]"));
    }

    #[test]
    fn a_rule_that_is_broken_is_named() {
        assert!(check(Uuid::nil(), &cup(&[1], None), Some(&cup(&[1], None))).is_ok());
        let error = check(Uuid::nil(), &cup(&[], None), Some(&cup(&[1], None))).unwrap_err();
        assert!(matches!(error, DocumentError::Forbidden { noun: "cups", .. }));
    }
}
