//! How Kafka's client proves who it is, and whom it believes to be the broker.
//!
//! Where nothing is given it does neither, which is for a broker that nobody else reaches. What is given by halves is refused: nobody who wants
//! TLS shall go without it for a variable that is missing.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, fs};

use thiserror::Error;

/// Settings of librdkafka that say whom we ask and whom we believe. They follow from [`Security`], so that none of them can be weakened or told to
/// the list of processes.
const RESERVED: [&str; 3] =
    ["bootstrap.servers", "metadata.broker.list", "enable.ssl.certificate.verification"];
/// With what all others of them begin.
const RESERVED_PREFIXES: [&str; 3] = ["security.", "ssl.", "sasl."];
/// Those that begin so and weaken nothing: where a certificate of the client is.
const FREE: [&str; 2] = ["ssl.certificate.location", "ssl.key.location"];

/// Where a file of certificates begins to be one.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// How the brokers are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// Neither encrypted nor authenticated.
    #[default]
    Plaintext,
    /// Over TLS. A broker is believed if its certificate is of a CA in that file and for the name by which it is reached.
    Tls {
        /// Certificates of CAs, as PEM.
        ca_file: PathBuf,
        /// Who we are; nobody in particular where there is none.
        login: Option<Login>,
    },
}

impl Security {
    /// Over TLS, as that user.
    #[must_use]
    pub fn login(ca_file: &Path, login: Login) -> Security {
        Security::Tls { ca_file: ca_file.to_owned(), login: Some(login) }
    }

    /// The user that we are there; none where nobody asks.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Security::Tls { login: Some(login), .. } => Some(&login.user),
            _ => None,
        }
    }

    /// The same as settings of librdkafka.
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let Security::Tls { ca_file, login } = self else { return Vec::new() };
        let protocol = if login.is_some() { "SASL_SSL" } else { "SSL" };
        let mut settings = vec![
            ("security.protocol", protocol.to_owned()),
            ("ssl.ca.location", ca_file.to_string_lossy().into_owned()),
            ("enable.ssl.certificate.verification", "true".to_owned()),
            ("ssl.endpoint.identification.algorithm", "https".to_owned()),
        ];
        if let Some(login) = login {
            settings.push(("sasl.mechanism", login.mechanism.name().to_owned()));
            settings.push(("sasl.username", login.user.clone()));
            settings.push(("sasl.password", login.password.clone()));
        }
        settings
    }
}

/// Whether a setting of librdkafka is one of those that are given otherwise.
#[must_use]
pub fn is_reserved(setting: &str) -> bool {
    let is_of_security = RESERVED_PREFIXES.iter().any(|prefix| setting.starts_with(prefix));
    RESERVED.contains(&setting) || (is_of_security && !FREE.contains(&setting))
}

/// Who somebody is to the broker.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// How that is proved.
    pub mechanism: Mechanism,
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    /// Without the password, which would end up in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("mechanism", &self.mechanism)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// How a user proves to know a password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mechanism {
    /// By a challenge; the password itself is not sent.
    #[default]
    ScramSha512,
    /// The same with a shorter hash.
    ScramSha256,
    /// By saying it, within TLS.
    Plain,
}

impl Mechanism {
    const ALL: [Mechanism; 3] = [Mechanism::ScramSha512, Mechanism::ScramSha256, Mechanism::Plain];

    /// As Kafka calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::Plain => "PLAIN",
        }
    }
}

impl FromStr for Mechanism {
    type Err = SecurityError;

    fn from_str(name: &str) -> Result<Mechanism, SecurityError> {
        let known = Mechanism::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name));
        known.ok_or_else(|| SecurityError::Mechanism(name.to_owned()))
    }
}

/// The kinds of connections that Kafka has, without the one that sends passwords through the open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Neither TLS nor a user.
    Plaintext,
    /// TLS without a user.
    Ssl,
    /// TLS and a user.
    SaslSsl,
}

impl FromStr for Protocol {
    type Err = SecurityError;

    fn from_str(name: &str) -> Result<Protocol, SecurityError> {
        match name.to_ascii_uppercase().as_str() {
            "PLAINTEXT" => Ok(Protocol::Plaintext),
            "SSL" => Ok(Protocol::Ssl),
            "SASL_SSL" => Ok(Protocol::SaslSsl),
            _ => Err(SecurityError::Protocol(name.to_owned())),
        }
    }
}

/// What was given of all this; what was not is empty.
#[derive(Clone, Default)]
pub struct Given {
    /// Which kind of connection.
    pub protocol: Option<Protocol>,
    /// The file with the certificates of CAs.
    pub ca_file: Option<PathBuf>,
    /// How the user proves to know the password.
    pub mechanism: Option<Mechanism>,
    /// The user.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The file that holds the password.
    pub password_file: Option<PathBuf>,
}

impl Given {
    /// Whether nothing was given.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.protocol.is_none() && self.first_of_tls().is_none()
    }

    /// What it comes to. The files are read once, here.
    ///
    /// # Errors
    /// [`SecurityError`] where something is missing, contradicts the rest, or can't be read.
    pub fn security(self) -> Result<Security, SecurityError> {
        match self.protocol {
            None | Some(Protocol::Plaintext) => match self.first_of_tls() {
                Some(name) => Err(SecurityError::WithoutProtocol(name)),
                None => Ok(Security::Plaintext),
            },
            Some(Protocol::Ssl) => match self.first_of_login() {
                Some(name) => Err(SecurityError::LoginWithoutSasl(name)),
                None => Ok(Security::Tls { ca_file: checked_ca_file(self.ca_file)?, login: None }),
            },
            Some(Protocol::SaslSsl) => {
                let ca_file = checked_ca_file(self.ca_file)?;
                let user = self.user.filter(|user| !user.is_empty());
                let user = user.ok_or(SecurityError::Missing("KAFKA_USERNAME (--kafka-username)"))?;
                let password = password(self.password, self.password_file.as_deref())?;
                let mechanism = self.mechanism.unwrap_or_default();
                Ok(Security::login(&ca_file, Login { mechanism, user, password }))
            }
        }
    }

    /// The first that makes sense with TLS alone.
    fn first_of_tls(&self) -> Option<&'static str> {
        self.ca_file.is_some().then_some("KAFKA_CA_FILE").or_else(|| self.first_of_login())
    }

    /// The first that makes sense with a user alone.
    fn first_of_login(&self) -> Option<&'static str> {
        let given = [
            ("KAFKA_SASL_MECHANISM", self.mechanism.is_some()),
            ("KAFKA_USERNAME", self.user.is_some()),
            ("KAFKA_PASSWORD", self.password.is_some()),
            ("KAFKA_PASSWORD_FILE", self.password_file.is_some()),
        ];
        given.into_iter().find_map(|(name, is_given)| is_given.then_some(name))
    }
}

/// The file, if there is a certificate in it: the client would say so only when it connects, and again and again.
fn checked_ca_file(file: Option<PathBuf>) -> Result<PathBuf, SecurityError> {
    let file = file.ok_or(SecurityError::MissingCa)?;
    let text = read(&file)?;
    if text.contains(CERTIFICATE) { Ok(file) } else { Err(SecurityError::NoCertificate(file)) }
}

fn password(given: Option<String>, file: Option<&Path>) -> Result<String, SecurityError> {
    let password = match (given, file) {
        (Some(_), Some(_)) => return Err(SecurityError::TwoPasswords),
        (Some(password), None) => password,
        (None, Some(file)) => read(file)?.trim().to_owned(),
        (None, None) => String::new(),
    };
    if password.is_empty() {
        return Err(SecurityError::Missing(
            "KAFKA_PASSWORD, or KAFKA_PASSWORD_FILE (--kafka-password-file),",
        ));
    }
    Ok(password)
}

fn read(file: &Path) -> Result<String, SecurityError> {
    fs::read_to_string(file).map_err(|source| SecurityError::NotReadable { file: file.to_owned(), source })
}

/// Why the brokers can't be reached as was asked for. Each text says what to do.
#[derive(Debug, Error)]
pub enum SecurityError {
    /// There is no such kind of connection, or none that is safe.
    #[error(
        "{0:?} is no protocol for Kafka: give SASL_SSL (TLS and a user), SSL (TLS without a user) or PLAINTEXT (neither); \
         SASL_PLAINTEXT is refused, since it logs in through the open"
    )]
    Protocol(String),
    /// There is no such mechanism here.
    #[error("{0:?} is no SASL mechanism that is known here: give SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN")]
    Mechanism(String),
    /// Something of TLS was given, but not that it shall be used.
    #[error(
        "{0} is given, but Kafka would be reached without TLS: set KAFKA_SECURITY_PROTOCOL to SASL_SSL (or SSL), or leave {0} out"
    )]
    WithoutProtocol(&'static str),
    /// Something of a user was given, but the kind of connection has none.
    #[error(
        "{0} is given, but KAFKA_SECURITY_PROTOCOL is SSL, which logs nobody in: set it to SASL_SSL, or leave {0} out"
    )]
    LoginWithoutSasl(&'static str),
    /// Nobody is trusted.
    #[error(
        "KAFKA_CA_FILE (--kafka-ca-file) is missing: give the certificate of the CA that has signed those of the brokers, as PEM; for a \
         public CA, that is /etc/ssl/certs/ca-certificates.crt"
    )]
    MissingCa,
    /// There is no certificate in the file of the CAs.
    #[error("{} holds no certificate: KAFKA_CA_FILE must name a file of certificates as PEM", .0.display())]
    NoCertificate(PathBuf),
    /// Something is missing that a user needs.
    #[error("{0} is missing, and KAFKA_SECURITY_PROTOCOL is SASL_SSL: give it, or set SSL")]
    Missing(&'static str),
    /// There are two passwords.
    #[error("KAFKA_PASSWORD and KAFKA_PASSWORD_FILE are both given: leave one of them out")]
    TwoPasswords,
    /// A file can't be read.
    #[error("can't read {}: {source}", .file.display())]
    NotReadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with a file `ca.pem` and a file `password`, and what is right to be given with them.
    fn right() -> (tempfile::TempDir, Given) {
        let dir = tempfile::tempdir().unwrap();
        let (ca_file, password_file) = (dir.path().join("ca.pem"), dir.path().join("password"));
        fs::write(&ca_file, format!("{CERTIFICATE}\nMII\n")).unwrap();
        fs::write(&password_file, "open sesame\n").unwrap();
        let given = Given {
            protocol: Some(Protocol::SaslSsl),
            ca_file: Some(ca_file),
            user: Some("relay".to_owned()),
            password_file: Some(password_file),
            ..Given::default()
        };
        (dir, given)
    }

    fn refusal(given: Given) -> String {
        given.security().unwrap_err().to_string()
    }

    #[test]
    fn a_user_logs_in_by_scram_over_tls_to_a_broker_whose_name_is_verified() {
        let (dir, given) = right();
        let security = given.security().unwrap();
        assert_eq!(security.user(), Some("relay"));
        let expected = [
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", dir.path().join("ca.pem").to_str().unwrap()),
            ("enable.ssl.certificate.verification", "true"),
            ("ssl.endpoint.identification.algorithm", "https"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "relay"),
            ("sasl.password", "open sesame"),
        ]
        .map(|(name, value)| (name, value.to_owned()));
        assert_eq!(security.settings(), expected);
        for (name, _) in expected {
            assert!(is_reserved(name), "{name} could be given otherwise");
        }
    }

    #[test]
    fn the_password_is_in_no_debug_output() {
        let (_dir, given) = right();
        let shown = format!("{:?}", given.security().unwrap());
        assert!(shown.contains("relay") && !shown.contains("sesame"), "{shown}");
    }

    #[test]
    fn without_a_word_there_is_neither_tls_nor_a_user() {
        assert!(Given::default().is_nothing());
        let security = Given::default().security().unwrap();
        assert_eq!((&security, security.settings().len()), (&Security::Plaintext, 0));
    }

    #[test]
    fn what_is_given_by_halves_is_refused_with_what_to_do() {
        let (_dir, given) = right();
        let with = |change: &dyn Fn(&mut Given)| {
            let mut given = given.clone();
            change(&mut given);
            refusal(given)
        };
        let without_protocol = with(&|given| given.protocol = None);
        assert!(without_protocol.contains("set KAFKA_SECURITY_PROTOCOL to SASL_SSL"), "{without_protocol}");
        let plaintext = with(&|given| given.protocol = Some(Protocol::Plaintext));
        assert_eq!(plaintext, without_protocol);
        let login = with(&|given| given.protocol = Some(Protocol::Ssl));
        assert!(login.contains("KAFKA_USERNAME is given") && login.contains("SSL"), "{login}");
        assert!(with(&|given| given.ca_file = None).contains("KAFKA_CA_FILE (--kafka-ca-file) is missing"));
        assert!(with(&|given| given.user = None).contains("KAFKA_USERNAME (--kafka-username) is missing"));
        assert!(with(&|given| given.password_file = None).contains("KAFKA_PASSWORD, or"));
        assert!(with(&|given| given.password = Some("x".to_owned())).contains("leave one of them out"));
        let password = given.password_file.clone();
        assert!(with(&|given| given.ca_file = password.clone()).contains("holds no certificate"));
        assert!(
            with(&|given| given.ca_file = Some("/no/such/file".into())).contains("can't read /no/such/file")
        );
    }

    #[test]
    fn protocols_and_mechanisms_are_kafkas_and_none_logs_in_through_the_open() {
        assert_eq!("sasl_ssl".parse::<Protocol>().unwrap(), Protocol::SaslSsl);
        for refused in ["SASL_PLAINTEXT", "TLS", ""] {
            let error = refused.parse::<Protocol>().unwrap_err().to_string();
            assert!(error.contains("give SASL_SSL"), "{error}");
        }
        assert_eq!("scram-sha-256".parse::<Mechanism>().unwrap(), Mechanism::ScramSha256);
        assert!("GSSAPI".parse::<Mechanism>().unwrap_err().to_string().contains("SCRAM-SHA-512"));
    }
}
