//! The gateway's ledger, read over HTTP.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use ordermill_workers::GatewayHttp;
use reqwest::Url;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::charge::Charge;

/// How many charges are asked for at once.
const PAGE_CHARGES: &str = "10000";
/// How long one answer may take. The database ends a transaction that waits for longer than 30 seconds.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The ledger, read from its beginning to its end.
pub(crate) struct Ledger {
    http: GatewayHttp,
    charges: Url,
    /// Of the page to be read next; none of the first.
    cursor: Option<String>,
    at_end: bool,
}

/// A page of the ledger.
#[derive(Debug, Deserialize)]
struct Page {
    items: Vec<Charge>,
    next_cursor: Option<String>,
}

impl Ledger {
    /// That of the gateway at this address, believed by the CAs in the file.
    ///
    /// # Errors
    /// Where it can't be reached in this way.
    pub(crate) fn of(gateway_url: &str, ca_file: Option<&Path>) -> Result<Ledger> {
        let wrong =
            || format!("the gateway's address {gateway_url:?} is not a URL like http://127.0.0.1:8090");
        let mut charges: Url = gateway_url.parse().with_context(wrong)?;
        charges.path_segments_mut().map_err(|()| anyhow::anyhow!(wrong()))?.pop_if_empty().push("charges");
        let http = GatewayHttp::new(gateway_url, ca_file, TIMEOUT)?;
        Ok(Ledger { http, charges, cursor: None, at_end: false })
    }

    /// The next page; `None` behind the last. The ledger only grows at its end, so no charge comes twice.
    pub(crate) async fn page(&mut self) -> Result<Option<Vec<Charge>>> {
        if self.at_end {
            return Ok(None);
        }
        let mut url = self.charges.clone();
        url.query_pairs_mut().append_pair("limit", PAGE_CHARGES);
        if let Some(cursor) = &self.cursor {
            url.query_pairs_mut().append_pair("cursor", cursor);
        }
        let Page { items, next_cursor } =
            self.get(url).await?.context("the gateway has no list of charges")?;
        self.at_end = next_cursor.is_none();
        self.cursor = next_cursor;
        Ok(Some(items))
    }

    /// One charge as it is now; `None` where the gateway does not know it.
    pub(crate) async fn charge(&self, charge_id: &str) -> Result<Option<Charge>> {
        self.get(self.url_of(&[charge_id])).await
    }

    /// Has the gateway give back what it holds for a charge, and answer `VOIDED` to it from now on. Safe to repeat.
    pub(crate) async fn void(&self, charge_id: &str) -> Result<()> {
        let answer = self.http.post(self.url_of(&[charge_id, "void"]).as_str(), TIMEOUT).await;
        answer.with_context(|| format!("the gateway did not void charge {charge_id}"))
    }

    fn url_of(&self, path: &[&str]) -> Url {
        let mut url = self.charges.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path);
        }
        url
    }

    async fn get<T: DeserializeOwned>(&self, url: Url) -> Result<Option<T>> {
        let silent =
            "the gateway does not answer; check that it runs and that ORDERMILL_GATEWAY_URL names it";
        self.http.get(url.as_str(), TIMEOUT).await.context(silent)
    }
}
