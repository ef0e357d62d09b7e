//! The order itself, above its story.

use serde_json::Value;

use crate::printable::printable;

/// What is told of an order, which is as the API shows it.
pub(super) fn text(order: &Value) -> String {
    let of = |name: &str| plain(&order[name]);
    let overdue = if order["overdue"] == true { ", overdue" } else { "" };
    let mut lines = vec![
        format!("order    {}", of("order_id")),
        format!("status   {}{overdue}, version {}", of("status"), of("version")),
    ];
    lines.extend(failure(order).map(|failure| format!("failure  {failure}")));
    if let Some(modification) = order.get("last_modification") {
        let why = failure(modification).map(|failure| format!(", {failure}")).unwrap_or_default();
        lines.push(format!("modified {}{why}", plain(&modification["status"])));
    }
    let discount = |discount: &Value| {
        format!(", {} took {} off {}", plain(&discount["kind"]), plain(&discount["amount"]), of("subtotal"))
    };
    let payment = |name: &str| plain(&order["payment"][name]);
    lines.extend([
        format!("user     {}", of("user_id")),
        format!("total    {}{}", of("total"), items(&order["discounts"]).map(discount).collect::<String>()),
        format!(
            "payment  {}, {}, {} paid, {} refunded",
            payment("method"),
            payment("status"),
            payment("paid"),
            payment("refunded")
        ),
        format!("created  {}, changed {}", of("created_at"), of("updated_at")),
        "lines".to_owned(),
    ]);
    lines.extend(items(&order["lines"]).map(|line| {
        let of = |name: &str| plain(&line[name]);
        let (quantity, name, price) = (of("quantity"), of("name"), of("unit_price"));
        format!("  {quantity} x {name} at {price}, {} shipped, {}", of("shipped_quantity"), of("product_id"))
    }));
    lines.join("\n")
}

fn failure(of: &Value) -> Option<String> {
    let failure = of.get("failure").filter(|failure| !failure.is_null())?;
    Some(format!("{}: {}", plain(&failure["code"]), plain(&failure["detail"])))
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// A text as a terminal may show it, or a number.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), printable)
}
