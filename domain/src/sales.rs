//! Sales: what each event adds to the sums of what was sold, and takes from them again.

pub mod calendar;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;

use jiff::Timestamp;
use ordermill_schemas::orders::SoldLine;
use ordermill_schemas::{Event, Money};
use uuid::Uuid;

/// How long a bucket is. The days of every zone in use begin on a multiple of this in UTC: some at :30 or :45.
pub const BUCKET_SECONDS: i64 = 15 * 60;

/// What a sum is of. The order of the variants is the order in which their rows are locked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Everything.
    All,
    /// One category, as it was called at the sale.
    Category(String),
    /// One product in the category that it had at the sale.
    Product {
        /// The category.
        category: String,
        /// The product.
        product_id: Uuid,
    },
}

/// A bucket's sums of one subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// When the bucket begins, a multiple of [`BUCKET_SECONDS`].
    pub bucket: Timestamp,
    /// What the sums are of.
    pub subject: Subject,
}

/// What was sold, or by how much it changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Units.
    pub quantity: i64,
    /// What was paid for them, in the minor unit.
    pub revenue: Money,
    /// In how many orders.
    pub orders: i64,
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Figures) {
        self.quantity += other.quantity;
        self.revenue += other.revenue;
        self.orders += other.orders;
    }
}

/// What some events change, in the order of their keys. It does not matter in how many portions the events come, nor
/// in which order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums(BTreeMap<Key, Figures>);

impl Sums {
    /// Takes in an event that happened `at` that time. A cancellation or a modification changes the sums of the time
    /// at which the sale was confirmed, not of its own.
    pub fn observe(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::OrderConfirmed(e) => self.count(at, &e.lines, 1),
            Event::OrderCancelled(e) => self.count(e.confirmed_at, &e.lines, -1),
            Event::OrderModified(e) => {
                self.count(e.confirmed_at, &e.before, -1);
                self.count(e.confirmed_at, &e.lines, 1);
            }
            _ => {}
        }
    }

    /// What changes, by key; what comes to nothing is left out.
    pub fn changes(&self) -> impl Iterator<Item = (&Key, &Figures)> {
        self.0.iter().filter(|(_, figures)| **figures != Figures::default())
    }

    /// Counts the lines of one order, on each level; `sign` is 1 where they are sold, -1 where they were and now are not.
    fn count(&mut self, confirmed_at: Timestamp, lines: &[SoldLine], sign: i64) {
        let bucket = bucket_of(confirmed_at);
        let mut add = |subject, figures| {
            *self.0.entry(Key { bucket, subject }).or_default() += figures;
        };
        for line in lines {
            let (quantity, revenue) = (sign * i64::from(line.quantity), sign * line.revenue);
            let of_line = Figures { quantity, revenue, orders: 0 };
            let (category, product_id) = (line.category.clone(), line.product_id);
            add(Subject::All, of_line);
            add(Subject::Category(category.clone()), of_line);
            // An order has each product once.
            add(Subject::Product { category, product_id }, Figures { orders: sign, ..of_line });
        }
        let one_order = Figures { orders: sign, ..Figures::default() };
        add(Subject::All, one_order);
        let categories: BTreeSet<&String> = lines.iter().map(|line| &line.category).collect();
        for category in categories {
            add(Subject::Category(category.clone()), one_order);
        }
    }
}

/// When the bucket begins that a time lies in.
#[must_use]
pub fn bucket_of(at: Timestamp) -> Timestamp {
    let second = at.as_second();
    // The seconds of a time before 1970 are rounded up to its whole second, so the nanoseconds count there.
    let second = if at.subsec_nanosecond() < 0 { second - 1 } else { second };
    Timestamp::from_second(second - second.rem_euclid(BUCKET_SECONDS)).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use ordermill_schemas::orders::{OrderCancelled, OrderConfirmed, OrderModified};
    use proptest::prelude::*;

    use super::*;

    const CATEGORIES: [&str; 3] = ["FOOD", "LIGHT", "PAPER"];

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn product(number: u8) -> Uuid {
        Uuid::from_u128(u128::from(number) + 1)
    }

    fn line(number: u8, category: &str, quantity: i32, revenue: Money) -> SoldLine {
        SoldLine { product_id: product(number), category: category.to_owned(), quantity, revenue }
    }

    fn confirmed(lines: &[SoldLine]) -> Event {
        OrderConfirmed { order_id: Uuid::nil(), user_id: Uuid::nil(), total: 0, lines: lines.to_vec() }.into()
    }

    fn cancelled(confirmed_at: Timestamp, lines: &[SoldLine]) -> Event {
        let (order_id, user_id, refunded) = (Uuid::nil(), Uuid::nil(), 0);
        OrderCancelled { order_id, user_id, refunded, confirmed_at, lines: lines.to_vec() }.into()
    }

    fn modified(confirmed_at: Timestamp, before: &[SoldLine], lines: &[SoldLine]) -> Event {
        OrderModified {
            order_id: Uuid::nil(),
            user_id: Uuid::nil(),
            round: 2,
            total: 0,
            confirmed_at,
            before: before.to_vec(),
            lines: lines.to_vec(),
        }
        .into()
    }

    fn sums_of(events: &[(Event, Timestamp)]) -> Sums {
        let mut sums = Sums::default();
        events.iter().for_each(|(event, at)| sums.observe(event, *at));
        sums
    }

    fn changes(sums: &Sums) -> BTreeMap<Key, Figures> {
        sums.changes().map(|(key, figures)| (key.clone(), *figures)).collect()
    }

    #[test]
    fn a_bucket_begins_at_the_quarter_of_an_hour_before_a_time() {
        for (time, bucket) in [
            ("2026-03-01T10:00:00Z", "2026-03-01T10:00:00Z"),
            ("2026-03-01T10:14:59.999999Z", "2026-03-01T10:00:00Z"),
            ("2026-03-01T10:15:00Z", "2026-03-01T10:15:00Z"),
            ("1969-12-31T23:59:59.5Z", "1969-12-31T23:45:00Z"),
            ("1969-12-31T23:44:59.5Z", "1969-12-31T23:30:00Z"),
            ("1969-12-31T23:45:00Z", "1969-12-31T23:45:00Z"),
        ] {
            assert_eq!(bucket_of(at(time)), at(bucket), "{time}");
        }
    }

    #[test]
    fn an_order_with_two_products_of_a_category_is_one_order_of_it() {
        let now = at("2026-03-01T10:00:00Z");
        let lines = [line(0, "FOOD", 2, 20), line(1, "FOOD", 1, 5), line(2, "LIGHT", 4, 100)];
        let sums = changes(&sums_of(&[(confirmed(&lines), now)]));
        let figures = |subject| sums.get(&Key { bucket: now, subject }).copied();
        let of = |quantity, revenue, orders| Some(Figures { quantity, revenue, orders });
        assert_eq!(figures(Subject::All), of(7, 125, 1));
        assert_eq!(figures(Subject::Category("FOOD".to_owned())), of(3, 25, 1));
        assert_eq!(figures(Subject::Category("LIGHT".to_owned())), of(4, 100, 1));
        let product = |number, category: &str| Subject::Product {
            category: category.to_owned(),
            product_id: product(number),
        };
        assert_eq!(figures(product(0, "FOOD")), of(2, 20, 1));
        assert_eq!(figures(product(2, "LIGHT")), of(4, 100, 1));
        assert_eq!(sums.len(), 6);
    }

    #[test]
    fn a_sale_that_is_taken_back_leaves_nothing_to_write() {
        let (sold_at, later) = (at("2026-03-01T10:00:00Z"), at("2026-03-09T10:00:00Z"));
        let lines = [line(0, "FOOD", 2, 20)];
        let sums = sums_of(&[(confirmed(&lines), sold_at), (cancelled(sold_at, &lines), later)]);
        assert_eq!(sums.changes().count(), 0);
    }

    #[test]
    fn a_modification_changes_the_time_of_the_sale_and_not_its_own() {
        let (sold_at, later) = (at("2026-03-01T10:05:00Z"), at("2026-03-09T10:00:00Z"));
        let (before, after) = ([line(0, "FOOD", 2, 20)], [line(0, "FOOD", 3, 30), line(2, "LIGHT", 1, 7)]);
        let sums = changes(&sums_of(&[(modified(sold_at, &before, &after), later)]));
        assert!(sums.keys().all(|key| key.bucket == at("2026-03-01T10:00:00Z")));
        let figures = |subject| sums[&Key { bucket: bucket_of(sold_at), subject }];
        // It was one order and still is, but it is new to the second category.
        assert_eq!(figures(Subject::All), Figures { quantity: 2, revenue: 17, orders: 0 });
        let light = Subject::Category("LIGHT".to_owned());
        assert_eq!(figures(light), Figures { quantity: 1, revenue: 7, orders: 1 });
        assert!(!sums.keys().any(|key| key.subject == Subject::Category("PAPER".to_owned())));
    }

    /// The lines that an order may have: each product once, in whichever category it has just then.
    fn any_lines() -> impl Strategy<Value = Vec<SoldLine>> {
        prop::collection::btree_map(0..5_u8, (0..3_usize, 1..50_i32, 0..10_000_i64), 1..5).prop_map(|lines| {
            let sold = |(number, (category, quantity, revenue))| {
                line(number, CATEGORIES[category], quantity, revenue)
            };
            lines.into_iter().map(sold).collect()
        })
    }

    /// What becomes of an order: confirmed so many minutes after the start, its lines one modification after the
    /// other, and whether it is cancelled in the end.
    #[derive(Clone, Debug)]
    struct Life {
        minute: i64,
        lines: Vec<Vec<SoldLine>>,
        is_cancelled: bool,
    }

    fn any_life() -> impl Strategy<Value = Life> {
        (0..200_i64, prop::collection::vec(any_lines(), 1..4), any::<bool>())
            .prop_map(|(minute, lines, is_cancelled)| Life { minute, lines, is_cancelled })
    }

    impl Life {
        fn confirmed_at(&self) -> Timestamp {
            Timestamp::from_second(1_770_000_000 + self.minute * 60).unwrap()
        }

        /// Its events; all but the first some days later.
        fn events(&self) -> Vec<(Event, Timestamp)> {
            let sold_at = self.confirmed_at();
            let later = sold_at + jiff::SignedDuration::from_hours(100);
            let mut events = vec![(confirmed(&self.lines[0]), sold_at)];
            let pairs = self.lines.windows(2);
            events.extend(pairs.map(|pair| (modified(sold_at, &pair[0], &pair[1]), later)));
            if self.is_cancelled {
                events.push((cancelled(sold_at, self.lines.last().unwrap()), later));
            }
            events
        }
    }

    /// The sums of what the orders are in the end, counted afresh and in another way.
    fn recount(lives: &[Life]) -> BTreeMap<Key, Figures> {
        let mut sold = Vec::new();
        for (order, life) in lives.iter().enumerate().filter(|(_, life)| !life.is_cancelled) {
            let bucket = bucket_of(life.confirmed_at());
            sold.extend(life.lines.last().unwrap().iter().map(|line| (order, bucket, line)));
        }
        let subjects = |line: &SoldLine| {
            let (category, product_id) = (line.category.clone(), line.product_id);
            [Subject::All, Subject::Category(category.clone()), Subject::Product { category, product_id }]
        };
        let keys: BTreeSet<Key> = sold
            .iter()
            .flat_map(|(_, bucket, line)| subjects(line).map(|subject| Key { bucket: *bucket, subject }))
            .collect();
        let figures = |key: &Key| {
            let of_key: Vec<_> = sold
                .iter()
                .filter(|(_, bucket, line)| *bucket == key.bucket && subjects(line).contains(&key.subject))
                .collect();
            let orders: BTreeSet<usize> = of_key.iter().map(|(order, ..)| *order).collect();
            Figures {
                quantity: of_key.iter().map(|(.., line)| i64::from(line.quantity)).sum(),
                revenue: of_key.iter().map(|(.., line)| line.revenue).sum(),
                orders: i64::try_from(orders.len()).unwrap(),
            }
        };
        keys.into_iter().map(|key| (key.clone(), figures(&key))).collect()
    }

    proptest! {
        #[test]
        fn any_sales_modifications_and_cancellations_add_up_to_a_recount_of_the_orders(
            lives in prop::collection::vec(any_life(), 0..12),
            batch in 1..7_usize,
            order in any::<prop::sample::Index>(),
        ) {
            let mut events: Vec<_> = lives.iter().flat_map(Life::events).collect();
            if !events.is_empty() {
                let first = order.index(events.len());
                events.rotate_left(first);
            }
            let all_at_once = sums_of(&events);
            // In portions as the worker takes them, each written before the next.
            let mut written = BTreeMap::<Key, Figures>::new();
            for portion in events.chunks(batch) {
                for (key, figures) in sums_of(portion).changes() {
                    *written.entry(key.clone()).or_default() += *figures;
                }
            }
            written.retain(|_, figures| *figures != Figures::default());
            let recounted = recount(&lives);
            // What was given away for nothing is sold, too, so no key of the recount comes to nothing.
            prop_assert_eq!(&changes(&all_at_once), &recounted);
            prop_assert_eq!(&written, &recounted);
        }
    }
}
