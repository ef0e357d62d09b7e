use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use jiff::Timestamp;
use ordermill_pipeline::audit::Check;
use tokio::sync::Semaphore;

use super::*;

const LONG: Duration = Duration::from_secs(60);
const PATIENT: Limits = Limits { wait: LONG, run: LONG, keep: LONG };

/// Runs that end when they are let. Each reports its number.
struct Stage {
    gate: Arc<Semaphore>,
    verifications: Verifications,
}

impl Stage {
    fn new(limits: Limits) -> Stage {
        let (begun, gate) = (AtomicU64::new(0), Arc::new(Semaphore::new(0)));
        let waits = gate.clone();
        let verifier: Verifier = Arc::new(move || {
            let (number, waits) = (begun.fetch_add(1, Ordering::SeqCst) + 1, waits.clone());
            Box::pin(async move {
                waits.acquire().await.unwrap().forget();
                let mut check = Check::new("cups");
                check.checked = number;
                Ok(Report::new(vec![check], Timestamp::UNIX_EPOCH))
            })
        });
        let verifications = Verifications::new(Some(verifier), TaskTracker::new(), CancellationToken::new());
        Stage { gate, verifications: Verifications { limits, ..verifications } }
    }

    /// Lets one run end, and waits until it has.
    async fn end_run(&self) {
        self.gate.add_permits(1);
        let mut end = self.verifications.latest.lock().unwrap().clone().unwrap();
        end.wait_for(Option::is_some).await.unwrap();
    }

    /// The number of the run that a client is told of.
    async fn told(&self) -> u64 {
        number(self.verifications.report().await)
    }
}

fn number(report: Result<Arc<Report>, Problem>) -> u64 {
    report.unwrap().checks[0].checked
}

/// Asks, so that a run is under way, and goes on without its end.
async fn begun<F: Future>(mut asked: Pin<Box<F>>) -> Pin<Box<F>> {
    std::future::poll_fn(|context| {
        assert!(asked.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
    asked
}

#[tokio::test]
async fn who_asks_while_a_run_is_under_way_is_told_what_it_finds() {
    let stage = Stage::new(PATIENT);
    let first = begun(Box::pin(stage.verifications.report())).await;
    let second = begun(Box::pin(stage.verifications.report())).await;
    stage.end_run().await;
    assert_eq!((number(first.await), number(second.await)), (1, 1));
    stage.gate.add_permits(1);
    assert_eq!(stage.told().await, 2, "whoever asks afterwards gets a new one");
}

#[tokio::test]
async fn a_run_outlives_the_client_who_goes_away_and_is_told_to_the_next() {
    let stage = Stage::new(PATIENT);
    drop(begun(Box::pin(stage.verifications.report())).await);
    stage.end_run().await;
    assert_eq!(stage.told().await, 1);
}

#[tokio::test]
async fn a_report_that_nobody_asked_for_in_time_is_not_told_any_more() {
    let stage = Stage::new(Limits { keep: Duration::ZERO, ..PATIENT });
    drop(begun(Box::pin(stage.verifications.report())).await);
    stage.end_run().await;
    stage.gate.add_permits(1);
    assert_eq!(stage.told().await, 2);
}

#[tokio::test]
async fn who_has_waited_long_enough_is_told_to_come_again_and_then_gets_the_report() {
    let stage = Stage::new(Limits { wait: Duration::ZERO, ..PATIENT });
    let problem = stage.verifications.report().await.unwrap_err();
    assert_eq!(problem.code(), Code::VerificationRunning);
    stage.end_run().await;
    assert_eq!(stage.told().await, 1);
}

#[tokio::test]
async fn a_run_ends_at_its_deadline_and_at_the_stop() {
    let stage = Stage::new(Limits { run: Duration::ZERO, ..PATIENT });
    assert_eq!(stage.verifications.report().await.unwrap_err().code(), Code::Overloaded);

    let stage = Stage::new(PATIENT);
    let asked = begun(Box::pin(stage.verifications.report())).await;
    stage.verifications.shutdown.cancel();
    assert_eq!(asked.await.unwrap_err().code(), Code::Overloaded);
    stage.verifications.tasks.close();
    stage.verifications.tasks.wait().await;
}

#[tokio::test]
async fn what_does_not_answer_is_named_and_a_bug_says_nothing() {
    let of = |why| {
        let verifier: Verifier = Arc::new(move || Box::pin(async move { Err(why) }));
        Verifications::new(Some(verifier), TaskTracker::new(), CancellationToken::new())
    };
    let problem = of(NotVerified::Unavailable("kafka")).report().await.unwrap_err();
    assert_eq!(problem.code(), Code::NotReady);
    assert!(format!("{problem:?}").contains("no answer from kafka"), "{problem:?}");
    assert_eq!(of(NotVerified::Broken).report().await.unwrap_err(), Problem::internal());
    let nobody = Verifications::new(None, TaskTracker::new(), CancellationToken::new());
    assert_eq!(nobody.report().await.unwrap_err().code(), Code::NotReady);
}
