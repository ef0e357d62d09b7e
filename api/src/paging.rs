//! Lists in pages: `limit` and `cursor` in, `items` and `next_cursor` out.

use axum::extract::Query;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::problem::Problem;
use crate::validation::{Checks, limits};

/// Which page of a list is asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// How many items at most, from 1 to 100.
    #[param(value_type = Option<i32>, minimum = 1, maximum = 100)]
    limit: Option<String>,
    /// `next_cursor` of the page before; opaque.
    cursor: Option<String>,
}

/// Has a query be taken from a request's head as that function reads it.
macro_rules! query {
    ($Query:ty, $read:expr) => {
        impl<S: Send + Sync> axum::extract::FromRequestParts<S> for $Query {
            type Rejection = $crate::problem::Problem;

            async fn from_request_parts(
                parts: &mut axum::http::request::Parts,
                _: &S,
            ) -> Result<$Query, Self::Rejection> {
                $read(parts)
            }
        }
    };
}
pub(crate) use query;

query!(PageQuery, |parts| parameters(parts, "limit", "limit and cursor may stand in the query once each"));

/// Reads parameters from the query, others among them left alone.
///
/// # Errors
/// `VALIDATION_FAILED` of `field` with `detail` where one of them stands there more than once.
pub(crate) fn parameters<Q: DeserializeOwned>(
    parts: &Parts,
    field: &'static str,
    detail: &'static str,
) -> Result<Q, Problem> {
    let query = Query::<Q>::try_from_uri(&parts.uri);
    query.map(|Query(query)| query).map_err(|_| Checks::refusal(field, "MALFORMED", detail))
}

/// Reads those of the parameters that have these names, each at most once.
///
/// # Errors
/// `VALIDATION_FAILED` of the first name with `unreadable` where the query can't be read, or of every name that stands there
/// more than once with `repeated`.
pub(crate) fn each_once<Q: DeserializeOwned>(
    parts: &Parts,
    names: &[&'static str],
    unreadable: &'static str,
    repeated: &'static str,
) -> Result<Q, Problem> {
    let pairs: Vec<(String, String)> = parameters(parts, names[0], unreadable)?;
    let members = Checks::all(|checks| {
        let mut members = serde_json::Map::new();
        for (name, value) in pairs {
            let Some(known) = names.iter().find(|known| **known == name) else { continue };
            if members.insert(name, value.into()).is_some() {
                checks.refuse(*known, "MALFORMED", repeated);
            }
        }
        members
    })?;
    Ok(serde_json::from_value(members.into())?)
}

/// A page that is asked for, with a cursor that was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page<C> {
    /// How many items at most.
    pub(crate) limit: usize,
    /// Where the page before ended.
    pub(crate) after: Option<C>,
}

impl<C> Page<C> {
    /// How many rows to ask for: one more than fits, which tells of a next page.
    pub(crate) fn rows(&self) -> i64 {
        i64::try_from(self.limit + 1).unwrap_or(i64::MAX)
    }
}

impl PageQuery {
    /// The page that is asked for.
    ///
    /// # Errors
    /// `VALIDATION_FAILED` where the limit is out of range or the cursor is none of ours.
    pub(crate) fn page<C: DeserializeOwned>(&self, limit_default: i64) -> Result<Page<C>, Problem> {
        Checks::all(|checks| self.check(limit_default, checks))
    }

    /// The same for a route that checks more than the page; what it answers counts only where nothing is wrong.
    pub(crate) fn check<C: DeserializeOwned>(&self, limit_default: i64, checks: &mut Checks) -> Page<C> {
        let limit = self.limit.as_deref().map_or(Some(limit_default), |limit| limit.parse().ok());
        match limit {
            Some(limit) => checks.number("limit", limit, &limits::PAGE),
            None => checks.refuse("limit", "OUT_OF_RANGE", "must be a whole number from 1 to 100"),
        }
        let after = self.cursor.as_deref().map(read_cursor);
        if matches!(after, Some(None)) {
            checks.refuse("cursor", "INVALID_CURSOR", "must be the next_cursor of an earlier answer");
        }
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or_default();
        Page { limit, after: after.flatten() }
    }
}

/// Where the page before ended, as its `next_cursor` says; `None` where that is none of ours.
pub fn read_cursor<C: DeserializeOwned>(cursor: &str) -> Option<C> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Items<T> {
    /// The items.
    pub items: Vec<T>,
    /// Leads to the next page; null on the last.
    #[schema(example = "MTI", required = true)]
    pub next_cursor: Option<String>,
}

impl<T> Items<T> {
    /// A page made of one row more than fits on it, where there is one: that is how it knows of a next page.
    /// `cursor` says of the last item where the next page begins.
    pub fn of_rows<R, C: Serialize>(
        mut rows: Vec<R>,
        limit: usize,
        cursor: impl FnOnce(&R) -> C,
        view: impl FnMut(R) -> T,
    ) -> Items<T> {
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let last = rows.last().filter(|_| has_more);
        // A cursor is plain data, so it can be written.
        let written = last.and_then(|row| serde_json::to_vec(&cursor(row)).ok());
        let next_cursor = written.map(|cursor| BASE64_URL_SAFE_NO_PAD.encode(cursor));
        Items { items: rows.into_iter().map(view).collect(), next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(limit: Option<&str>, cursor: Option<&str>) -> Result<Page<i32>, Problem> {
        let query = PageQuery { limit: limit.map(str::to_owned), cursor: cursor.map(str::to_owned) };
        query.page(5)
    }

    #[test]
    fn the_next_page_begins_where_this_one_ended() {
        let items = Items::of_rows(vec![9, 8, 7], 2, |row| *row, |row| row);
        assert_eq!(items.items, [9, 8]);
        let next = page(Some("2"), items.next_cursor.as_deref());
        assert_eq!(next, Ok(Page { limit: 2, after: Some(8) }));
    }

    #[test]
    fn the_last_page_leads_nowhere() {
        assert_eq!(Items::of_rows(vec![9, 8], 2, |row| *row, |row| row).next_cursor, None);
        assert_eq!(Items::of_rows(Vec::<i32>::new(), 2, |row| *row, |row| row).next_cursor, None);
    }

    #[test]
    fn a_limit_is_a_whole_number_from_1_to_100() {
        assert_eq!(page(None, None), Ok(Page { limit: 5, after: None }));
        assert_eq!(page(Some("100"), None), Ok(Page { limit: 100, after: None }));
        for wrong in ["0", "101", "-1", "1.5", "x", ""] {
            assert!(page(Some(wrong), None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cursor_that_is_none_of_ours_is_refused() {
        for wrong in ["", "!", "AAAA", "eA"] {
            assert!(page(None, Some(wrong)).is_err(), "{wrong}");
        }
    }
}
