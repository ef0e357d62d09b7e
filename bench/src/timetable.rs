//! What is done at the moment, for how long already, and how long the rest will take: lines on standard error.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

/// How often a step that is under way says so.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How long a step has taken.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Took {
    /// The step.
    pub name: String,
    /// Seconds.
    pub seconds: f64,
}

/// The steps of a run: those to come, with the seconds that they take about, and those that are over.
#[derive(Debug)]
pub(crate) struct Timetable {
    began_at: Instant,
    to_come: Mutex<Vec<(String, f64)>>,
    took: Mutex<Vec<Took>>,
}

impl Timetable {
    /// Steps with the seconds that each takes about.
    pub(crate) fn new(steps: Vec<(String, f64)>) -> Timetable {
        Timetable { began_at: Instant::now(), to_come: Mutex::new(steps), took: Mutex::default() }
    }

    /// Does a step, and tells how it goes. The seconds of steps of one name are added up.
    ///
    /// # Errors
    /// That of the work.
    pub(crate) async fn step<T>(
        &self,
        name: &str,
        what: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let began_at = Instant::now();
        let estimate = self.begin(name);
        eprintln!("{} {name}: {what} ...", self.standing(estimate));
        tokio::pin!(work);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                () = tokio::time::sleep(TELL_EVERY) => {
                    let already = began_at.elapsed().as_secs_f64();
                    let standing = self.standing((estimate - already).max(0.0));
                    eprintln!("{standing} {name}: {already:.0} s of about {estimate:.0} s");
                }
            }
        };
        let seconds = began_at.elapsed().as_secs_f64();
        let verdict = if result.is_ok() { "done" } else { "failed" };
        eprintln!("{} {name}: {verdict} in {seconds:.1} s", self.standing(0.0));
        self.end(name, seconds);
        result
    }

    /// The steps that are over, in their order.
    pub(crate) fn told(&self) -> Vec<Took> {
        lock(&self.took).clone()
    }

    /// How long the step takes, about; it is not to come any more.
    fn begin(&self, name: &str) -> f64 {
        let mut to_come = lock(&self.to_come);
        let place = to_come.iter().position(|(step, _)| step == name);
        place.map_or(0.0, |place| to_come.remove(place).1)
    }

    fn end(&self, name: &str, seconds: f64) {
        let mut took = lock(&self.took);
        match took.iter_mut().find(|step| step.name == name) {
            Some(step) => step.seconds += seconds,
            None => took.push(Took { name: name.to_owned(), seconds }),
        }
    }

    /// `[01:10, about 04:20 left]`, where this step takes `left` yet.
    fn standing(&self, left: f64) -> String {
        let to_come: f64 = lock(&self.to_come).iter().map(|(_, seconds)| seconds).sum();
        standing(self.began_at.elapsed().as_secs_f64(), left + to_come)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn standing(elapsed: f64, left: f64) -> String {
    format!("[{}, about {} left]", clock(elapsed), clock(left))
}

/// `04:20`
fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn times_are_minutes_and_seconds() {
        assert_eq!(standing(70.2, 260.0), "[01:10, about 04:20 left]");
        assert_eq!(clock(-1.0), "00:00");
        assert_eq!(clock(6_000.0), "100:00");
    }

    #[tokio::test]
    async fn what_has_begun_is_not_to_come_any_more_and_what_is_over_has_its_time() {
        let timetable = Timetable::new(vec![("a".to_owned(), 60.0), ("b".to_owned(), 5.0)]);
        timetable.step("a", "first", async { Ok(()) }).await.unwrap();
        timetable.step("c", "not foreseen", async { Ok(()) }).await.unwrap();
        timetable.step("a", "once more", async { Ok(()) }).await.unwrap();
        assert!(
            timetable
                .step("b", "fails", async { if true { bail!("no luck") } else { Ok(()) } })
                .await
                .is_err()
        );
        let names: Vec<String> = timetable.told().into_iter().map(|took| took.name).collect();
        assert_eq!(names, ["a", "c", "b"]);
        assert!(timetable.standing(0.0).ends_with("about 00:00 left]"));
    }
}
