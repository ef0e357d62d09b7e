//! What was sold: the ranking of products, and statistics over time.

pub(super) mod popular;
pub(super) mod statistics;

use std::ops::RangeInclusive;

use axum::http::request::Parts;
use jiff::civil::Date;
use ordermill_domain::sales::calendar::Days;
use serde::de::DeserializeOwned;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use crate::app::Api;
use crate::paging;
use crate::problem::Problem;
use crate::validation::{Checks, limits};

/// The days that can be asked for: every sale's, and far from the ends of the calendar.
const DATES: RangeInclusive<Date> = Date::constant(1970, 1, 1)..=Date::constant(2999, 12, 31);
/// How a date is written.
const DATE_LENGTH: usize = "2026-01-31".len();

/// Reads a query of which every parameter may be left out.
fn query<Q: DeserializeOwned>(parts: &Parts, field: &'static str) -> Result<Q, Problem> {
    paging::parameters(parts, field, "each parameter may stand in the query once")
}

/// The schema of a parameter that is one of some words, the first by default.
fn words<T>(known: &[(&'static str, T)]) -> Object {
    let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
    let default = words.first().map(|word| (*word).into());
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).default(default).build()
}

/// The choice that a word names; the first where there is no word.
fn choice<T: Copy>(field: &'static str, word: Option<&str>, known: &[(&str, T)], checks: &mut Checks) -> T {
    let Some(word) = word else { return known[0].1 };
    let chosen = known.iter().find(|(name, _)| *name == word);
    chosen.map_or_else(
        || {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            checks.refuse(field, "UNKNOWN_VALUE", format!("must be one of {}", names.join(", ")));
            known[0].1
        },
        |(_, choice)| *choice,
    )
}

/// A category as it is kept, in upper case.
fn category(category: Option<&str>, checks: &mut Checks) -> Option<String> {
    let category = category?.to_uppercase();
    checks.text("category", &category, &limits::CATEGORY_LENGTH);
    Some(category)
}

/// A date, where there is one.
fn date(field: &'static str, text: Option<&str>, checks: &mut Checks) -> Option<Date> {
    let text = text?;
    let date: Option<Date> = text.parse().ok().filter(|_| text.len() == DATE_LENGTH);
    match date {
        None => checks.refuse(field, "MALFORMED", "must be a date like 2026-01-31"),
        Some(date) if !DATES.contains(&date) => {
            let (first, last) = (DATES.start(), DATES.end());
            checks.refuse(field, "OUT_OF_RANGE", format!("must be from {first} to {last}"));
        }
        Some(_) => {}
    }
    date
}

/// The days from `from` to `to`. Without `to` they end today; without `from` they begin where `first` says for their
/// last. What is answered counts only where nothing is wrong.
fn days(
    from: Option<Date>,
    to: Option<Date>,
    today: Date,
    first: impl FnOnce(Date) -> Result<Date, jiff::Error>,
    checks: &mut Checks,
) -> Result<Days, Problem> {
    let to = to.unwrap_or(today);
    let from = match from {
        Some(from) => from,
        None => first(to).map_err(out_of_the_calendar)?,
    };
    if from > to {
        checks.refuse("from", "OUT_OF_RANGE", "must not be after `to`, which is today unless it is given");
    }
    Ok(Days { from, to })
}

/// Dates that a client can ask for are not out of the calendar, so the clock is wrong.
fn out_of_the_calendar(error: jiff::Error) -> Problem {
    tracing::error!(%error, "a day can't be told; check the machine's clock");
    Problem::internal()
}

impl Api {
    /// The day that it is in the configured time zone.
    fn today(&self) -> Date {
        self.journal.now().to_zoned(self.config.time_zone.clone()).date()
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date as day;

    use super::*;

    fn read(text: &str) -> Result<Option<Date>, Problem> {
        let mut checks = Checks::default();
        let date = date("from", Some(text), &mut checks);
        checks.finish().map(|()| date)
    }

    fn between(from: Option<Date>, to: Option<Date>) -> Result<Days, Problem> {
        let mut checks = Checks::default();
        let first = |to| Ok(Days::up_to(to, 3)?.from);
        let days = days(from, to, day(2026, 3, 10), first, &mut checks)?;
        checks.finish().map(|()| days)
    }

    #[test]
    fn a_date_is_written_in_one_form() {
        assert_eq!(read("2026-01-31"), Ok(Some(day(2026, 1, 31))));
        for wrong in ["", "2026-02-30", "2026-1-31", "20260131", "2026-01-31T00:00", "31.01.2026", "today"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_date_lies_far_from_the_ends_of_the_calendar() {
        for (text, is_fine) in
            [("1970-01-01", true), ("1969-12-31", false), ("2999-12-31", true), ("3000-01-01", false)]
        {
            assert_eq!(read(text).is_ok(), is_fine, "{text}");
        }
    }

    #[test]
    fn each_end_that_is_left_out_follows_from_the_other() {
        let (first, last, today) = (day(2026, 3, 1), day(2026, 3, 5), day(2026, 3, 10));
        assert_eq!(between(Some(first), Some(last)), Ok(Days { from: first, to: last }));
        assert_eq!(between(Some(first), None), Ok(Days { from: first, to: today }));
        assert_eq!(between(None, Some(last)), Ok(Days { from: day(2026, 3, 3), to: last }));
        assert_eq!(between(None, None), Ok(Days { from: day(2026, 3, 8), to: today }));
        assert_eq!(between(Some(last), Some(last)), Ok(Days { from: last, to: last }));
        assert!(between(Some(last), Some(first)).is_err());
        assert!(between(Some(day(2026, 3, 11)), None).is_err());
    }

    #[test]
    fn a_word_is_one_of_those_that_are_known() {
        let known = [("one", 1), ("two", 2)];
        let choose = |word| {
            let mut checks = Checks::default();
            let chosen = choice("by", word, &known, &mut checks);
            checks.finish().map(|()| chosen)
        };
        assert_eq!((choose(None), choose(Some("two"))), (Ok(1), Ok(2)));
        for wrong in ["", "TWO", "three"] {
            let problem = format!("{:?}", choose(Some(wrong)).unwrap_err());
            assert!(problem.contains("must be one of one, two"), "{problem}");
        }
    }
}
