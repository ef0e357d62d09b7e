//! The gateway's certificate, where it has one: then it answers by https alone.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What makes TLS of a connection, by the certificate in one file, with those of the CAs between, and its key in another; both may be one file.
///
/// # Errors
/// If one of them can't be read, is no PEM, or does not fit the other.
pub(crate) fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let unusable = |flag: &str, file: &Path| format!("cannot use {}; give another by {flag}", file.display());
    let chain = CertificateDer::pem_file_iter(certificate);
    let chain = chain.and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>());
    let chain = chain.with_context(|| unusable("--tls-certificate", certificate))?;
    ensure!(
        !chain.is_empty(),
        "{}: there is no certificate in it",
        unusable("--tls-certificate", certificate)
    );
    let private = PrivateKeyDer::from_pem_file(key).with_context(|| unusable("--tls-key", key))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("there is no TLS here")?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .with_context(|| unusable("--tls-key", key))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
