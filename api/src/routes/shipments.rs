//! Shipments: sending parts of an order off, and their arrival.

use ordermill_domain::orders::{Order, Orders};
use ordermill_domain::shipments::Shipment;
use ordermill_schemas::stock::StockLine;
use ordermill_store::shipments;
use serde_json::{Map, Value};

use crate::order_command::{order_of, refusal};
use crate::routes::orders::note_order;
use crate::routes::prelude::*;

/// The routes of shipments.
pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(ship_order)).routes(routes!(deliver_shipment))
}

/// A shipment to be sent off.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewShipment {
    /// What is in it, each product once.
    #[schema(value_type = Vec<ShipmentLine>, min_items = 1, max_items = 50)]
    lines: Vec<Object<ShipmentLine>>,
    /// The carrier's number for it. It is erased with the user.
    #[schema(example = "6112 0000 4711", min_length = 1, max_length = 100)]
    tracking_number: Option<String>,
}

/// A line of it.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ShipmentLine {
    /// The product.
    product_id: Uuid,
    /// How many.
    #[schema(value_type = i64, example = 1, minimum = 1, maximum = 10_000)]
    quantity: Whole,
}

impl NewShipment {
    fn check(self) -> Result<(Vec<StockLine>, Option<String>), Problem> {
        let number = self.tracking_number.as_ref();
        let lines = Checks::all(|checks| {
            let wanted = self.lines.iter().map(|Object(line)| (line.product_id, line.quantity.0));
            let lines = checks.lines(wanted);
            checks.optional_text("tracking_number", number, &limits::TRACKING_NUMBER_LENGTH);
            lines
        })?;
        Ok((lines, self.tracking_number))
    }
}

/// Whether a shipment has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum ShipmentStatus {
    /// It is on its way.
    Shipped,
    /// It has.
    Delivered,
}

view! {
    /// A shipment.
    #[schema(as = Shipment)]
    struct ShipmentView of(shipment: Shipment, shipment_id: Uuid, tracking_number: Option<String>)
    where
        is_delivered = shipment.delivered_at.is_some();
        status = if is_delivered { ShipmentStatus::Delivered } else { ShipmentStatus::Shipped };
    {
        /// The shipment.
        shipment_id: Uuid = shipment_id,
        /// The order that it is a part of.
        order_id: Uuid,
        /// Whether it has arrived.
        status: ShipmentStatus = status,
        /// What is in it.
        #[schema(value_type = Vec<ShipmentLine>)]
        lines: Vec<StockLine>,
        /// The carrier's number for it, until the user is erased.
        tracking_number?: String = tracking_number,
        /// When it left.
        created_at: Timestamp,
    }
}

/// The answer with the number in it. What is kept for repetitions has none, so that nothing is left there once the user is erased: a repetition
/// has the same body, and says it again.
fn numbered(mut answer: Answer, tracking_number: Option<String>) -> Result<Answer, Problem> {
    let mut members: Map<String, Value> = serde_json::from_str(&answer.first.body)?;
    members.insert("tracking_number".to_owned(), tracking_number.into());
    answer.first.body = Value::Object(members).to_string();
    Ok(answer)
}

/// The shipment as it stands in the state.
fn shipment_of(state: &Orders, shipment_id: Uuid) -> Result<&Shipment, Problem> {
    state.shipments.get(&shipment_id).ok_or_else(path::unknown::<path::Shipment>)
}

type ShipOrderRequest = Keyed<Admin, Id<path::Order>, NewShipment>;

/// Send a part or all of an order off (administrators)
#[utoipa::path(
    post,
    path = "/v1/orders/{order_id}/shipments",
    request_body = NewShipment,
    responses(
        (status = 201, description = "On its way", body = ShipmentView),
        Problems<(ShipOrderRequest, code::OrderBusy, code::NothingToShip, code::ValidationFailed)>,
    ),
)]
async fn ship_order(
    State(api): State<Api>,
    Keyed { caller: Admin(caller), path: Id(order_id, _), context, request, body }: ShipOrderRequest,
) -> Result<Answer, Problem> {
    note_order(order_id);
    let (lines, tracking_number) = body.check()?;
    let number = tracking_number.clone();
    let ship = move |state: &mut Orders| {
        let user_id = order_of(state, caller, order_id)?.purchase.user_id;
        let (shipment_id, lines) = (Uuid::now_v7(), lines.clone());
        let decided =
            state.command(order_id, |order| order.ship(shipment_id, lines).map(Some)).map_err(refusal)?;
        let note = |words| Note { about: shipment_id, kind: NoteKind::TrackingNumber, user_id, words };
        let view = ShipmentView::of(shipment_of(state, shipment_id)?.clone(), shipment_id, None);
        Ok((Outcome::noted(decided, number.clone().map(note)), first_answer(201, None, &view)?))
    };
    let shipped = api.decide_once(request, context, Keys::of(Order::NOUN, order_id), ship).await?;
    numbered(shipped, tracking_number)
}

/// A shipment has arrived (administrators)
///
/// The order is `DELIVERED` when all its lines are. A shipment that has arrived already stays as it is.
#[utoipa::path(
    post,
    path = "/v1/shipments/{shipment_id}/delivery",
    responses(
        (status = 200, description = "The shipment", body = ShipmentView),
        Problems<(Admin, Id<path::Shipment>)>,
    ),
)]
async fn deliver_shipment(
    State(api): State<Api>,
    Admin(caller): Admin,
    Id(shipment_id, _): Id<path::Shipment>,
    context: RequestContext,
) -> Result<JsonAnswer<ShipmentView>, Problem> {
    let (unknown, pool) = (path::unknown::<path::Shipment>, &api.journal.pool);
    let order_id = shipments::order_of(pool, shipment_id).await?.ok_or_else(unknown)?;
    note_order(order_id);
    let tracking_number = notes::find(pool, shipment_id, NoteKind::TrackingNumber).await?;
    let (mut keys, origin) = (Keys::of(Order::NOUN, order_id), context.origin(caller.name()));
    keys.add(Shipment::NOUN, shipment_id);
    let deliver = move |state: &mut Orders| {
        order_of(state, caller, order_id)?;
        let is_delivered = shipment_of(state, shipment_id)?.delivered_at.is_some();
        let deliver =
            |order: &Order| if is_delivered { Ok(None) } else { order.deliver(shipment_id).map(Some) };
        let decided = state.command(order_id, deliver).map_err(refusal)?;
        Ok((decided, shipment_of(state, shipment_id)?.clone()))
    };
    let shipment = api.decide(keys, origin, deliver).await?;
    Ok(JsonAnswer(ShipmentView::of(shipment, shipment_id, tracking_number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipment(lines: &[(u128, i64)], tracking_number: Option<&str>) -> NewShipment {
        let line = |(product, quantity): &(u128, i64)| {
            Object(ShipmentLine { product_id: Uuid::from_u128(*product), quantity: Whole(*quantity) })
        };
        let tracking_number = tracking_number.map(str::to_owned);
        NewShipment { lines: lines.iter().map(line).collect(), tracking_number }
    }

    #[test]
    fn an_answer_says_the_number_of_the_request_and_what_is_kept_says_none() {
        let kept =
            first_answer(201, None, &serde_json::json!({"tracking_number": null, "lines": []})).unwrap();
        for (number, body) in [
            (Some("6112".to_owned()), r#"{"lines":[],"tracking_number":"6112"}"#),
            (None, r#"{"lines":[],"tracking_number":null}"#),
        ] {
            let answer = numbered(Answer { first: kept.clone(), is_replay: false }, number).unwrap();
            assert_eq!((answer.first.status, answer.first.body.as_str()), (201, body));
        }
    }

    #[test]
    fn a_shipment_has_lines_of_different_products_and_perhaps_a_tracking_number() {
        assert!(shipment(&[(1, 1), (2, 10_000)], Some("6112")).check().is_ok());
        assert!(shipment(&[(1, 1)], None).check().is_ok());
        for wrong in [
            shipment(&[], None),
            shipment(&[(1, 0)], None),
            shipment(&[(1, 1), (1, 1)], None),
            shipment(&[(1, 10_001)], None),
            shipment(&[(1, 1)], Some(" ")),
            shipment(&[(1, 1)], Some(&"9".repeat(101))),
        ] {
            assert!(wrong.clone().check().is_err(), "{wrong:?}");
        }
    }
}
