//! Days, weeks and months of a time zone. A day begins when the zone's clocks first show it, so it may last 23 or 25
//! hours.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Error, Span, Timestamp, ToSpan as _};

/// How long the buckets are that statistics are told in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// A day.
    Day,
    /// A week, from Monday on.
    Week,
    /// A month.
    Month,
}

impl Period {
    /// The first day of the period that a day lies in.
    ///
    /// # Errors
    /// Where that is out of the calendar.
    pub fn first_day(self, day: Date) -> Result<Date, Error> {
        match self {
            Period::Day => Ok(day),
            Period::Week => day.checked_sub(i64::from(day.weekday().since(Weekday::Monday)).days()),
            Period::Month => Ok(day.first_of_month()),
        }
    }

    /// The first day of the period that comes so many periods before the one that a day lies in.
    ///
    /// # Errors
    /// Where that is out of the calendar.
    pub fn before(self, day: Date, periods: i64) -> Result<Date, Error> {
        self.first_day(day)?.checked_sub(self.span(periods))
    }

    fn span(self, periods: i64) -> Span {
        match self {
            Period::Day => periods.days(),
            Period::Week => periods.weeks(),
            Period::Month => periods.months(),
        }
    }
}

/// Some days one after the other, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days {
    /// The first.
    pub from: Date,
    /// The last, not before the first.
    pub to: Date,
}

impl Days {
    /// So many days, of which the last is `to`.
    ///
    /// # Errors
    /// Where they are out of the calendar.
    pub fn up_to(to: Date, count: i64) -> Result<Days, Error> {
        Ok(Days { from: Period::Day.before(to, count - 1)?, to })
    }

    /// When they begin in a zone, and when the day after them does.
    ///
    /// # Errors
    /// Where that is out of the calendar.
    pub fn times(self, zone: &TimeZone) -> Result<(Timestamp, Timestamp), Error> {
        Ok((beginning(self.from, zone)?, beginning(self.to.tomorrow()?, zone)?))
    }

    /// The first days of the periods that they touch; `None` where those are more than `max`.
    ///
    /// # Errors
    /// Where they are out of the calendar.
    pub fn periods(self, period: Period, max: usize) -> Result<Option<Vec<Date>>, Error> {
        let mut starts = Vec::new();
        let mut start = period.first_day(self.from)?;
        while start <= self.to {
            if starts.len() == max {
                return Ok(None);
            }
            starts.push(start);
            start = start.checked_add(period.span(1))?;
        }
        Ok(Some(starts))
    }

    /// When each of the periods begins that start on these days, the first no earlier than the days themselves; and when
    /// the days are over.
    ///
    /// # Errors
    /// Where that is out of the calendar.
    pub fn cuts(self, starts: &[Date], zone: &TimeZone) -> Result<(Vec<Timestamp>, Timestamp), Error> {
        let begin = |start: &Date| beginning((*start).max(self.from), zone);
        let begins = starts.iter().map(begin).collect::<Result<_, _>>()?;
        Ok((begins, beginning(self.to.tomorrow()?, zone)?))
    }
}

/// When the clocks of a zone first show a day. Where they are set forward at midnight, that is not 00:00.
fn beginning(day: Date, zone: &TimeZone) -> Result<Timestamp, Error> {
    Ok(day.to_zoned(zone.clone())?.start_of_day()?.timestamp())
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::sales::bucket_of;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn days(from: Date, to: Date) -> Days {
        Days { from, to }
    }

    fn times(from: Date, to: Date, name: &str) -> (String, String) {
        let (since, until) = days(from, to).times(&zone(name)).unwrap();
        (since.to_string(), until.to_string())
    }

    #[test]
    fn a_day_begins_at_the_midnight_of_its_zone() {
        for (name, since, until) in [
            ("Asia/Seoul", "2026-03-01T15:00:00Z", "2026-03-02T15:00:00Z"),
            ("Asia/Kolkata", "2026-03-01T18:30:00Z", "2026-03-02T18:30:00Z"),
            ("Asia/Kathmandu", "2026-03-01T18:15:00Z", "2026-03-02T18:15:00Z"),
            ("UTC", "2026-03-02T00:00:00Z", "2026-03-03T00:00:00Z"),
        ] {
            let day = date(2026, 3, 2);
            assert_eq!(times(day, day, name), (since.to_owned(), until.to_owned()), "{name}");
        }
    }

    #[test]
    fn a_day_on_which_clocks_are_set_is_shorter_or_longer() {
        for (name, day, hours) in [
            ("America/New_York", date(2026, 3, 8), 23),
            ("America/New_York", date(2026, 11, 1), 25),
            ("America/New_York", date(2026, 7, 1), 24),
            // Here they are set forward from midnight to one o'clock, and back from one o'clock to midnight.
            ("Africa/Cairo", date(2026, 4, 24), 23),
            ("America/Havana", date(2026, 3, 8), 23),
            ("America/Havana", date(2026, 11, 1), 25),
            // A day that the zone left out.
            ("Pacific/Apia", date(2011, 12, 30), 0),
        ] {
            let (since, until) = days(day, day).times(&zone(name)).unwrap();
            assert_eq!(until.duration_since(since).as_hours(), hours, "{day} in {name}");
        }
    }

    #[test]
    fn days_follow_one_another_without_a_gap() {
        for name in
            ["America/New_York", "Africa/Cairo", "Asia/Kathmandu", "Asia/Seoul", "Australia/Lord_Howe"]
        {
            let mut day = date(2026, 1, 1);
            while day < date(2027, 1, 1) {
                let next = day.tomorrow().unwrap();
                let (_, until) = days(day, day).times(&zone(name)).unwrap();
                let (since, _) = days(next, next).times(&zone(name)).unwrap();
                assert_eq!(until, since, "{day} in {name}");
                assert_eq!(bucket_of(since), since, "{next} in {name} begins with a bucket");
                day = next;
            }
        }
    }

    #[test]
    fn a_week_begins_on_monday_and_a_month_on_its_first() {
        for (day, monday) in [
            (date(2026, 1, 4), date(2025, 12, 29)),
            (date(2026, 1, 5), date(2026, 1, 5)),
            (date(2026, 1, 11), date(2026, 1, 5)),
        ] {
            assert_eq!(Period::Week.first_day(day).unwrap(), monday, "{day}");
        }
        assert_eq!(Period::Month.first_day(date(2026, 2, 28)).unwrap(), date(2026, 2, 1));
        assert_eq!(Period::Month.before(date(2026, 3, 31), 4).unwrap(), date(2025, 11, 1));
        assert_eq!(Period::Week.before(date(2026, 1, 11), 1).unwrap(), date(2025, 12, 29));
    }

    #[test]
    fn three_days_are_a_day_and_the_two_before_it() {
        assert_eq!(Days::up_to(date(2026, 3, 1), 3).unwrap(), days(date(2026, 2, 27), date(2026, 3, 1)));
        assert_eq!(Days::up_to(date(2026, 3, 1), 1).unwrap(), days(date(2026, 3, 1), date(2026, 3, 1)));
    }

    #[test]
    fn every_period_that_is_touched_counts_up_to_a_limit() {
        let some = days(date(2025, 12, 31), date(2026, 1, 5));
        let weeks = some.periods(Period::Week, 2).unwrap();
        assert_eq!(weeks, Some(vec![date(2025, 12, 29), date(2026, 1, 5)]));
        let months = some.periods(Period::Month, 9).unwrap();
        assert_eq!(months, Some(vec![date(2025, 12, 1), date(2026, 1, 1)]));
        assert_eq!(some.periods(Period::Day, 6).unwrap().map(|days| days.len()), Some(6));
        assert_eq!(some.periods(Period::Day, 5).unwrap(), None);
    }

    #[test]
    fn a_period_that_begins_before_the_days_is_cut_off_there() {
        let some = days(date(2026, 3, 5), date(2026, 3, 9));
        let weeks = some.periods(Period::Week, 9).unwrap().unwrap();
        assert_eq!(weeks, [date(2026, 3, 2), date(2026, 3, 9)]);
        let (begins, until) = some.cuts(&weeks, &zone("America/New_York")).unwrap();
        let texts: Vec<String> = begins.iter().map(Timestamp::to_string).collect();
        // The clocks are set forward in between.
        assert_eq!(texts, ["2026-03-05T05:00:00Z", "2026-03-09T04:00:00Z"]);
        assert_eq!(until.to_string(), "2026-03-10T04:00:00Z");
    }
}
