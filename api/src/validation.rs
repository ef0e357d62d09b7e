//! Fields that can be read but not accepted. All of them are named at once, not only the first.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::RangeInclusive;

use jiff::Timestamp;
use ordermill_schemas::stock::StockLine;
use uuid::Uuid;

use crate::problem::{Code, FieldError, Problem};

/// What the fields of one request may be.
pub(crate) mod limits {
    use std::ops::RangeInclusive;

    /// Characters of a name.
    pub(crate) const NAME_LENGTH: RangeInclusive<usize> = 1..=200;
    /// Characters of a description.
    pub(crate) const DESCRIPTION_LENGTH: RangeInclusive<usize> = 0..=10_000;
    /// Characters of a category, once in upper case.
    pub(crate) const CATEGORY_LENGTH: RangeInclusive<usize> = 1..=64;
    /// Bytes of an e-mail address (RFC 5321, 4.5.3.1.3, without the angle brackets).
    pub(crate) const EMAIL_LENGTH_MAX: usize = 254;
    /// Characters of what is looked for in names.
    pub(crate) const SEARCH_LENGTH: RangeInclusive<usize> = 1..=100;
    /// A price, in the minor unit.
    pub(crate) const PRICE: RangeInclusive<i64> = 0..=1_000_000_000;
    /// Units of a product when it is added.
    pub(crate) const STOCK: RangeInclusive<i64> = 0..=1_000_000_000;
    /// Units of a product that come or go at once.
    pub(crate) const STOCK_DELTA: RangeInclusive<i64> = -1_000_000_000..=1_000_000_000;
    /// What may be put into a balance at once, in the minor unit.
    pub(crate) const CHARGE: RangeInclusive<i64> = 1..=1_000_000_000;
    /// Lines of an order.
    pub(crate) const ORDER_LINES: RangeInclusive<usize> = 1..=50;
    /// Units of one line.
    pub(crate) const QUANTITY: RangeInclusive<i64> = 1..=10_000;
    /// How many of a coupon there are.
    pub(crate) const COUPON_QUANTITY: RangeInclusive<i64> = 1..=1_000_000_000;
    /// For how many days a coupon can be used.
    pub(crate) const COUPON_DAYS: RangeInclusive<i64> = 1..=3_650;
    /// Percent that a coupon takes off.
    pub(crate) const PERCENT: RangeInclusive<i64> = 1..=100;
    /// What a coupon takes off, in the minor unit.
    pub(crate) const COUPON_AMOUNT: RangeInclusive<i64> = 1..=1_000_000_000;
    /// Characters of a reason.
    pub(crate) const REASON_LENGTH: RangeInclusive<usize> = 1..=500;
    /// Characters of a carrier's tracking number.
    pub(crate) const TRACKING_NUMBER_LENGTH: RangeInclusive<usize> = 1..=100;
    /// Days that a ranking looks back on.
    pub(crate) const DAYS: RangeInclusive<i64> = 1..=366;
    /// Characters of a topic's or a group's name.
    pub(crate) const TOPIC_LENGTH: RangeInclusive<usize> = 1..=300;
    /// Dead letters that are named one by one.
    pub(crate) const DEAD_LETTER_IDS: RangeInclusive<usize> = 1..=1_000;
    /// Dead letters replayed in a second.
    pub(crate) const REPLAY_RATE: RangeInclusive<i64> = 1..=100_000;
    /// Seconds for which a group that goes on is not stopped again.
    pub(crate) const UNCHECKED_S: RangeInclusive<i64> = 0..=86_400;
    /// Items of a page.
    pub(crate) const PAGE: RangeInclusive<i64> = 1..=100;
}

/// The first time of a year that RFC 3339 can write, and that is not before our era.
const FIRST: Timestamp = Timestamp::constant(-62_135_596_800, 0);

/// Reads a time as RFC 3339 writes it, whose years have four digits. Other programs know earlier ones, and the database does
/// not know all of those. With an offset it may be written within the years and lie before them: an answer could not tell it.
pub(crate) fn time(text: &str) -> Option<Timestamp> {
    let time: Option<Timestamp> = text.parse().ok().filter(|_| !text.trim_start().starts_with(['-', '+']));
    time.filter(|time| *time >= FIRST)
}

/// Collects what is wrong with the fields of a request.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    errors: Vec<FieldError>,
}

impl Checks {
    /// What `check` makes of a request, where it finds nothing wrong.
    ///
    /// # Errors
    /// `VALIDATION_FAILED` where anything was wrong.
    pub(crate) fn all<T>(check: impl FnOnce(&mut Checks) -> T) -> Result<T, Problem> {
        let mut checks = Checks::default();
        let checked = check(&mut checks);
        if checks.errors.is_empty() { Ok(checked) } else { Err(checks.problem()) }
    }

    /// The refusal of one field.
    pub(crate) fn refusal(
        field: &'static str,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Problem {
        let mut checks = Checks::default();
        checks.refuse(field, code, detail);
        checks.problem()
    }

    /// Notes what is wrong with a field.
    pub(crate) fn refuse(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) {
        self.errors.push(FieldError { field: field.into(), code, detail: detail.into() });
    }

    /// A number must lie in a range.
    pub(crate) fn number(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        number: i64,
        range: &RangeInclusive<i64>,
    ) {
        if !range.contains(&number) {
            self.refuse(field, "OUT_OF_RANGE", format!("must be from {} to {}", range.start(), range.end()));
        }
    }

    /// A text must have so many characters, none of them NUL, and say something where it may not be empty.
    pub(crate) fn text(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        text: &str,
        length: &RangeInclusive<usize>,
    ) {
        if text.contains('\0') {
            self.refuse(field, "NUL_CHARACTER", "must not contain the character NUL");
        } else if *length.start() > 0 && text.trim().is_empty() {
            self.refuse(field, "BLANK", "must not be blank");
        } else if !length.contains(&text.chars().count()) {
            let detail = format!("must have {} to {} characters", length.start(), length.end());
            self.refuse(field, "LENGTH_OUT_OF_RANGE", detail);
        }
    }

    /// A time must be one of RFC 3339.
    pub(crate) fn time(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        text: Option<&str>,
    ) -> Option<Timestamp> {
        let time = text.map(time);
        if time == Some(None) {
            self.refuse(field, "MALFORMED", "must be a time like 2026-01-31T09:00:00Z");
        }
        time.flatten()
    }

    /// An e-mail address must look like one. Whether mail arrives there is not for a pattern to say.
    pub(crate) fn email(&mut self, field: &'static str, email: &str) {
        let parts = email.rsplit_once('@');
        let looks_like_one = parts.is_some_and(|(local, domain)| {
            !local.is_empty()
                && !local.contains('@')
                && !domain.is_empty()
                && !domain.starts_with('.')
                && !domain.ends_with('.')
                && !email.contains(|character: char| character.is_whitespace() || character.is_control())
        });
        if email.len() > limits::EMAIL_LENGTH_MAX {
            let detail = format!("must have at most {} bytes", limits::EMAIL_LENGTH_MAX);
            self.refuse(field, "LENGTH_OUT_OF_RANGE", detail);
        } else if !looks_like_one {
            self.refuse(field, "NOT_AN_EMAIL_ADDRESS", "must be an e-mail address like name@example.com");
        }
    }

    /// The choice that a word names among those that are known, the first where there is no word.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        field: &'static str,
        word: Option<&str>,
        known: &[(&'static str, T)],
    ) -> T {
        self.one_of(field, word, known.iter().copied()).unwrap_or(known[0].1)
    }

    /// What a word names among what is known, where there is a word.
    pub(crate) fn one_of<W: AsRef<str>, T>(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        word: Option<&str>,
        known: impl Iterator<Item = (W, T)> + Clone,
    ) -> Option<T> {
        let word = word?;
        let named = known.clone().find(|(name, _)| name.as_ref() == word);
        if named.is_none() {
            let names: Vec<W> = known.map(|(name, _)| name).collect();
            let names: Vec<&str> = names.iter().map(W::as_ref).collect();
            self.refuse(field, "UNKNOWN_VALUE", format!("must be one of {}", names.join(", ")));
        }
        named.map(|(_, value)| value)
    }

    /// A category, as it is kept: in upper case.
    pub(crate) fn category(&mut self, category: Option<&str>) -> Option<String> {
        let category = category?.to_uppercase();
        self.text("category", &category, &limits::CATEGORY_LENGTH);
        Some(category)
    }

    /// A text that may be missing.
    pub(crate) fn optional_text(
        &mut self,
        field: &'static str,
        text: Option<&String>,
        length: &RangeInclusive<usize>,
    ) {
        if let Some(text) = text {
            self.text(field, text, length);
        }
    }

    /// The lines of an order or of a shipment, each a product with how many of it. Where there are too many, only the first are
    /// looked at.
    pub(crate) fn lines(&mut self, lines: impl ExactSizeIterator<Item = (Uuid, i64)>) -> Vec<StockLine> {
        let (least, most) = (limits::ORDER_LINES.start(), limits::ORDER_LINES.end());
        if !limits::ORDER_LINES.contains(&lines.len()) {
            self.refuse("lines", "LENGTH_OUT_OF_RANGE", format!("must have {least} to {most} lines"));
        }
        let mut seen = HashSet::new();
        let mut checked = Vec::new();
        for (index, (product_id, quantity)) in lines.enumerate().take(*most) {
            if !seen.insert(product_id) {
                let detail = "this product has a line already; add the quantities up";
                self.refuse(format!("lines[{index}].product_id"), "DUPLICATE_PRODUCT", detail);
            }
            self.number(format!("lines[{index}].quantity"), quantity, &limits::QUANTITY);
            checked.push(StockLine { product_id, quantity: i32::try_from(quantity).unwrap_or_default() });
        }
        checked
    }

    fn problem(self) -> Problem {
        let names: Vec<&str> = self.errors.iter().map(|error| &*error.field).collect();
        let detail = format!("out of range: {}", names.join(", "));
        Problem::new(Code::ValidationFailed, detail).with_errors(self.errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong_with(check: impl FnOnce(&mut Checks)) -> Vec<&'static str> {
        let mut checks = Checks::default();
        check(&mut checks);
        checks.errors.iter().map(|error| error.code).collect()
    }

    #[test]
    fn a_time_has_a_year_of_four_digits() {
        for (text, is_time) in [
            ("2026-01-31T09:00:00Z", true),
            ("2026-01-31T09:00:00.123456+09:00", true),
            ("0001-01-01T00:00:00Z", true),
            ("0001-01-01T00:00:00+00:01", false),
            ("0000-12-31T23:59:59Z", false),
            ("0000-01-01T00:59:59+01:00", false),
            ("-005000-01-01T00:00:00Z", false),
            ("+002026-01-31T09:00:00Z", false),
            ("2026-01-31", false),
            ("", false),
        ] {
            assert_eq!(time(text).is_some(), is_time, "{text}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_named_at_once() {
        let checked = Checks::all(|checks| {
            checks.text("name", "", &limits::NAME_LENGTH);
            checks.number("price", -1, &limits::PRICE);
            checks.number("stock", 5, &limits::STOCK);
        });
        let problem = format!("{:?}", checked.unwrap_err());
        assert!(problem.contains("out of range: name, price\""), "{problem}");
    }

    #[test]
    fn characters_are_counted_not_bytes() {
        let name = |name: &str| wrong_with(|checks| checks.text("name", name, &limits::NAME_LENGTH));
        assert!(name(&"한".repeat(200)).is_empty());
        assert_eq!(name(&"한".repeat(201)), ["LENGTH_OUT_OF_RANGE"]);
        assert_eq!(name(" \t\u{3000}"), ["BLANK"]);
        assert_eq!(name("a\0b"), ["NUL_CHARACTER"]);
    }

    #[test]
    fn a_text_that_may_be_empty_may_be_empty() {
        let wrong = wrong_with(|checks| checks.text("description", "", &limits::DESCRIPTION_LENGTH));
        assert!(wrong.is_empty());
    }

    #[test]
    fn both_ends_of_a_range_belong_to_it() {
        for (number, is_fine) in [(0, false), (1, true), (10_000, true), (10_001, false), (i64::MIN, false)] {
            let wrong = wrong_with(|checks| checks.number("quantity", number, &limits::QUANTITY));
            assert_eq!(wrong.is_empty(), is_fine, "{number}");
        }
    }

    #[test]
    fn an_email_address_has_something_before_and_after_one_at_sign() {
        let email = |email: &str| wrong_with(|checks| checks.email("email", email));
        for right in ["a@b", "kim.minji+shop@example.co.kr", "用户@例子.广告"] {
            assert!(email(right).is_empty(), "{right}");
        }
        for wrong in ["", "@", "a@", "@b", "a", "a@b@c", "a b@c", "a@b\0", "a@.b", "a@b.", "a@b\n"] {
            assert_eq!(email(wrong), ["NOT_AN_EMAIL_ADDRESS"], "{wrong:?}");
        }
        assert!(email(&format!("{}@b", "a".repeat(252))).is_empty());
        assert_eq!(email(&format!("{}@b", "a".repeat(253))), ["LENGTH_OUT_OF_RANGE"]);
    }
}
