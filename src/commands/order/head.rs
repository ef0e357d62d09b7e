//! The order itself, above its story.

use std::fmt;

use anyhow::{Context as _, Result};
use ordermill_api::OrderView;
use serde::Deserialize;

use crate::printable::printable;

/// What is told of an order, as the API shows it.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    order_id: String,
    user_id: String,
    pub(super) status: String,
    failure: Option<Failure>,
    lines: Vec<Line>,
    subtotal: i64,
    discounts: Vec<Discount>,
    total: i64,
    payment: Payment,
    last_modification: Option<LastModification>,
    overdue: bool,
    version: i32,
    created_at: String,
    updated_at: String,
}

#[derive(Debug, Deserialize)]
struct Failure {
    code: String,
    detail: String,
}

#[derive(Debug, Deserialize)]
struct Line {
    product_id: String,
    name: String,
    unit_price: i64,
    quantity: i64,
    shipped_quantity: i64,
}

#[derive(Debug, Deserialize)]
struct Discount {
    kind: String,
    amount: i64,
}

#[derive(Debug, Deserialize)]
struct Payment {
    method: String,
    status: String,
    paid: i64,
    refunded: i64,
}

#[derive(Debug, Deserialize)]
struct LastModification {
    status: String,
    failure: Option<Failure>,
}

impl Head {
    /// # Errors
    /// None in practice: these are members that the API promises.
    pub(super) fn of(order: &OrderView) -> Result<Head> {
        serde_json::to_value(order).and_then(serde_json::from_value).context("the order has another shape")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, printable(&self.detail))
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Head { order_id, user_id, status, subtotal, total, version, created_at, updated_at, .. } = self;
        let overdue = if self.overdue { ", overdue" } else { "" };
        writeln!(f, "order    {order_id}")?;
        writeln!(f, "status   {status}{overdue}, version {version}")?;
        if let Some(failure) = &self.failure {
            writeln!(f, "failure  {failure}")?;
        }
        if let Some(LastModification { status, failure }) = &self.last_modification {
            let why = failure.as_ref().map(|failure| format!(", {failure}")).unwrap_or_default();
            writeln!(f, "modified {status}{why}")?;
        }
        writeln!(f, "user     {user_id}")?;
        write!(f, "total    {total}")?;
        for Discount { kind, amount } in &self.discounts {
            write!(f, ", {kind} took {amount} off {subtotal}")?;
        }
        let Payment { method, status, paid, refunded } = &self.payment;
        writeln!(f, "\npayment  {method}, {status}, {paid} paid, {refunded} refunded")?;
        writeln!(f, "created  {created_at}, changed {updated_at}")?;
        write!(f, "lines")?;
        for Line { product_id, name, unit_price, quantity, shipped_quantity } in &self.lines {
            let name = printable(name);
            write!(f, "\n  {quantity} x {name} at {unit_price}, {shipped_quantity} shipped, {product_id}")?;
        }
        Ok(())
    }
}
