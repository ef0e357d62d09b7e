//! What an order waits for, and what it decides once that has come.

use jiff::Timestamp;
use ordermill_schemas::coupons::CouponTerms;
use ordermill_schemas::orders::{
    Failure, FailureCode, OrderCancelled, OrderConfirmed, OrderModificationApplying,
    OrderModificationRefused, OrderModificationRefusing, OrderModified, OrderPaymentDue, OrderRejected,
    OrderRejecting,
};
use ordermill_schemas::stock::StockLine;
use ordermill_schemas::{Event, Money};

use super::{
    Change, ChangeStep, CouponStep, LastModification, Order, OrderStatus, PaymentStep, Purchase, StockStep,
};

use crate::{coupons, pricing};

/// The round of the placing, and the number of its charge.
const PLACING: i32 = 1;

impl Order {
    /// Takes note of a participant's answer. Steps only go forward, so a repeated or late one is nothing.
    pub(super) fn observe(&mut self, event: &Event, at: Timestamp) {
        let seen = self.visible_version;
        self.observe_stock(event);
        self.observe_payment(event);
        self.observe_coupon(event);
        if self.visible_version != seen {
            self.updated_at = self.updated_at.max(at);
        }
    }

    fn observe_coupon(&mut self, event: &Event) {
        match event {
            Event::CouponApplied(e) => self.take_coupon(&e.terms),
            Event::CouponReturned(_) => self.coupon_step = self.coupon_step.max(CouponStep::Returned),
            Event::CouponRefused(e) => {
                self.coupon_step = self.coupon_step.max(CouponStep::Refused);
                self.fail(&e.failure);
            }
            _ => {}
        }
    }

    /// The order costs less from now on.
    fn take_coupon(&mut self, terms: &CouponTerms) {
        if self.coupon_step >= CouponStep::Applied {
            return;
        }
        self.coupon_step = CouponStep::Applied;
        let Purchase { lines, payment_method, subtotal, discounts, total, coupon, .. } = &mut self.purchase;
        let quote = pricing::quote(lines, *payment_method, Some(terms));
        (*subtotal, *discounts, *total) = (quote.subtotal, quote.discounts, quote.total);
        *coupon = Some(terms.clone());
        self.visible_version += 1;
    }

    /// Why the coupon can't be used for lines of that subtotal, if there is one and it can't.
    fn coupon_failure(&self, subtotal: Money) -> Option<Failure> {
        let terms = self.purchase.coupon.as_ref().filter(|terms| subtotal < terms.min_subtotal)?;
        let detail = coupons::below_minimum(terms.min_subtotal);
        Some(Failure { code: FailureCode::CouponNotUsable, detail })
    }

    fn observe_stock(&mut self, event: &Event) {
        match event {
            Event::StockReserved(_) => self.advance_stock(StockStep::Reserved),
            Event::StockDeducted(_) => self.advance_stock(StockStep::Deducted),
            Event::StockReleased(_) => self.advance_stock(StockStep::Released),
            Event::StockRefused(refused) => {
                let step = if self.stock == StockStep::Asked { StockStep::Refused } else { StockStep::Short };
                self.advance_stock(step);
                self.fail(&refused.failure);
            }
            Event::StockChangeReserved(e) => self.advance_change(e.round, ChangeStep::Reserved),
            Event::StockChanged(e) => self.advance_change(e.round, ChangeStep::Changed),
            Event::StockChangeReleased(e) => self.advance_change(e.round, ChangeStep::Released),
            Event::StockChangeRefused(e) => {
                self.advance_change(e.round, ChangeStep::Refused);
                self.fail_change(e.round, &e.failure);
            }
            _ => {}
        }
    }

    fn advance_stock(&mut self, step: StockStep) {
        self.stock = self.stock.max(step);
    }

    fn advance_change(&mut self, round: i32, step: ChangeStep) {
        if let Some(change) = self.change_of(round) {
            change.stock = change.stock.max(step);
        }
    }

    /// The first failure of the placing counts.
    fn fail(&mut self, failure: &Failure) {
        if self.status == OrderStatus::Pending {
            self.failure.get_or_insert_with(|| failure.clone());
        }
    }

    fn fail_change(&mut self, round: i32, failure: &Failure) {
        let is_open = self.status == OrderStatus::Modifying;
        if let Some(change) = self.change_of(round).filter(|_| is_open) {
            change.failure.get_or_insert_with(|| failure.clone());
        }
    }

    /// The modification under way, if it is the one of that round.
    fn change_of(&mut self, round: i32) -> Option<&mut Change> {
        let is_current = round == self.round;
        self.change.as_mut().filter(|_| is_current)
    }

    fn observe_payment(&mut self, event: &Event) {
        match event {
            // Stock deducts what is paid.
            Event::StockDeducted(_) => self.pay(PLACING, self.purchase.total),
            Event::PaymentCompleted(e) if !is_paid_by_deduction(event) => self.pay(e.charge_number, e.amount),
            Event::PaymentFailed(e) if self.advance_payment(e.charge_number, PaymentStep::Failed) => {
                if e.charge_number == PLACING {
                    self.fail(&e.failure);
                    self.visible_version += 1;
                } else {
                    // Why a modification is refused shows only once it is.
                    self.fail_change(e.charge_number, &e.failure);
                }
            }
            Event::PaymentRefunded(e) => self.pay_back(e.round, e.amount),
            _ => {}
        }
    }

    fn pay(&mut self, round: i32, amount: Money) {
        if self.advance_payment(round, PaymentStep::Completed) {
            self.paid += amount;
            self.visible_version += 1;
        }
    }

    fn pay_back(&mut self, round: i32, amount: Money) {
        if self.payment_of(round).is_some_and(|step| *step == PaymentStep::Due) {
            // Given up before the order has heard of the payment: that it was paid comes with its being paid back.
            self.pay(round, amount);
        }
        if self.advance_payment(round, PaymentStep::Refunded) {
            self.refunded += amount;
            self.visible_version += 1;
        }
    }

    /// Moves the payment of the round under way forward; whether that was new.
    fn advance_payment(&mut self, round: i32, step: PaymentStep) -> bool {
        let Some(current) = self.payment_of(round) else { return false };
        let is_new = step > *current;
        *current = step.max(*current);
        is_new
    }

    /// How far payment has got in a round, if that is the one under way. A cancellation undoes the payment of the placing.
    fn payment_of(&mut self, round: i32) -> Option<&mut PaymentStep> {
        if round != self.round {
            return None;
        }
        match (self.status, &mut self.change) {
            (OrderStatus::Pending | OrderStatus::Rejecting | OrderStatus::Cancelling, None) => {
                Some(&mut self.payment)
            }
            (_, Some(change)) => Some(&mut change.payment),
            _ => None,
        }
    }

    /// The next thing to be decided, as the state stands; `None` while there is something to wait for.
    pub(super) fn next(&self) -> Option<Event> {
        match self.status {
            OrderStatus::Pending => self.next_of_placing(),
            OrderStatus::Rejecting => self.rejected(),
            OrderStatus::Cancelling => self.cancelled(),
            OrderStatus::Modifying => self.next_of_change(self.change.as_ref()?),
            OrderStatus::ModificationApplying => self.modified(self.change.as_ref()?),
            OrderStatus::ModificationRefusing => self.modification_refused(self.change.as_ref()?),
            OrderStatus::Rejected
            | OrderStatus::Confirmed
            | OrderStatus::Cancelled
            | OrderStatus::PartiallyShipped
            | OrderStatus::Shipped
            | OrderStatus::Delivered => None,
        }
    }

    fn next_of_placing(&self) -> Option<Event> {
        if let Some(failure) = self.failure.clone() {
            return Some(self.rejecting(failure));
        }
        let Purchase { order_id, user_id, total, .. } = self.purchase;
        match (self.stock, self.payment) {
            (StockStep::Reserved, PaymentStep::NotDue) if self.coupon_step == CouponStep::Asked => None,
            (StockStep::Reserved, PaymentStep::NotDue) => Some(self.payment_due(PLACING, total)),
            (StockStep::Deducted, PaymentStep::Completed) => {
                let lines = Order::sold(&self.purchase.lines, total);
                Some(OrderConfirmed { order_id, user_id, total, lines }.into())
            }
            _ => None,
        }
    }

    pub(super) fn rejecting(&self, failure: Failure) -> Event {
        let Purchase { order_id, user_id, .. } = self.purchase;
        let charge_due = self.payment == PaymentStep::Due;
        OrderRejecting { order_id, user_id, failure, charge_due }.into()
    }

    pub(super) fn modification_refusing(&self, failure: Failure) -> Event {
        let (order_id, user_id, round) = (self.purchase.order_id, self.purchase.user_id, self.round);
        let charge_due = self.change.as_ref().is_some_and(|change| change.payment == PaymentStep::Due);
        OrderModificationRefusing { order_id, user_id, round, failure, charge_due }.into()
    }

    fn payment_due(&self, charge_number: i32, amount: Money) -> Event {
        let Purchase { order_id, user_id, payment_method, .. } = self.purchase;
        OrderPaymentDue { order_id, user_id, charge_number, amount, payment_method }.into()
    }

    fn rejected(&self) -> Option<Event> {
        let stock_is_back = matches!(self.stock, StockStep::Refused | StockStep::Released);
        let is_undone = stock_is_back && holds_no_money(self.payment) && self.coupon_is_back();
        let failure = self.failure.clone().filter(|_| is_undone)?;
        let Purchase { order_id, user_id, .. } = self.purchase;
        Some(OrderRejected { order_id, user_id, failure }.into())
    }

    fn cancelled(&self) -> Option<Event> {
        let is_undone = (self.stock, self.payment) == (StockStep::Released, PaymentStep::Refunded);
        if !is_undone || !self.coupon_is_back() {
            return None;
        }
        let Purchase { order_id, user_id, total: refunded, .. } = self.purchase;
        let confirmed_at = self.confirmed_at.unwrap_or_default();
        let lines = Order::sold(&self.purchase.lines, refunded);
        Some(OrderCancelled { order_id, user_id, refunded, confirmed_at, lines }.into())
    }

    fn coupon_is_back(&self) -> bool {
        matches!(self.coupon_step, CouponStep::NotUsed | CouponStep::Refused | CouponStep::Returned)
    }

    fn next_of_change(&self, change: &Change) -> Option<Event> {
        let (order_id, user_id, round) = (self.purchase.order_id, self.purchase.user_id, self.round);
        if let Some(failure) = change.failure.clone() {
            return Some(self.modification_refusing(failure));
        }
        if change.stock != ChangeStep::Reserved {
            return None;
        }
        let difference = change.total - self.purchase.total;
        match change.payment {
            PaymentStep::NotDue if difference > 0 => Some(self.payment_due(round, difference)),
            PaymentStep::NotDue | PaymentStep::Completed => {
                let refund = (-difference).max(0);
                Some(OrderModificationApplying { order_id, user_id, round, refund }.into())
            }
            _ => None,
        }
    }

    fn modified(&self, change: &Change) -> Option<Event> {
        let is_paid_back = change.total >= self.purchase.total || change.payment == PaymentStep::Refunded;
        if change.stock != ChangeStep::Changed || !is_paid_back {
            return None;
        }
        let modified = OrderModified {
            order_id: self.purchase.order_id,
            user_id: self.purchase.user_id,
            round: self.round,
            total: change.total,
            confirmed_at: self.confirmed_at.unwrap_or_default(),
            before: Order::sold(&self.purchase.lines, self.purchase.total),
            lines: Order::sold(&change.lines, change.total),
        };
        Some(modified.into())
    }

    fn modification_refused(&self, change: &Change) -> Option<Event> {
        let stock_is_back = matches!(change.stock, ChangeStep::Refused | ChangeStep::Released);
        let failure = change.failure.clone().filter(|_| stock_is_back && holds_no_money(change.payment))?;
        let (order_id, user_id, round) = (self.purchase.order_id, self.purchase.user_id, self.round);
        Some(OrderModificationRefused { order_id, user_id, round, failure }.into())
    }

    /// The order after an event of its own; also what a rebuild from the log calls.
    pub fn evolve(&mut self, event: &Event, at: Timestamp) {
        self.sequence += 1;
        match event {
            Event::OrderPaymentDue(e) => {
                self.advance_payment(e.charge_number, PaymentStep::Due);
            }
            Event::OrderConfirmed(_) => self.confirmed_at = Some(at),
            Event::OrderRejecting(e) => self.failure = Some(e.failure.clone()),
            Event::OrderCancelling(e) => (self.round, self.deadline_at) = (e.round, e.deadline_at),
            Event::OrderModifying(e) => {
                (self.round, self.deadline_at) = (e.round, e.deadline_at);
                self.change = Some(Change {
                    lines: e.lines.clone(),
                    subtotal: e.subtotal,
                    discounts: e.discounts.clone(),
                    total: e.total,
                    stock: ChangeStep::Asked,
                    payment: PaymentStep::NotDue,
                    failure: self.coupon_failure(e.subtotal),
                });
            }
            Event::OrderModificationRefusing(e) => {
                if let Some(change) = &mut self.change {
                    change.failure = Some(e.failure.clone());
                }
            }
            Event::OrderModified(_) => self.replace_lines(),
            Event::OrderModificationRefused(e) => {
                self.change = None;
                self.last_modification = Some(LastModification::Refused { failure: e.failure.clone() });
            }
            Event::OrderPartiallyShipped(e) => self.add_shipment(&e.lines),
            Event::OrderShipped(e) => self.add_shipment(&e.lines),
            Event::OrderShipmentDelivered(_) | Event::OrderDelivered(_) => self.in_transit -= 1,
            _ => {}
        }
        if let Some(status) = self.status.after(event.kind()) {
            self.status = status;
            if is_visible(event) {
                self.visible_version += 1;
                self.updated_at = self.updated_at.max(at);
            }
        }
    }

    fn replace_lines(&mut self) {
        if let Some(Change { lines, subtotal, discounts, total, .. }) = self.change.take() {
            let purchase = &mut self.purchase;
            (purchase.lines, purchase.subtotal, purchase.discounts, purchase.total) =
                (lines, subtotal, discounts, total);
        }
        self.last_modification = Some(LastModification::Applied);
    }

    fn add_shipment(&mut self, lines: &[StockLine]) {
        for line in lines {
            match self.shipped.iter_mut().find(|shipped| shipped.product_id == line.product_id) {
                Some(shipped) => shipped.quantity += line.quantity,
                None => self.shipped.push(line.clone()),
            }
        }
        self.in_transit += 1;
    }
}

/// Whether an event says only that the placing is paid, which the order hears of as `stock.deducted`: that follows at once, and until
/// it has come the order would do nothing but write this down.
pub(super) fn is_paid_by_deduction(event: &Event) -> bool {
    matches!(event, Event::PaymentCompleted(e) if e.charge_number == PLACING)
}

fn holds_no_money(step: PaymentStep) -> bool {
    matches!(step, PaymentStep::NotDue | PaymentStep::Failed | PaymentStep::Refunded)
}

/// Whether a client sees the order differently after an event of its own: not where it only begins to give back.
fn is_visible(event: &Event) -> bool {
    !matches!(
        event,
        Event::OrderRejecting(_)
            | Event::OrderModificationApplying(_)
            | Event::OrderModificationRefusing(_)
            | Event::OrderShipmentDelivered(_)
    )
}
