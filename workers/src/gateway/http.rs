//! HTTP to the gateway: in the open, or over TLS where its address says so. Then the gateway is believed if its certificate is of a CA in a file
//! that was given, and for the name in the address.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, Uri, header};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use thiserror::Error;

/// How many connections are kept.
const CONNECTIONS_MAX: usize = 256;
/// How long a page of the ledger may be, in bytes.
const PAGE_MAX: usize = 64 * 1024 * 1024;

/// The gateway can't be reached in the way that was asked for. Each text says what to do.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// It is not an address of HTTP.
    #[error("the gateway's address {url:?} is not a URL like http://127.0.0.1:8090 or https://pay.example")]
    Address {
        /// What was given.
        url: String,
    },
    /// It is to be reached over TLS, and nobody is trusted.
    #[error(
        "the gateway's address is {url}, but ORDERMILL_GATEWAY_CA_FILE (--gateway-ca-file) is missing: give the certificate of the CA that has \
         signed the gateway's, as PEM; for a public CA, that is /etc/ssl/certs/ca-certificates.crt"
    )]
    MissingCa {
        /// What was given.
        url: String,
    },
    /// It is to be reached in the open, though somebody is trusted.
    #[error(
        "ORDERMILL_GATEWAY_CA_FILE is given, but the gateway's address {url} is without TLS: begin it with https, or leave the file out"
    )]
    WithoutTls {
        /// What was given.
        url: String,
    },
    /// The file of the CAs is none.
    #[error("the gateway's CA can't be had from {}: {reason}; ORDERMILL_GATEWAY_CA_FILE must name a file of certificates as PEM", .file.display())]
    Ca {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The library refuses its own settings.
    #[error("there is no TLS here: {0}")]
    Tls(#[from] rustls::Error),
}

/// A call brought nothing that can be used; the text says why.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct CallError(String);

/// A client of the gateway. Cloning shares its connections.
#[derive(Clone, Debug)]
pub struct GatewayHttp {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl GatewayHttp {
    /// A client of the gateway at `url`, believed by the CAs in `ca_file`. A connection has `connect_timeout` to be made.
    ///
    /// # Errors
    /// [`GatewayError`] where the one is no address, or does not fit the other.
    pub fn new(
        url: &str,
        ca_file: Option<&Path>,
        connect_timeout: Duration,
    ) -> Result<GatewayHttp, GatewayError> {
        let wrong = || GatewayError::Address { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        // A name and a password in it would not be sent.
        if url.contains(['#', '@']) || uri.query().is_some() {
            return Err(wrong());
        }
        let roots = match (uri.scheme_str(), ca_file) {
            (Some("http"), None) => RootCertStore::empty(),
            (Some("http"), Some(_)) => return Err(GatewayError::WithoutTls { url: url.to_owned() }),
            (Some("https"), Some(file)) => roots(file)?,
            (Some("https"), None) => return Err(GatewayError::MissingCa { url: url.to_owned() }),
            _ => return Err(wrong()),
        };
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.set_connect_timeout(Some(connect_timeout));
        // Whoever is around it looks at the scheme.
        http.enforce_http(false);
        let mut connector = HttpsConnector::from((http, tls));
        if ca_file.is_some() {
            connector.enforce_https();
        }
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(CONNECTIONS_MAX)
            .build(connector);
        Ok(GatewayHttp { client })
    }

    /// What a GET brings, as JSON; nothing where there is nothing.
    ///
    /// # Errors
    /// [`CallError`] where there is no answer in time, or one that is no use.
    pub async fn get<T: DeserializeOwned>(
        &self,
        url: &str,
        within: Duration,
    ) -> Result<Option<T>, CallError> {
        match self.call(Method::GET, url, within).await? {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, body) if status.is_success() => serde_json::from_slice(&body).map(Some).map_err(failed),
            (status, _) => Err(CallError(format!("status {status}"))),
        }
    }

    /// Has the gateway do what an empty POST asks for.
    ///
    /// # Errors
    /// [`CallError`] where it does not say in time that it has done it.
    pub async fn post(&self, url: &str, within: Duration) -> Result<(), CallError> {
        let (status, _) = self.call(Method::POST, url, within).await?;
        if status.is_success() { Ok(()) } else { Err(CallError(format!("status {status}"))) }
    }

    async fn call(
        &self,
        method: Method,
        url: &str,
        within: Duration,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let request = Request::builder().method(method).uri(url).header(header::ACCEPT, "application/json");
        let request = request.body(Full::default()).map_err(failed)?;
        let answered = async {
            let response = self.send(request).await.map_err(failed)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), PAGE_MAX).collect().await;
            let body = body.map_err(|error| CallError(error.to_string()))?;
            Ok((status, body.to_bytes()))
        };
        let in_time = tokio::time::timeout(within, answered).await;
        in_time.unwrap_or_else(|_| Err(CallError(format!("no answer within {within:?}"))))
    }

    /// Sends a request; the body of its answer is still to be read.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, legacy::Error> {
        self.client.request(request).await
    }
}

/// The CAs in a file.
fn roots(file: &Path) -> Result<RootCertStore, GatewayError> {
    let unusable = |reason: String| GatewayError::Ca { file: file.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unusable(error.to_string()))? {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() { Err(unusable("it holds no certificate".to_owned())) } else { Ok(roots) }
}

fn failed(error: impl std::error::Error) -> CallError {
    CallError(with_causes(&error))
}

/// What an error says, and what its causes do: they tell what is wrong.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str, ca_file: Option<&Path>) -> GatewayError {
        GatewayHttp::new(url, ca_file, Duration::from_secs(1)).unwrap_err()
    }

    #[test]
    fn an_address_that_is_none_of_http_is_refused() {
        for url in [
            "not a url",
            "ftp://shop.example",
            "http://shop.example/?a=b",
            "http://shop.example#a",
            "http://name:word@shop.example",
            "/charges",
        ] {
            let error = refusal(url, None);
            assert!(matches!(error, GatewayError::Address { .. }), "{error:?}");
            assert!(error.to_string().contains(url), "{error}");
        }
        GatewayHttp::new("http://shop.example/pay/", None, Duration::from_secs(1)).unwrap();
    }

    #[test]
    fn tls_without_a_ca_and_a_ca_without_tls_are_refused_with_what_to_do() {
        let missing = refusal("https://shop.example", None).to_string();
        assert!(missing.contains("ORDERMILL_GATEWAY_CA_FILE (--gateway-ca-file) is missing"), "{missing}");
        let needless = refusal("http://shop.example", Some(Path::new("ca.pem"))).to_string();
        assert!(needless.contains("begin it with https"), "{needless}");
        for file in ["/no/such/file", file!(), "/dev/null"] {
            let unusable = refusal("https://shop.example", Some(Path::new(file)));
            assert!(matches!(unusable, GatewayError::Ca { .. }), "{file}: {unusable:?}");
        }
    }
}
