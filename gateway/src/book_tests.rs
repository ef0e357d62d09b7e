//! Tests of the rules, beside them but in a file of their own for its length.

use super::*;

/// A book that takes every decision's entry at once, as the ledger does.
#[derive(Default)]
struct Desk {
    book: Book,
    entries: Vec<Entry>,
}

impl Desk {
    fn charge(&mut self, id: &str, amount: i64, verdict: Verdict) -> Result<(ChargeStatus, i64), Refusal> {
        let decision = self.book.charge(&order(id, amount), verdict, Timestamp::UNIX_EPOCH)?;
        self.take(decision.entry);
        Ok((decision.answer.status, decision.answer.approved_amount))
    }

    fn refund(&mut self, id: &str, refund: &str, amount: i64) -> Result<RefundOrder, Refusal> {
        let order = RefundOrder { charge_id: id.into(), refund_id: refund.into(), amount };
        let decision = self.book.refund(&order, Timestamp::UNIX_EPOCH)?;
        self.take(decision.entry);
        Ok(decision.answer)
    }

    fn void(&mut self, id: &str) -> (ChargeStatus, i64) {
        let decision = self.book.void(&id.into(), Timestamp::UNIX_EPOCH);
        self.take(decision.entry);
        (decision.answer.status, decision.answer.approved_amount)
    }

    fn take(&mut self, entry: Option<Entry>) {
        if let Some(entry) = entry {
            self.book.apply(&entry).unwrap();
            self.entries.push(entry);
        }
    }

    /// Approved and refunded amount of a charge.
    fn money(&self, id: &str) -> (i64, i64) {
        let charge = self.book.find(id).unwrap();
        (charge.approved_amount, charge.refunded)
    }
}

fn order(id: &str, amount: i64) -> ChargeOrder {
    ChargeOrder { charge_id: id.into(), reference: "order".into(), amount, method: Method::Card }
}

use ChargeStatus::{Approved, Declined, Voided};
use Verdict::{Approve, Decline, Partial};

#[test]
fn a_repeated_charge_answers_as_the_first_did_and_writes_nothing() {
    for (verdict, answer) in [(Approve, (Approved, 101)), (Decline, (Declined, 0)), (Partial, (Approved, 50))]
    {
        let mut desk = Desk::default();
        assert_eq!(desk.charge("a", 101, verdict), Ok(answer));
        for later_verdict in [Approve, Decline, Partial] {
            assert_eq!(desk.charge("a", 101, later_verdict), Ok(answer));
        }
        assert_eq!(desk.entries.len(), 1);
        assert_eq!(desk.book.of_reference("order").count(), 1);
    }
}

#[test]
fn a_charge_id_with_another_amount_reference_or_method_is_refused() {
    let mut desk = Desk::default();
    desk.charge("a", 100, Approve).unwrap();
    let changes: [fn(&mut ChargeOrder); 3] = [
        |order| order.amount = 99,
        |order| order.reference = "other".into(),
        |order| order.method = Method::Balance,
    ];
    for change in changes {
        let mut changed = order("a", 100);
        change(&mut changed);
        let refused = desk.book.charge(&changed, Approve, Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(refused, Refusal::Reused("a".into()));
    }
}

#[test]
fn a_partial_approval_is_less_than_was_asked_even_for_the_smallest_amount() {
    let mut desk = Desk::default();
    assert_eq!(desk.charge("a", 1, Partial), Ok((Approved, 0)));
    assert_eq!(desk.charge("b", i64::MAX, Partial), Ok((Approved, i64::MAX / 2)));
}

#[test]
fn a_charge_that_was_voided_ahead_answers_voided_and_takes_no_money() {
    let mut desk = Desk::default();
    assert_eq!(desk.void("a"), (Voided, 0));
    assert!(desk.book.find("a").is_none(), "a void makes no charge");
    assert_eq!(desk.charge("a", 100, Approve), Ok((Voided, 0)));
    assert_eq!(desk.charge("a", 100, Approve), Ok((Voided, 0)));
    assert_eq!(desk.money("a"), (0, 0));
}

#[test]
fn a_void_gives_an_approved_charge_back_and_a_repeated_charge_then_says_so() {
    let mut desk = Desk::default();
    desk.charge("a", 100, Approve).unwrap();
    assert_eq!(desk.void("a"), (Voided, 0));
    assert_eq!(desk.money("a"), (0, 0));
    assert_eq!(desk.charge("a", 100, Approve), Ok((Voided, 0)));
}

#[test]
fn a_repeated_void_answers_the_same_and_writes_nothing() {
    let mut desk = Desk::default();
    desk.charge("known", 100, Decline).unwrap();
    for id in ["known", "unknown"] {
        let written = desk.entries.len() + 1;
        assert_eq!(desk.void(id), desk.void(id));
        assert_eq!(desk.entries.len(), written);
    }
}

#[test]
fn a_void_of_a_partly_refunded_charge_gives_back_the_rest() {
    let mut desk = Desk::default();
    desk.charge("a", 100, Approve).unwrap();
    desk.refund("a", "r", 30).unwrap();
    assert_eq!(desk.void("a"), (Voided, 30));
    assert_eq!(desk.void("a"), (Voided, 30));
    assert_eq!(desk.money("a"), (30, 30));
    assert_eq!(desk.refund("a", "s", 1), Err(Refusal::NotRefundable));
}

#[test]
fn refunds_never_exceed_what_was_approved() {
    let mut desk = Desk::default();
    desk.charge("a", 200, Partial).unwrap();
    desk.refund("a", "r1", 60).unwrap();
    let refused = desk.refund("a", "r2", 41);
    assert_eq!(refused, Err(Refusal::ExceedsCharge { left: 40 }));
    desk.refund("a", "r3", 40).unwrap();
    let refused = desk.refund("a", "r4", i64::MAX);
    assert_eq!(refused, Err(Refusal::ExceedsCharge { left: 0 }));
    assert_eq!(desk.money("a"), (100, 100));
}

#[test]
fn a_repeated_refund_answers_as_the_first_did_even_after_a_void() {
    let mut desk = Desk::default();
    desk.charge("a", 100, Approve).unwrap();
    let first = desk.refund("a", "r", 60).unwrap();
    assert_eq!(desk.refund("a", "r", 60), Ok(first.clone()));
    assert_eq!(desk.money("a"), (100, 60));
    desk.void("a");
    assert_eq!(desk.refund("a", "r", 60), Ok(first));
}

#[test]
fn a_refund_id_with_another_amount_or_charge_is_refused() {
    let mut desk = Desk::default();
    desk.charge("a", 100, Approve).unwrap();
    desk.charge("b", 100, Approve).unwrap();
    desk.refund("a", "r", 10).unwrap();
    let reused = Err(Refusal::Reused("r".into()));
    assert_eq!(desk.refund("a", "r", 11), reused);
    assert_eq!(desk.refund("b", "r", 10), reused);
}

#[test]
fn only_a_known_and_approved_charge_can_be_refunded() {
    let mut desk = Desk::default();
    desk.charge("declined", 100, Decline).unwrap();
    let refused = desk.refund("declined", "r", 1);
    assert_eq!(refused, Err(Refusal::NotRefundable));
    let refused = desk.refund("unknown", "r", 1);
    assert_eq!(refused, Err(Refusal::UnknownCharge("unknown".into())));
}

#[test]
fn entries_applied_again_in_their_order_give_the_same_book() {
    let mut desk = Desk::default();
    desk.void("late");
    desk.charge("a", 100, Approve).unwrap();
    desk.charge("late", 5, Approve).unwrap();
    desk.refund("a", "r", 30).unwrap();
    desk.charge("b", 7, Partial).unwrap();
    desk.void("b");
    desk.void("never came");

    let mut again = Book::default();
    for entry in &desk.entries {
        again.apply(entry).unwrap();
    }
    assert_eq!(again.page(0, 10), desk.book.page(0, 10));
    let late = again.charge(&order("never came", 1), Approve, Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(late.answer.status, Voided);
}

#[test]
fn an_entry_that_contradicts_the_book_is_refused() {
    let mut desk = Desk::default();
    desk.charge("a", 100, Approve).unwrap();
    desk.refund("a", "r", 30).unwrap();
    for entry in &desk.entries {
        assert!(desk.book.apply(entry).is_err(), "applied twice: {entry:?}");
    }
}

#[test]
fn pages_end_at_the_newest_charge() {
    let mut desk = Desk::default();
    for id in ["a", "b", "c"] {
        desk.charge(id, 1, Approve).unwrap();
    }
    let ids = |start, limit| -> Vec<String> {
        let page = desk.book.page(start, limit);
        page.iter().map(|charge| charge.order.charge_id.to_string()).collect()
    };
    assert_eq!(ids(0, 2), ["a", "b"]);
    assert_eq!(ids(2, 2), ["c"]);
    assert!(ids(3, 2).is_empty());
    assert!(ids(usize::MAX, usize::MAX).is_empty());
}
