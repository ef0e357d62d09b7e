//! Orders as they change, as Server-Sent Events.

use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{ask, operating};
use crate::documents::Forgery;
use crate::support::{DEADLINE, Shop, User, id, in_open_shop, until};

/// How long nothing has come where nothing is expected.
const SILENCE: Duration = Duration::from_millis(500);

/// An open stream.
struct Stream {
    answer: Response,
    /// What has come but was not read yet.
    text: String,
}

#[derive(Debug, PartialEq)]
struct Event {
    version: i64,
    order: Value,
}

impl Stream {
    async fn open(request: RequestBuilder) -> Stream {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-cache");
        Stream { answer, text: String::new() }
    }

    /// The next block of lines, be it an event or a comment; `None` where the server has ended the stream.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let Some(chunk) = self.answer.chunk().await.unwrap() else {
                assert_eq!(self.text, "", "a stream ends between events");
                return None;
            };
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            let block = tokio::time::timeout(DEADLINE, self.block()).await.unwrap()?;
            if block.starts_with(':') {
                continue;
            }
            let lines: Vec<&str> = block.lines().collect();
            let field = |name: &str| {
                let mut values = lines.iter().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                values.next().unwrap_or_else(|| panic!("{name} is missing in {block}"))
            };
            assert_eq!((lines.len(), field("event")), (3, "order"), "{block}");
            let order: Value = serde_json::from_str(field("data")).unwrap();
            assert_eq!(field("id"), order["version"].to_string());
            return Some(Event { version: order["version"].as_i64().unwrap(), order });
        }
    }

    async fn assert_silent(&mut self) {
        let came = tokio::time::timeout(SILENCE, self.next()).await;
        assert!(came.is_err(), "{came:?}");
    }
}

fn stream(shop: &Shop, user: &User, order_id: Uuid) -> RequestBuilder {
    shop.request_as(&user.key, Method::GET, &format!("/orders/{order_id}/stream"))
}

#[test]
fn a_stream_tells_every_change_up_to_the_final_state_and_ends() {
    in_open_shop(async |shop| {
        let (user, lamp) = (shop.user(0).await, shop.product(100, 5).await);
        let order = shop.submit(&user, &[(lamp, 1)]).await;
        let mut stream = Stream::open(stream(shop, &user, id(&order["order_id"]))).await;
        let mut events = Vec::new();
        while let Some(event) = stream.next().await {
            events.push(event);
        }
        assert!(events.is_sorted_by(|earlier, later| earlier.version < later.version), "{events:?}");
        let last = &events.pop().unwrap().order;
        assert_eq!((&last["status"], &last["order_id"]), (&json!("REJECTED"), &order["order_id"]));
        assert_eq!(*last, shop.get(&format!("/orders/{}", id(&order["order_id"]))).await);
        // Its version counts more than its status.
        assert!(
            events.len() <= 1 && events.iter().all(|event| event.order["status"] == "PENDING"),
            "{events:?}"
        );
    });
}

#[test]
fn all_who_follow_an_order_see_it_confirmed() {
    in_open_shop(async |shop| {
        let (user, lamp) = (shop.user(100).await, shop.product(100, 5).await);
        let order_id = id(&shop.submit(&user, &[(lamp, 1)]).await["order_id"]);
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(Stream::open(stream(shop, &user, order_id)).await);
        }
        for stream in &mut streams {
            let mut event = stream.next().await.unwrap();
            if event.order["status"] == "PENDING" {
                event = stream.next().await.unwrap();
            }
            assert_eq!(event.order, shop.settled(order_id).await);
        }
    });
}

#[test]
fn a_confirmed_order_rests_but_its_stream_is_kept_alive() {
    in_open_shop(async |shop| {
        let (user, lamp) = (shop.user(100).await, shop.product(100, 5).await);
        let order = shop.order(&user, &[(lamp, 1)]).await;
        let mut stream = Stream::open(stream(shop, &user, id(&order["order_id"]))).await;
        assert_eq!(stream.next().await.unwrap().order, order);
        let block = tokio::time::timeout(DEADLINE, stream.block()).await.unwrap();
        assert_eq!(block.as_deref(), Some(":"), "a comment, when nothing else has come for a while");
    });
}

#[test]
fn who_has_a_version_is_not_sent_it_again() {
    in_open_shop(async |shop| {
        let (user, lamp) = (shop.user(100).await, shop.product(100, 5).await);
        let confirmed = shop.order(&user, &[(lamp, 1)]).await;
        let request =
            |known: &str| stream(shop, &user, id(&confirmed["order_id"])).header("Last-Event-ID", known);
        Stream::open(request(&confirmed["version"].to_string())).await.assert_silent().await;
        for other in ["1", "none"] {
            let event = Stream::open(request(other)).await.next().await;
            assert_eq!(event.unwrap().order, confirmed);
        }
        let rejected = shop.order(&user, &[(lamp, 9)]).await;
        let request =
            |known: &str| stream(shop, &user, id(&rejected["order_id"])).header("Last-Event-ID", known);
        let mut stream = Stream::open(request("1")).await;
        assert_eq!((stream.next().await.unwrap().order, stream.next().await), (rejected.clone(), None));
        let answer = ask(request(&rejected["version"].to_string())).await;
        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "nothing more can come");
    });
}

#[test]
fn another_users_order_has_no_stream() {
    in_open_shop(async |shop| {
        let (owner, other, lamp) = (shop.user(100).await, shop.user(0).await, shop.product(100, 5).await);
        let order = id(&shop.order(&owner, &[(lamp, 1)]).await["order_id"]);
        ask(stream(shop, &other, order)).await.refused(404, "ORDER_NOT_FOUND");
        let known = stream(shop, &other, order).header("Last-Event-ID", "1");
        ask(known).await.refused(404, "ORDER_NOT_FOUND");
        let admins = shop.request(Method::GET, &format!("/orders/{order}/stream"));
        assert!(Stream::open(admins).await.next().await.is_some());
    });
}

#[test]
fn a_stream_ends_soon_after_its_key_was_revoked() {
    in_open_shop(async |shop| {
        let (user, lamp) = (shop.user(100).await, shop.product(100, 5).await);
        let order = shop.order(&user, &[(lamp, 1)]).await;
        let made = shop.run(&["keys", "create", "--name", "follower"]).await;
        assert!(made.status.success(), "{made:?}");
        let key = String::from_utf8(made.stdout).unwrap().trim_end().to_owned();
        let path = format!("/orders/{}/stream", id(&order["order_id"]));
        let mut followed = Stream::open(shop.request_as(&key, Method::GET, &path)).await;
        let mut others = Stream::open(stream(shop, &user, id(&order["order_id"]))).await;
        assert_eq!(followed.next().await.unwrap().order, order);
        assert_eq!(others.next().await.unwrap().order, order);
        let revoked = shop.run(&["keys", "revoke", "follower"]).await;
        assert!(revoked.status.success(), "{revoked:?}");
        assert_eq!(followed.next().await, None);
        others.assert_silent().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_counted_go_on_after_a_lost_connection_and_end_with_the_server() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(100).await, shop.product(100, 5).await);
    let order = shop.order(&user, &[(lamp, 1)]).await;
    let order_id = id(&order["order_id"]);
    let open_streams = async || operating::counter(&shop, "ordermill_http_open_streams").await;
    let mut first = Stream::open(stream(&shop, &user, order_id)).await;
    let version = first.next().await.unwrap().version;
    assert_eq!(open_streams().await, 1.0);
    drop(first);
    until("the stream of a client that has gone is closed", async || open_streams().await == 0.0).await;

    let request = stream(&shop, &user, order_id).header("Last-Event-ID", version.to_string());
    let mut second = Stream::open(request).await;
    let disconnect = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                      WHERE datname = current_database() AND pid <> pg_backend_pid()";
    sqlx::query(disconnect).execute(&shop.pool).await.unwrap();
    // As a modification that came and went between two looks.
    Forgery::of("orders", order_id).add("visible_version", 1).add("round", 1).make(&shop.pool).await;
    assert_eq!(second.next().await.unwrap().version, version + 1);

    let started = Instant::now();
    let (_, end) = tokio::join!(running.stop(), second.next());
    assert_eq!(end, None, "the server ends the stream, rather than cutting it off");
    assert!(started.elapsed() < DEADLINE / 2, "{:?}", started.elapsed());
}
