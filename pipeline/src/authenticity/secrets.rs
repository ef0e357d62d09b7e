//! The file with the root secret, which is neither in the database nor in its backups.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use hmac::Mac as _;
use thiserror::Error;

use super::key::{KeyId, keyed};

/// How many bytes a root secret has.
const SECRET_BYTES: usize = 32;
/// By what a secret is told without being told itself.
const FINGERPRINT_PURPOSE: &[u8] = b"ordermill fingerprint of a root secret\0";
/// What stands at the beginning of a new file.
const HEAD: &str = "\
# The root secret of authenticated records (docs/OPERATIONS.md). All processes have the same file. Keep it out of the
# database and its backups. The first secret signs; further ones only verify.
";

/// What all keys derive from.
#[derive(Clone, PartialEq, Eq)]
pub struct RootSecret(pub(super) [u8; SECRET_BYTES]);

/// What a secret file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    /// The keys that sign derive from it.
    first: RootSecret,
    /// They only verify.
    further: Vec<RootSecret>,
    /// Keys that are revoked, also where a restored database has forgotten it.
    pub(super) revoked: BTreeSet<KeyId>,
}

/// Why there is no secret to be had from a file.
#[derive(Debug, Error)]
pub enum SecretsError {
    /// It can't be read.
    #[error(
        "can't read the wire secret {path}: {source}; `ordermill keys wire secret` prints a new one for such a file"
    )]
    Unreadable {
        /// The file.
        path: String,
        /// What is wrong.
        source: std::io::Error,
    },
    /// A line is not of the form.
    #[error(
        "line {line} of the wire secret is neither `secret <64 hexadecimal digits>` nor `revoked <id of a key>`; \
         comments begin with #"
    )]
    Line {
        /// Which, from 1.
        line: usize,
    },
    /// There is no secret in it.
    #[error(
        "the wire secret has no line `secret <64 hexadecimal digits>`; `ordermill keys wire secret` prints one"
    )]
    Empty,
}

impl RootSecret {
    /// A new one.
    ///
    /// # Errors
    /// Where the machine has no source of randomness.
    pub fn generate() -> Result<RootSecret, getrandom::Error> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(RootSecret(bytes))
    }

    fn of(digits: &str) -> Option<RootSecret> {
        let mut bytes = [0; SECRET_BYTES];
        hex::decode_to_slice(digits, &mut bytes).ok()?;
        Some(RootSecret(bytes))
    }

    /// By what the secret is told in the database and on screens.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 8] {
        let [a, b, c, d, e, f, g, h, ..] = self.derive(FINGERPRINT_PURPOSE, b"");
        [a, b, c, d, e, f, g, h]
    }

    /// What follows from the secret for a purpose, which ends with a zero, and a name.
    pub(super) fn derive(&self, purpose: &[u8], name: &[u8]) -> [u8; 32] {
        let mut mac = keyed(&self.0);
        mac.update(purpose);
        mac.update(name);
        mac.finalize().into_bytes().into()
    }

    /// The text of a new file with this secret.
    #[must_use]
    pub fn file(&self) -> String {
        format!("{HEAD}secret {}\n", hex::encode(self.0))
    }
}

impl fmt::Debug for RootSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootSecret({})", hex::encode(self.fingerprint()))
    }
}

impl Secrets {
    /// Reads the file.
    ///
    /// # Errors
    /// [`SecretsError`] where it is not there or not of the form.
    pub fn read(path: &Path) -> Result<Secrets, SecretsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SecretsError::Unreadable { path: path.display().to_string(), source })?;
        Secrets::parse(&text)
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    /// [`SecretsError`] where it is not of the form.
    pub fn parse(text: &str) -> Result<Secrets, SecretsError> {
        let (mut roots, mut revoked) = (Vec::new(), BTreeSet::new());
        for (index, line) in text.lines().enumerate() {
            let (said, _comment) = line.split_once('#').unwrap_or((line, ""));
            let mut words = said.split_whitespace();
            let understood = match (words.next(), words.next(), words.next()) {
                (None, _, _) => Some(()),
                (Some("secret"), Some(digits), None) => RootSecret::of(digits).map(|root| roots.push(root)),
                (Some("revoked"), Some(id), None) => id.parse().ok().map(|id| revoked.extend([id])),
                _ => None,
            };
            understood.ok_or(SecretsError::Line { line: index + 1 })?;
        }
        let mut roots = roots.into_iter();
        let first = roots.next().ok_or(SecretsError::Empty)?;
        Ok(Secrets { first, further: roots.collect(), revoked })
    }

    /// The line by which a file says that a key is revoked.
    #[must_use]
    pub fn revocation_line(id: &KeyId) -> String {
        format!("revoked {id}\n")
    }

    /// Whether the file says that a key is revoked.
    #[must_use]
    pub fn revokes(&self, id: &KeyId) -> bool {
        self.revoked.contains(id)
    }

    /// The secret with that fingerprint, where it is one of these.
    pub(super) fn with_fingerprint(&self, fingerprint: &[u8]) -> Option<&RootSecret> {
        self.roots().find(|root| root.fingerprint() == fingerprint)
    }

    /// The secret that the keys which sign derive from.
    pub(crate) fn signing(&self) -> &RootSecret {
        &self.first
    }

    /// Every secret.
    pub(super) fn roots(&self) -> impl Iterator<Item = &RootSecret> {
        std::iter::once(&self.first).chain(&self.further)
    }
}

impl From<RootSecret> for Secrets {
    fn from(root: RootSecret) -> Secrets {
        Secrets { first: root, further: Vec::new(), revoked: BTreeSet::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_which_secrets_there_are_and_which_keys_are_revoked() {
        let (first, second) = (RootSecret::generate().unwrap(), RootSecret::generate().unwrap());
        let id: KeyId = "1-3-0123456789abcdef".parse().unwrap();
        let text = format!(
            "{} # first\n\n  {}{}",
            first.file().trim_end(),
            second.file(),
            Secrets::revocation_line(&id)
        );
        let secrets = Secrets::parse(&text).unwrap();
        assert_eq!(secrets.signing(), &first);
        assert_eq!(Vec::from_iter(secrets.roots()), [&first, &second]);
        assert!(secrets.revokes(&id));
        assert_eq!(secrets.with_fingerprint(&second.fingerprint()), Some(&second));
        assert_eq!(secrets.with_fingerprint(b"another"), None);
        assert_eq!(Secrets::parse(&first.file()).unwrap(), Secrets::from(first));
    }

    #[test]
    fn what_is_not_of_the_form_is_refused_by_its_line() {
        let root = RootSecret::generate().unwrap().file();
        for wrong in ["secret", "secret 12", "revoked", "revoked 1-0-aa", "secrets", "revoked a b"] {
            let error = Secrets::parse(&format!("{root}{wrong}\n")).unwrap_err();
            assert!(matches!(error, SecretsError::Line { line: 4 }), "{wrong}: {error}");
        }
        assert!(matches!(Secrets::parse("# nothing\n\n"), Err(SecretsError::Empty)));
    }

    #[test]
    fn a_secret_does_not_show_where_it_is_printed() {
        let root = RootSecret::generate().unwrap();
        let shown = format!("{:?}", Secrets::from(root.clone()));
        assert!(!shown.contains(&hex::encode(root.0)), "{shown}");
        assert!(shown.contains(&hex::encode(root.fingerprint())), "{shown}");
    }
}
