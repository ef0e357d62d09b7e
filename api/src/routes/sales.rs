//! What was sold: the ranking of products, and statistics over time.

pub(super) mod popular;
pub(super) mod statistics;

use std::ops::RangeInclusive;

use jiff::civil::Date;
use ordermill_domain::sales::calendar::Days;
use utoipa::openapi::schema::ObjectBuilder;

use crate::app::Api;
use crate::openapi::words;
use crate::problem::Problem;
use crate::validation::Checks;

/// The days that can be asked for: every sale's, and far from the ends of the calendar.
const DATES: RangeInclusive<Date> = Date::constant(1970, 1, 1)..=Date::constant(2999, 12, 31);
/// How a date is written.
const DATE_LENGTH: usize = "2026-01-31".len();

/// The schema of a parameter that is one of some words, the first by default.
fn choice<T>(known: &[(&'static str, T)]) -> ObjectBuilder {
    words(known.iter().map(|(word, _)| *word)).default(known.first().map(|(word, _)| (*word).into()))
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
/// last.
fn days(
    from: Option<Date>,
    to: Option<Date>,
    today: Date,
    first: impl FnOnce(Date) -> Result<Date, jiff::Error>,
) -> Result<Days, Problem> {
    let to = to.unwrap_or(today);
    let from = from.map_or_else(|| first(to), Ok).map_err(out_of_the_calendar)?;
    if from > to {
        let detail = "must not be after `to`, which is today unless it is given";
        return Err(Checks::refusal("from", "OUT_OF_RANGE", detail));
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
        Checks::all(|checks| date("from", Some(text), checks))
    }

    fn between(from: Option<Date>, to: Option<Date>) -> Result<Days, Problem> {
        days(from, to, day(2026, 3, 10), |to| Ok(Days::up_to(to, 3)?.from))
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
        let choose = |word| Checks::all(|checks| checks.choice("by", word, &known));
        assert_eq!((choose(None), choose(Some("two"))), (Ok(1), Ok(2)));
        for wrong in ["", "TWO", "three"] {
            let problem = format!("{:?}", choose(Some(wrong)).unwrap_err());
            assert!(problem.contains("must be one of one, two"), "{problem}");
        }
    }
}
