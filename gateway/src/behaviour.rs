//! How the gateway misbehaves, and the fate that is drawn for each request.

use std::time::Duration;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::book::Verdict;
use crate::problem::FieldError;

/// The longest latency that can be asked for.
const LATENCY_MS_MAX: u32 = 60_000;

/// The faults of charges, refunds and voids; each but the latency is a probability from 0 to 1.
///
/// Faults are drawn independently of each other. Where two exclude each other the first of
/// `timeout_before`, `error`, `decline`, `partial` wins, and `drop_callback` wins over
/// `duplicate_callback`. `decline`, `partial` and the callback faults concern only a new charge;
/// refunds and voids have neither. Fields left out of a `PUT /behaviour` take their defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Behaviour {
    /// Least and greatest delay before a request takes effect, in milliseconds; the default is
    /// `[0, 5]`. With `[0, 0]` no timer is involved; otherwise the timer rounds up to a millisecond.
    pub(crate) latency_ms: [u32; 2],
    /// The charge is recorded as DECLINED.
    pub(crate) decline: f64,
    /// The answer is 500, and nothing has happened.
    pub(crate) error: f64,
    /// Nothing happens, and there is no answer.
    pub(crate) timeout_before: f64,
    /// The request takes effect, but there is no answer.
    pub(crate) timeout_after: f64,
    /// The charge is approved for half of its amount, rounded down.
    pub(crate) partial: f64,
    /// The callback comes twice.
    pub(crate) duplicate_callback: f64,
    /// The callback doesn't come.
    pub(crate) drop_callback: f64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            latency_ms: [0, 5],
            decline: 0.0,
            error: 0.0,
            timeout_before: 0.0,
            timeout_after: 0.0,
            partial: 0.0,
            duplicate_callback: 0.0,
            drop_callback: 0.0,
        }
    }
}

/// A fault that comes before any effect, and instead of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forestalled {
    Silence,
    Error,
}

/// What one request will meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    /// `None` where there is nothing to wait for, so that no timer is touched.
    pub(crate) delay: Option<Duration>,
    pub(crate) forestalled: Option<Forestalled>,
    pub(crate) verdict: Verdict,
    pub(crate) is_answered: bool,
    /// How many times the callback is sent.
    pub(crate) callbacks: u8,
}

impl Behaviour {
    /// What is out of range; empty if nothing is.
    pub(crate) fn check(&self) -> Vec<FieldError> {
        let probabilities = [
            ("decline", self.decline),
            ("error", self.error),
            ("timeout_before", self.timeout_before),
            ("timeout_after", self.timeout_after),
            ("partial", self.partial),
            ("duplicate_callback", self.duplicate_callback),
            ("drop_callback", self.drop_callback),
        ];
        let mut errors: Vec<_> = probabilities
            .into_iter()
            .filter(|(_, probability)| !(0.0..=1.0).contains(probability))
            .map(|(field, _)| FieldError::out_of_range(field, "must be from 0 to 1"))
            .collect();
        let [least, greatest] = self.latency_ms;
        if least > greatest || greatest > LATENCY_MS_MAX {
            let detail = "must be [min, max] with min <= max <= 60000";
            errors.push(FieldError::out_of_range("latency_ms", detail));
        }
        errors
    }

    /// Draws the fate of one request. The behaviour must have passed `check`.
    pub(crate) fn draw(&self, rng: &mut impl Rng) -> Fate {
        let forestalled = if happens(self.timeout_before, rng) {
            Some(Forestalled::Silence)
        } else if happens(self.error, rng) {
            Some(Forestalled::Error)
        } else {
            None
        };
        let verdict = if happens(self.decline, rng) {
            Verdict::Decline
        } else if happens(self.partial, rng) {
            Verdict::Partial
        } else {
            Verdict::Approve
        };
        let is_answered = !happens(self.timeout_after, rng);
        let callbacks = if happens(self.drop_callback, rng) {
            0
        } else if happens(self.duplicate_callback, rng) {
            2
        } else {
            1
        };
        Fate { delay: self.draw_delay(rng), forestalled, verdict, is_answered, callbacks }
    }

    fn draw_delay(&self, rng: &mut impl Rng) -> Option<Duration> {
        let [least_us, greatest_us] = self.latency_ms.map(|ms| u64::from(ms) * 1_000);
        if greatest_us == 0 {
            return None;
        }
        let delay_us = rng.random_range(least_us..=greatest_us);
        (delay_us > 0).then(|| Duration::from_micros(delay_us))
    }
}

/// Spares the generator where there is nothing to draw, which is nearly always.
fn happens(probability: f64, rng: &mut impl Rng) -> bool {
    probability > 0.0 && rng.random_bool(probability)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const PERFECT: Fate =
        Fate { delay: None, forestalled: None, verdict: Verdict::Approve, is_answered: true, callbacks: 1 };

    fn instant() -> Behaviour {
        Behaviour { latency_ms: [0, 0], ..Behaviour::default() }
    }

    fn draw(behaviour: Behaviour) -> Fate {
        behaviour.draw(&mut StdRng::seed_from_u64(1))
    }

    #[test]
    fn a_probability_of_one_always_happens_and_of_zero_never() {
        assert_eq!(draw(instant()), PERFECT);
        let certain = |change: fn(&mut Behaviour)| {
            let mut behaviour = instant();
            change(&mut behaviour);
            draw(behaviour)
        };
        let fate = certain(|behaviour| behaviour.timeout_before = 1.0);
        assert_eq!(fate.forestalled, Some(Forestalled::Silence));
        let fate = certain(|behaviour| behaviour.error = 1.0);
        assert_eq!(fate.forestalled, Some(Forestalled::Error));
        assert_eq!(certain(|b| b.decline = 1.0).verdict, Verdict::Decline);
        assert_eq!(certain(|b| b.partial = 1.0).verdict, Verdict::Partial);
        assert!(!certain(|b| b.timeout_after = 1.0).is_answered);
        assert_eq!(certain(|b| b.duplicate_callback = 1.0).callbacks, 2);
        assert_eq!(certain(|b| b.drop_callback = 1.0).callbacks, 0);
    }

    #[test]
    fn the_first_of_two_exclusive_faults_wins() {
        let everything = Behaviour {
            decline: 1.0,
            error: 1.0,
            timeout_before: 1.0,
            partial: 1.0,
            duplicate_callback: 1.0,
            drop_callback: 1.0,
            ..instant()
        };
        let fate = draw(everything);
        assert_eq!(fate.forestalled, Some(Forestalled::Silence));
        assert_eq!(fate.verdict, Verdict::Decline);
        assert_eq!(fate.callbacks, 0);
    }

    #[test]
    fn a_fault_happens_about_as_often_as_asked() {
        let behaviour = Behaviour { decline: 0.25, ..instant() };
        let mut rng = StdRng::seed_from_u64(7);
        let declined = (0..10_000).filter(|_| behaviour.draw(&mut rng).verdict == Verdict::Decline).count();
        assert!((2_300..2_700).contains(&declined), "{declined} of 10000");
    }

    #[test]
    fn the_delay_stays_within_the_latency() {
        let behaviour = Behaviour { latency_ms: [3, 5], ..instant() };
        let mut rng = StdRng::seed_from_u64(7);
        for _ in 0..1_000 {
            let delay = behaviour.draw(&mut rng).delay;
            let range = Duration::from_millis(3)..=Duration::from_millis(5);
            assert!(delay.is_some_and(|delay| range.contains(&delay)));
        }
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        assert!(Behaviour::default().check().is_empty());
        let wrong = Behaviour {
            latency_ms: [6, 5],
            decline: 1.1,
            drop_callback: -0.1,
            partial: f64::NAN,
            ..Behaviour::default()
        };
        let fields: Vec<_> = wrong.check().into_iter().map(|error| error.field).collect();
        assert_eq!(fields, ["decline", "partial", "drop_callback", "latency_ms"]);
        let endless = Behaviour { latency_ms: [0, LATENCY_MS_MAX + 1], ..Behaviour::default() };
        assert_eq!(endless.check().len(), 1);
    }
}
