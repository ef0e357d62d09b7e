//! Whether a record is the relay's: every record carries a MAC by a key that derives from a secret which is in neither
//! Kafka nor the database (docs/adr/0017).
//!
//! Kafka is a wire. Whoever can write to a topic can write any record; only who has the secret can make one that is
//! authentic. What is not is foreign, and changes nothing but the offset.

mod covered;
mod key;
pub(crate) mod key_table;
mod keyring;
mod secrets;
#[cfg(test)]
mod testing;

pub use covered::Covered;
pub use key::{Key, KeyId, MacText, NotAKeyId};
pub use key_table::{KeyError, KeyRow, KeyState, Revocation, install, list, revoke, rotate};
pub use keyring::{Authenticity, Flaw, Keyring, Keys};
pub use secrets::{RootSecret, Secrets, SecretsError};
