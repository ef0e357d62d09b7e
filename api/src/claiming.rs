//! Asking for coupons, many claims in one commit; the worker decides them in the order in which they were asked for.

use std::collections::HashSet;

use jiff::Timestamp;
use ordermill_domain::coupons::{Coupon, Coupons};
use ordermill_pipeline::database::Next;
use ordermill_pipeline::journal::{Journal, JournalError, Keys};
use ordermill_pipeline::log::Origin;
use ordermill_schemas::coupons::ClaimFailureCode;
use ordermill_store::coupons::{self, ClaimRow, Claimant};
use ordermill_store::{Decision, Written};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::config::ApiConfig;
use crate::path;
use crate::problem::{Code, Problem};
use crate::rounds::in_rounds;

/// Somebody who wants a coupon and waits for an answer.
struct Pending {
    claim_id: Uuid,
    coupon_id: Uuid,
    user_id: Uuid,
    origin: Origin,
    reply: oneshot::Sender<Result<ClaimRow, Problem>>,
}

impl Pending {
    fn answer(self, result: Result<ClaimRow, Problem>) {
        // A client who has gone hears nothing; the claim stands.
        let _ = self.reply.send(result);
    }
}

/// A claim that may be written, and its coupon as it was looked at.
type Granted = (Pending, Coupon);

/// Where claims wait to be written.
#[derive(Debug)]
pub(crate) struct Claiming {
    queue: mpsc::Sender<Pending>,
}

impl Claiming {
    /// Starts writing claims; that ends when everything is answered after `drained`.
    pub(crate) fn start(
        journal: &Journal,
        config: &ApiConfig,
        tasks: &TaskTracker,
        drained: &CancellationToken,
    ) -> Claiming {
        let (queue, claims) = mpsc::channel(config.accept_queue_max.max(1));
        let claimer = Claimer { journal: journal.clone() };
        tasks.spawn(in_rounds(claims, config.accept_batch_max.max(1), drained.clone(), move |round| {
            let claimer = claimer.clone();
            async move { claimer.claim(round).await }
        }));
        Claiming { queue }
    }

    /// Has a user ask for a coupon.
    ///
    /// # Errors
    /// `OVERLOADED` where too many wait already, and why the coupon can't be asked for.
    pub(crate) async fn claim(
        &self,
        coupon_id: Uuid,
        user_id: Uuid,
        origin: Origin,
    ) -> Result<ClaimRow, Problem> {
        let (reply, answer) = oneshot::channel();
        let pending = Pending { claim_id: Uuid::now_v7(), coupon_id, user_id, origin, reply };
        self.queue.try_send(pending).map_err(|_| Problem::overloaded())?;
        // No answer at all: the round has panicked.
        answer.await.unwrap_or_else(|_| Err(Problem::internal()))
    }
}

#[derive(Clone)]
struct Claimer {
    journal: Journal,
}

impl Claimer {
    /// Writes those of a round that may ask, and answers all.
    async fn claim(&self, mut round: Vec<Pending>) {
        // Nobody waits for these, and nothing has been begun.
        round.retain(|pending| !pending.reply.is_closed());
        let granted = match self.granted(round).await {
            Ok(granted) => granted,
            Err((round, problem)) => return refuse_all(round, &problem),
        };
        let (first, repeated) = first_of_each(granted);
        self.write(first).await;
        if !repeated.is_empty() {
            // However many they are, they find those claims now.
            Box::pin(self.claim(repeated.into_iter().map(|(pending, _)| pending).collect())).await;
        }
    }

    /// Those who may ask, each with the coupon as it was looked at; the others are answered. It is not locked: the worker decides, and a crowd must not
    /// hold the coupon against it.
    async fn granted(&self, round: Vec<Pending>) -> Result<Vec<Granted>, (Vec<Pending>, Problem)> {
        if round.is_empty() {
            return Ok(Vec::new());
        }
        let coupon_ids: HashSet<Uuid> = round.iter().map(|pending| pending.coupon_id).collect();
        let coupon_ids: Vec<Uuid> = coupon_ids.into_iter().collect();
        let wanted: Vec<(Uuid, Uuid)> = round.iter().map(|p| (p.coupon_id, p.user_id)).collect();
        let pool = &self.journal.pool;
        let looked = async {
            let coupons = coupons::find_many(pool, &coupon_ids).await?;
            Ok::<_, sqlx::Error>((coupons, coupons::claimants(pool, &wanted).await?))
        };
        let (coupons, claimants) = match looked.await {
            Ok(looked) => looked,
            Err(error) => return Err((round, Problem::from(error))),
        };
        let now = self.journal.now();
        let mut granted = Vec::new();
        for (pending, claimant) in round.into_iter().zip(claimants) {
            match may_ask(coupons.get(&pending.coupon_id), claimant, now) {
                Ok(coupon) => granted.push((pending, coupon.clone())),
                Err(problem) => pending.answer(Err(problem)),
            }
        }
        Ok(granted)
    }

    /// Writes claims and their events; where that fails for one of them, each alone.
    async fn write(&self, granted: Vec<Granted>) {
        if granted.is_empty() {
            return;
        }
        let new = Keys::default();
        let decided = ordermill_store::decide(&self.journal, &new, |state| {
            Ok::<_, JournalError>(requested(state, &granted))
        });
        match decided.await {
            Ok(answers) => {
                for ((pending, _), answer) in granted.into_iter().zip(answers) {
                    pending.answer(answer.map_err(refusal));
                }
            }
            Err(error) if error.next() == Next::Retry && !error.is_conflict() => {
                refuse_all(granted.into_iter().map(|(pending, _)| pending), &Problem::from(error));
            }
            Err(error) if granted.len() > 1 => {
                tracing::warn!(%error, claims = granted.len(), "a round was refused; trying each alone");
                for (pending, _) in granted {
                    Box::pin(self.claim(vec![pending])).await;
                }
            }
            Err(error) => self.explain(granted, Problem::from(error)).await,
        }
    }

    /// Another claim of the same user may have come first, by another process.
    async fn explain(&self, refused: Vec<Granted>, problem: Problem) {
        let refused = refused.into_iter().map(|(pending, _)| pending).collect();
        match self.granted(refused).await {
            Ok(unexplained) => refuse_all(unexplained.into_iter().map(|(pending, _)| pending), &problem),
            Err((round, _)) => refuse_all(round, &problem),
        }
    }
}

/// The first claim of each user for each coupon, and the others.
fn first_of_each(granted: Vec<Granted>) -> (Vec<Granted>, Vec<Granted>) {
    let mut seen = HashSet::new();
    granted.into_iter().partition(|(pending, _)| seen.insert((pending.coupon_id, pending.user_id)))
}

/// Whoever has a claim is told of it, whatever became of the coupon since.
fn may_ask(coupon: Option<&Coupon>, claimant: Claimant, now: Timestamp) -> Result<&Coupon, Problem> {
    let coupon = coupon.ok_or_else(path::unknown::<path::Coupon>)?;
    match claimant {
        Claimant::New => coupon.grants_claim_of(now).map(|()| coupon).map_err(refusal),
        Claimant::NoUser => Err(path::unknown::<path::User>()),
        Claimant::HasClaimed(known) => {
            let detail = "a user gets one of each coupon; this user's claim is claim_id";
            Err(Problem::new(Code::CouponAlreadyClaimed, detail).with_claim(known))
        }
    }
}

/// What is written for claims, in the order in which they were asked for, and what is answered to each.
fn requested(state: &mut Coupons, granted: &[Granted]) -> Decision<Vec<Result<ClaimRow, ClaimFailureCode>>> {
    let mut written = Vec::new();
    let mut request = |pending: &Pending, coupon: &Coupon| {
        let Pending { claim_id, coupon_id, user_id, origin, .. } = pending;
        let decided = state.request(*claim_id, *coupon_id, *user_id, coupon)?;
        written.extend(Written::asked_for(decided, origin));
        Ok(ClaimRow { claim_id: *claim_id, claim: state.claims[claim_id].clone(), user_coupon: None })
    };
    let answers = granted.iter().map(|(pending, coupon)| request(pending, coupon)).collect();
    Decision::of(written, answers)
}

/// Why nobody gets this coupon now, as far as it is known here.
fn refusal(code: ClaimFailureCode) -> Problem {
    match code {
        ClaimFailureCode::CouponSoldOut => Problem::new(Code::CouponSoldOut, "all of this coupon are issued"),
        ClaimFailureCode::CouponNotClaimable => {
            let detail = "it is not between claimable_from and claimable_until";
            Problem::new(Code::CouponNotClaimable, detail)
        }
    }
}

fn refuse_all(round: impl IntoIterator<Item = Pending>, problem: &Problem) {
    for pending in round {
        pending.answer(Err(problem.clone()));
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use ordermill_schemas::Event;

    use super::*;
    use crate::request::RequestContext;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn coupon(issued: i32) -> Coupon {
        Coupon { quantity: 2, issued, claimable_until: None, ..Coupon::welcome() }
    }

    fn pending(coupon: u128, user: u128) -> Pending {
        Pending {
            claim_id: Uuid::now_v7(),
            coupon_id: Uuid::from_u128(coupon),
            user_id: Uuid::from_u128(user),
            origin: RequestContext::of(&HeaderMap::new()).origin("admin".to_owned()),
            reply: oneshot::channel().0,
        }
    }

    #[test]
    fn who_has_claimed_is_told_of_that_claim_also_when_none_is_left() {
        let code = |coupon, claimant| may_ask(coupon, claimant, NOW).map(|_| ()).map_err(|p| p.code());
        let (left, sold_out, known) = (coupon(1), coupon(2), Claimant::HasClaimed(Uuid::nil()));
        assert_eq!(code(Some(&left), Claimant::New), Ok(()));
        assert_eq!(code(Some(&sold_out), Claimant::New), Err(Code::CouponSoldOut));
        assert_eq!(code(Some(&sold_out), known), Err(Code::CouponAlreadyClaimed));
        assert_eq!(code(Some(&sold_out), Claimant::NoUser), Err(Code::UserNotFound));
        assert_eq!(code(None, Claimant::NoUser), Err(Code::CouponNotFound));
    }

    #[test]
    fn of_several_claims_of_a_user_for_a_coupon_in_a_round_the_others_wait_for_the_first() {
        let asked = [(1, 1), (1, 2), (2, 1), (1, 1), (1, 1)];
        let granted: Vec<_> = asked.map(|(of, user)| (pending(of, user), coupon(0))).into();
        let of = |granted: &[Granted]| granted.iter().map(|(p, _)| p.claim_id).collect::<Vec<_>>();
        let ids = of(&granted);
        let (first, repeated) = first_of_each(granted);
        assert_eq!((of(&first), of(&repeated)), (ids[..3].to_vec(), ids[3..].to_vec()));
    }

    #[test]
    fn claims_are_written_in_the_order_in_which_they_were_asked_for() {
        let granted: Vec<Granted> = (1..=9).rev().map(|user| (pending(1, user), coupon(0))).collect();
        let Decision { written, answer, .. } = requested(&mut Coupons::default(), &granted);
        let asked: Vec<Uuid> = granted.iter().map(|(pending, _)| pending.claim_id).collect();
        let of_events: Vec<Uuid> = written.iter().map(|written| written.event.key()).collect();
        let of_answers: Vec<Uuid> = answer.into_iter().map(|answer| answer.unwrap().claim_id).collect();
        assert_eq!((&of_answers, written.len()), (&asked, 9));
        let users: Vec<Uuid> = written
            .iter()
            .map(|written| match &written.event {
                Event::CouponClaimRequested(e) => e.user_id,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(users, granted.iter().map(|(pending, _)| pending.user_id).collect::<Vec<_>>());
        assert_eq!(of_events, vec![Uuid::from_u128(1); 9], "a coupon's claims have one key");
    }
}
