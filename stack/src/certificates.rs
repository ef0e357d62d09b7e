//! Certificates of a data directory's own, for TLS on the loopback address.
//!
//! A CA signs one for each server when they are made, and its key is thrown away at once: nobody can make more of them later, and nothing that
//! could lies about. So they all end together, and shortly before that they are made anew, with another CA.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use crate::claim::Claim;
use crate::error::{Result, StackError};
use crate::files::{make_private_dir, remove_if_there, write_private};

/// Their directory, and who holds it.
const NAME: &str = "tls";
/// The servers that have one.
const SERVERS: [&str; 3] = [KAFKA, POSTGRES, GATEWAY];
const KAFKA: &str = "kafka";
const POSTGRES: &str = "postgres";
const GATEWAY: &str = "gateway";
/// What the servers are called by those who connect to them.
const NAMES: [&str; 3] = ["127.0.0.1", "::1", "localhost"];

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long they are good.
const LIFETIME: Duration = Duration::from_secs(5 * 365 * DAY.as_secs());
/// How long before their end they are replaced, at a start: nobody replaces them in between.
const REPLACED_BEFORE: Duration = Duration::from_secs(30 * DAY.as_secs());

/// The certificates of a data directory, for as long as the value lives.
#[derive(Debug)]
pub struct Certificates {
    dir: PathBuf,
    _claim: Claim,
}

/// What a server needs to prove who it is.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// Its certificate and its key, PEM, in one file that is its owner's alone.
    pub certificate: PathBuf,
    /// The certificate of the CA that has signed it.
    pub ca: PathBuf,
}

impl Certificates {
    /// Those of `data_dir`, made if they are missing, or not good for a while after `now`.
    ///
    /// # Errors
    /// If somebody else runs a stack there, or they can't be made or written.
    pub fn keep(data_dir: &Path, now: SystemTime) -> Result<Certificates> {
        let claim = Claim::take(data_dir, NAME)?;
        let dir = data_dir.canonicalize().map_err(StackError::io("find", data_dir))?.join(NAME);
        let certificates = Certificates { dir, _claim: claim };
        if !(certificates.are_good(now) && certificates.are_good(now + REPLACED_BEFORE)) {
            certificates.make(now)?;
        }
        Ok(certificates)
    }

    /// The certificate of the CA: who trusts it trusts these servers.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// Kafka's.
    pub fn kafka(&self) -> ServerTls {
        self.of(KAFKA)
    }

    /// PostgreSQL's.
    pub fn postgres(&self) -> ServerTls {
        self.of(POSTGRES)
    }

    /// The gateway's.
    pub fn gateway(&self) -> ServerTls {
        self.of(GATEWAY)
    }

    fn of(&self, server: &str) -> ServerTls {
        ServerTls { certificate: self.file_of(server), ca: self.ca_file() }
    }

    fn file_of(&self, server: &str) -> PathBuf {
        self.dir.join(format!("{server}.pem"))
    }

    /// Whether a client that trusts the CA would believe every server then.
    fn are_good(&self, then: SystemTime) -> bool {
        let Ok(since_epoch) = then.duration_since(SystemTime::UNIX_EPOCH) else { return false };
        let then = UnixTime::since_unix_epoch(since_epoch);
        SERVERS.iter().all(|server| self.is_good(server, then) == Some(true))
    }

    /// The same of one server; none where a file is missing or damaged.
    fn is_good(&self, server: &str, then: UnixTime) -> Option<bool> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.ca_file()).ok()?).ok()?;
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()?;
        let certificate = CertificateDer::from_pem_file(self.file_of(server)).ok()?;
        let is_believed_as = |name: &str| {
            let name = ServerName::try_from(name.to_owned());
            name.is_ok_and(|name| verifier.verify_server_cert(&certificate, &[], &name, &[], then).is_ok())
        };
        Some(NAMES.iter().all(|name| is_believed_as(name)))
    }

    /// Under another name, then renamed: those that are there belong together.
    fn make(&self, now: SystemTime) -> Result<()> {
        let unfinished = Certificates::unfinished(&self.dir);
        remove_if_there(&unfinished)?;
        make_private_dir(&unfinished)?;
        for (name, text) in issue(now).map_err(|error| {
            StackError::Other(format!("can't make certificates in {}: {error}", self.dir.display()))
        })? {
            write_private(&unfinished.join(name), &text)?;
        }
        remove_if_there(&self.dir)?;
        fs::rename(&unfinished, &self.dir).map_err(StackError::io("rename", &unfinished))
    }

    fn unfinished(dir: &Path) -> PathBuf {
        dir.with_extension("unfinished")
    }
}

/// A new CA's certificate and what it signs, as files. Its key ends with this call.
fn issue(now: SystemTime) -> std::result::Result<Vec<(String, String)>, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = params("Ordermill's CA of one data directory", now);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = params.self_signed(&key)?;
    let issuer = Issuer::new(params, key);
    let mut files = vec![("ca.pem".to_owned(), ca.pem())];
    for server in SERVERS {
        let key = KeyPair::generate()?;
        let mut params = self::params(server, now);
        params.subject_alt_names =
            CertificateParams::new(NAMES.map(str::to_owned).to_vec())?.subject_alt_names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &issuer)?;
        files.push((format!("{server}.pem"), certificate.pem() + &key.serialize_pem()));
    }
    Ok(files)
}

/// What all certificates have: a name, and from when until when they are good. Clocks may be a little apart.
fn params(name: &str, now: SystemTime) -> CertificateParams {
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = epoch + since_epoch.saturating_sub(DAY);
    params.not_after = epoch + since_epoch + LIFETIME;
    params
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn keep(dir: &Path, now: SystemTime) -> String {
        let certificates = Certificates::keep(dir, now).unwrap();
        fs::read_to_string(certificates.ca_file()).unwrap()
    }

    #[test]
    fn they_are_kept_until_shortly_before_their_end_and_then_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let first = keep(dir.path(), now());
        let end = now() + LIFETIME;
        assert_eq!(keep(dir.path(), now()), first);
        assert_eq!(keep(dir.path(), end - REPLACED_BEFORE - DAY), first);
        let second = keep(dir.path(), end - REPLACED_BEFORE + DAY);
        assert_ne!(second, first);
        assert_eq!(keep(dir.path(), end), second, "the new ones begin anew");
    }

    #[test]
    fn where_one_is_missing_damaged_or_of_another_ca_all_are_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let others = Certificates::keep(other.path(), now()).unwrap().gateway().certificate;
        let remove = |file: &Path| fs::remove_file(file).unwrap();
        let damage = |file: &Path| fs::write(file, "nonsense").unwrap();
        let exchange = |file: &Path| {
            fs::copy(&others, file).unwrap();
        };
        let spoil: [&dyn Fn(&Path); 3] = [&remove, &damage, &exchange];
        for spoil in spoil {
            let certificates = Certificates::keep(dir.path(), now()).unwrap();
            let ca = fs::read_to_string(certificates.ca_file()).unwrap();
            spoil(&certificates.gateway().certificate);
            assert!(!certificates.are_good(now()));
            drop(certificates);
            assert_ne!(keep(dir.path(), now()), ca);
        }
    }

    #[test]
    fn they_are_their_owners_alone_and_the_key_of_the_ca_is_not_among_them() {
        let dir = tempfile::tempdir().unwrap();
        let certificates = Certificates::keep(dir.path(), now()).unwrap();
        assert!(certificates.are_good(now()));
        let mut files: Vec<String> = Vec::new();
        for entry in fs::read_dir(&certificates.dir).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().mode() & 0o077, 0);
            files.push(entry.file_name().into_string().unwrap());
        }
        files.sort();
        assert_eq!(files, ["ca.pem", "gateway.pem", "kafka.pem", "postgres.pem"]);
        let ca = fs::read_to_string(certificates.ca_file()).unwrap();
        assert!(!ca.contains("PRIVATE KEY"), "{ca}");
    }

    #[test]
    fn a_second_stack_on_the_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Certificates::keep(dir.path(), now()).unwrap();
        let error = Certificates::keep(dir.path(), now()).unwrap_err().to_string();
        assert!(error.contains("in use by process"), "{error}");
    }
}
