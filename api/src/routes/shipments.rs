//! Shipments: sending parts of an order off, and their arrival.

use ordermill_domain::orders::{Order, Orders};
use ordermill_domain::shipments::Shipment;
use ordermill_schemas::stock::StockLine;
use ordermill_store::shipments;

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
    /// The carrier's number for it.
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
    struct ShipmentView of(shipment: Shipment, shipment_id: Uuid)
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
        /// The carrier's number for it.
        tracking_number?: String,
        /// When it left.
        created_at: Timestamp,
    }
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
    api.decide_once(request, context, Keys::of(Order::NOUN, order_id), move |state: &mut Orders| {
        order_of(state, caller, order_id)?;
        let shipment_id = Uuid::now_v7();
        let (lines, tracking_number) = (lines.clone(), tracking_number.clone());
        let decided = state
            .command(order_id, |order| order.ship(shipment_id, lines, tracking_number).map(Some))
            .map_err(refusal)?;
        let view = ShipmentView::of(shipment_of(state, shipment_id)?.clone(), shipment_id);
        Ok((decided, first_answer(201, None, &view)?))
    })
    .await
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
    let unknown = path::unknown::<path::Shipment>;
    let order_id = shipments::order_of(&api.journal.pool, shipment_id).await?.ok_or_else(unknown)?;
    note_order(order_id);
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
    Ok(JsonAnswer(ShipmentView::of(shipment, shipment_id)))
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
