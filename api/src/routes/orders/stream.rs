//! An order as it changes: Server-Sent Events (WHATWG HTML, 9.2).

use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream;
use ordermill_domain::orders::{Order, OrderStatus};
use ordermill_pipeline::clock::Clock;
use tokio::time::{Instant, sleep_until};

use super::view::OrderView;
use crate::auth::KeyHash;
use crate::identities::Identities;
use crate::routes::prelude::*;
use crate::watching::Watch;

/// How long nothing is sent at most: proxies cut connections that are silent for long.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often it is looked whether the key still lets its owner in.
const LOOK_EVERY: Duration = KEEP_ALIVE;
/// The name of the one kind of event.
const EVENT_NAME: &str = "order";
/// The version that a client saw last, when it comes again.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Keeps nginx and its like from holding events back until they have enough of them.
const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// Follow an order
///
/// Server-Sent Events: `event: order`, `id` is the version, `data` the order as `get_order` shows it. The first comes
/// at once, then one for each change of status; one that another follows within moments may be left out, the last one
/// never is. The stream ends at a final state, from which nothing can follow. It also ends when the server stops, soon after the
/// key has expired or was revoked, or after an hour; come again with `Last-Event-ID`, and what was seen is not sent again.
#[utoipa::path(
    get,
    path = "/v1/orders/{order_id}/stream",
    params(
        ("Last-Event-ID" = Option<i32>, Header, description = "The version that the client has", example = 1),
    ),
    responses(
        (status = 200, description = "The order, as it is and as it changes", body = String,
            content_type = "text/event-stream", example = "id: 1\nevent: order\ndata: {\"status\":\"PENDING\"}\n\n"),
        (status = 204, description = "The client has the final state: do not come again"),
        Problems<(Caller, Id<path::Order>)>,
    ),
)]
pub(super) async fn stream_order(
    State(api): State<Api>,
    caller: Caller,
    key_hash: KeyHash,
    Id(order_id, _): Id<path::Order>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let order = super::find(&api, caller, order_id).await?;
    let is_known = last_event_id(&headers) == Some(order.visible_version);
    if is_known && order.status.is_final() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let watch = api.watching.enter(order_id, order.visible_version, caller.identity())?;
    let told = is_known.then(|| told(&order));
    let first = (!is_known).then_some(order);
    let key =
        Key { hash: key_hash, identities: api.identities.clone(), look_at: Instant::now() + LOOK_EVERY };
    let follower = Follower { first, told, watch, key, clock: api.journal.clock.clone(), is_over: false };
    let events = Sse::new(stream::unfold(follower, Follower::next));
    Ok(([UNBUFFERED], events.keep_alive(KeepAlive::new().interval(KEEP_ALIVE))).into_response())
}

/// What is no version of ours is none that the client has.
fn last_event_id(headers: &HeaderMap) -> Option<i32> {
    headers.get(LAST_EVENT_ID)?.to_str().ok()?.parse().ok()
}

/// What a client is told of an order. The round tells two statuses apart that look the same, where the one between them was
/// over within moments: an order that is confirmed again after a modification.
fn told(order: &Order) -> (OrderStatus, i32) {
    (order.status.shown(), order.round)
}

/// Where a stream is.
struct Follower {
    /// The order as the stream found it, until it is sent.
    first: Option<Order>,
    /// What the client was told last.
    told: Option<(OrderStatus, i32)>,
    watch: Watch,
    /// The key that opened it.
    key: Key,
    clock: Clock,
    /// The final state was sent.
    is_over: bool,
}

/// A key that is looked at now and then.
struct Key {
    hash: KeyHash,
    identities: Identities,
    /// When the next look is due.
    look_at: Instant,
}

impl Key {
    /// Comes to an end once the key lets nobody in any more.
    async fn refused(&mut self) {
        loop {
            sleep_until(self.look_at).await;
            if self.hash.is_refused(&self.identities).await {
                return;
            }
            self.look_at = Instant::now() + LOOK_EVERY;
        }
    }
}

impl Follower {
    /// The next event, with what follows it; `None` at the end.
    async fn next(mut self) -> Option<(Result<Event, axum::Error>, Follower)> {
        if self.is_over {
            return None;
        }
        let order = loop {
            let order = match self.first.take() {
                Some(order) => order,
                // The key first: what comes often must not keep it from being looked at.
                None => tokio::select! {
                    biased;
                    () = self.key.refused() => return None,
                    order = self.watch.next() => order?,
                },
            };
            let told = Some(told(&order));
            if self.told != told {
                self.told = told;
                break order;
            }
        };
        self.is_over = order.status.is_final();
        let id = order.visible_version.to_string();
        let event = Event::default().event(EVENT_NAME).id(id);
        Some((event.json_data(OrderView::of(order, self.clock.now())), self))
    }
}

#[cfg(test)]
mod tests {
    use ordermill_store::keys::Identity;

    use super::*;
    use crate::keys::digest;
    use crate::testing::api_without_database;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_stream_ends_once_its_key_was_revoked() {
        let api = api_without_database();
        let customer = Identity::Customer(Uuid::now_v7());
        api.identities.remember("om_1", customer).await;
        let watch = api.watching.enter(Uuid::now_v7(), 1, customer).unwrap();
        let hash = KeyHash(digest("om_1"));
        assert!(!hash.is_refused(&api.identities).await);
        api.identities.revoke(vec![hash.0.to_vec()]).await;
        let key = Key { hash, identities: api.identities.clone(), look_at: Instant::now() };
        let clock = api.journal.clock.clone();
        let follower = Follower { first: None, told: None, watch, key, clock, is_over: false };
        assert!(tokio::time::timeout(LONG, follower.next()).await.unwrap().is_none());
        assert!(!KeyHash(digest("om_2")).is_refused(&api.identities).await, "the database does not say so");
    }

    #[test]
    fn a_client_has_the_version_that_it_names() {
        let known = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LAST_EVENT_ID, value.parse().unwrap());
            last_event_id(&headers)
        };
        assert_eq!(known("3"), Some(3));
        for none in ["", "x", "3.0", "99999999999", "\"3\""] {
            assert_eq!(known(none), None, "{none:?}");
        }
        assert_eq!(last_event_id(&HeaderMap::new()), None);
    }
}
