//! Who people are, what they say in words of their own, and what is secret: where it stands, and where it never does.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ordermill_pipeline::database;
use ordermill_pipeline::kafka::KafkaConfig;
use ordermill_stack::{Private, TestStack};
use ordermill_store::users;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::coupons;
use crate::dead_letters::{Poison, until_letters};
use crate::support::{
    ADMIN_KEY, CALLBACK_SECRET, DEADLINE, Shop, User, answer, id, lines_of, order_of, stop, until,
};

/// The key that the API is given when it starts.
const ENVIRONMENT_KEY: &str = "om_key_of_the_environment_0123456789";
/// A key that is none.
const UNKNOWN_KEY: &str = "om_key_of_nobody_0123456789";

/// A text that is nowhere else.
fn mark(what: &str) -> String {
    format!("{what}-{}", Uuid::new_v4().simple())
}

/// A customer, and what is said by them and of them: texts that are nowhere else.
struct Kim {
    user: User,
    name: String,
    /// What of the address stands before the @.
    email: String,
    /// Why an order is cancelled.
    reason: String,
    /// Why a coupon is taken away.
    abuse: String,
    tracking_number: String,
    /// What all keys begin with under which requests are sent.
    idempotency_key: String,
}

/// What has become of the customer's orders.
struct Done {
    cancelled: Uuid,
    shipped: Uuid,
    shipment: Uuid,
}

impl Kim {
    async fn sign_up(shop: &Shop) -> Kim {
        let (name, email) = (mark("kim"), mark("mail"));
        let body = json!({"name": name, "email": format!("{email}@example.com")});
        let (status, user) = answer(shop.request_as_nobody(Method::POST, "/v1/users").json(&body)).await;
        assert_eq!(status, StatusCode::CREATED, "{user}");
        let user = User { id: id(&user["user_id"]), key: user["api_key"].as_str().unwrap().to_owned() };
        let (reason, abuse, tracking_number) = (mark("bright"), mark("abuse"), mark("parcel"));
        Kim { user, name, email, reason, abuse, tracking_number, idempotency_key: mark("cart") }
    }

    /// What is to stand somewhere, until the customer is erased.
    fn words(&self) -> Vec<&str> {
        vec![&self.name, &self.email, &self.reason, &self.abuse, &self.tracking_number]
    }

    /// What is to stand nowhere.
    fn unkept(&self) -> Vec<&str> {
        vec![&self.idempotency_key, &self.user.key]
    }

    /// A request under a key of the customer's that was not used before.
    fn request(&self, shop: &Shop, api_key: &str, path: &str, body: &Value) -> RequestBuilder {
        let key = format!("{}-{}", self.idempotency_key, Uuid::new_v4().simple());
        let request = shop.request_as(api_key, Method::POST, path).header("Idempotency-Key", key);
        request.header("baggage", format!("who={}", self.name)).json(body)
    }

    async fn order(&self, shop: &Shop, product_id: Uuid) -> Uuid {
        let body = order_of(&self.user, &[(product_id, 1)]);
        let (status, order) = answer(self.request(shop, &self.user.key, "/orders", &body)).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{order}");
        id(&order["order_id"])
    }

    async fn confirmed(&self, shop: &Shop, product_id: Uuid) -> Uuid {
        let order_id = self.order(shop, product_id).await;
        assert_eq!(shop.settled(order_id).await["status"], "CONFIRMED");
        order_id
    }

    /// Cancels an order, has another shipped, and loses a coupon.
    async fn trade(&self, shop: &Shop, lamp: Uuid) -> Done {
        let charges = format!("/users/{}/balance/charges", self.user.id);
        let charge = self.request(shop, &self.user.key, &charges, &json!({"amount": 100_000}));
        assert_eq!(answer(charge).await.0, StatusCode::CREATED);
        let cancelled = self.confirmed(shop, lamp).await;
        let path = format!("/orders/{cancelled}/cancellation");
        let cancel = self.request(shop, &self.user.key, &path, &json!({"reason": self.reason}));
        assert_eq!(answer(cancel).await.0, StatusCode::ACCEPTED);
        assert_eq!(shop.settled(cancelled).await["status"], "CANCELLED");
        let shipped = self.confirmed(shop, lamp).await;
        let parcel = json!({"lines": lines_of(&[(lamp, 1)]), "tracking_number": self.tracking_number});
        let ship = self.request(shop, ADMIN_KEY, &format!("/orders/{shipped}/shipments"), &parcel);
        let (status, parcel) = answer(ship).await;
        assert_eq!(status, StatusCode::CREATED, "{parcel}");
        let coupon = coupons::own_coupon(shop, &self.user, json!({})).await;
        let revoke = self.request(
            shop,
            ADMIN_KEY,
            &format!("/user-coupons/{coupon}/revocation"),
            &json!({"reason": self.abuse}),
        );
        assert_eq!(answer(revoke).await.0, StatusCode::OK);
        Done { cancelled, shipped, shipment: id(&parcel["shipment_id"]) }
    }

    /// Says the same in requests that are refused.
    async fn be_refused(&self, shop: &Shop, lamp: Uuid, done: &Done) {
        let sign_up = |body: String| {
            let request = shop.request_as_nobody(Method::POST, "/v1/users");
            request.header("Content-Type", "application/json").body(body)
        };
        let email = format!("{}@example.com", self.email);
        let (cancellation, shipments) =
            (format!("/orders/{}/cancellation", done.shipped), format!("/orders/{}/shipments", done.shipped));
        let too_much = json!({"lines": lines_of(&[(lamp, 9)]), "tracking_number": self.tracking_number});
        let reason = json!({"reason": self.reason});
        for (request, status) in [
            (sign_up(json!({"name": self.name, "email": email}).to_string()), 409),
            (sign_up(json!({"name": self.name.repeat(9), "email": self.email}).to_string()), 422),
            (sign_up(json!({"name": self.name, "email": 5}).to_string()), 400),
            (sign_up(format!("{{\"name\": {}", self.name)), 400),
            (shop.request_as_nobody(Method::GET, &format!("/nowhere/{}?q={}", self.name, self.email)), 404),
            (shop.request(Method::GET, &format!("/users/{}", self.name)), 404),
            (shop.request_as(UNKNOWN_KEY, Method::GET, "/orders"), 401),
            (shop.request_as_nobody(Method::GET, &format!("/v1/products?q={}", self.name)), 200),
            (self.request(shop, &self.user.key, &cancellation, &reason), 409),
            (self.request(shop, ADMIN_KEY, &shipments, &too_much), 409),
        ] {
            let (answered, body) = answer(request).await;
            assert_eq!(answered.as_u16(), status, "{body}");
        }
    }

    /// Says the same where the database refuses to write it.
    async fn fail_to_be_stored(&self, shop: &Shop, lamp: Uuid) {
        let order_id = self.confirmed(shop, lamp).await;
        let change = async |what: &str| {
            let script = format!("ALTER TABLE users {what}; ALTER TABLE notes {what}");
            sqlx::raw_sql(AssertSqlSafe(script)).execute(&shop.pool).await.unwrap();
        };
        change("ADD CONSTRAINT refused CHECK (false) NOT VALID").await;
        let other = json!({"name": self.name, "email": format!("{}.again@example.com", self.email)});
        let path = format!("/orders/{order_id}/cancellation");
        for request in [
            shop.request_as_nobody(Method::POST, "/v1/users").json(&other),
            self.request(shop, &self.user.key, &path, &json!({"reason": self.reason})),
        ] {
            let (answered, body) = answer(request).await;
            assert_eq!(answered, StatusCode::INTERNAL_SERVER_ERROR, "{body}");
        }
        change("DROP CONSTRAINT refused").await;
    }

    /// Orders what the stock worker can't apply, so that it is put aside and tried again.
    async fn be_put_aside(&self, shop: &Shop) {
        let chair = shop.product(100, 5).await;
        let poison = Poison::of(shop, chair).await;
        let order_id = self.order(shop, chair).await;
        until_letters(shop, "stock", "PARKED", 1).await;
        poison.cure(shop).await;
        let replayed = shop.run(&["dlq", "replay", "--all"]).await;
        assert!(replayed.status.success(), "{replayed:?}");
        shop.settled(order_id).await;
    }

    async fn be_erased(&self, shop: &Shop) {
        let path = format!("/users/{}", self.user.id);
        let erased = shop.request_as(&self.user.key, Method::DELETE, &path).send().await.unwrap();
        assert_eq!(erased.status(), StatusCode::NO_CONTENT);
    }

    /// What the timelines of the orders say in words, to the API and to the command.
    async fn told(shop: &Shop, done: &Done) -> Vec<String> {
        let mut told = Vec::new();
        for (order_id, event, member) in [
            (done.cancelled, "order.cancelling", "reason"),
            (done.shipped, "order.shipped", "tracking_number"),
        ] {
            let timeline = shop.get(&format!("/orders/{order_id}/events")).await;
            let mut items = timeline["items"].as_array().unwrap().iter();
            let words = items.find(|item| item["type"] == event).unwrap()["data"][member].as_str();
            let printed = shop.run(&["order", &order_id.to_string()]).await.stdout;
            let is_printed =
                String::from_utf8(printed).unwrap().contains(&format!("{}: ", member.replace('_', " ")));
            assert_eq!(is_printed, words.is_some(), "{timeline:#}");
            told.extend(words.map(str::to_owned));
        }
        told
    }
}

/// The tables that have any of these texts, written out or as bytes; and the statistics of the server, if they have.
async fn tables_with(shop: &Shop, texts: &[&str]) -> BTreeSet<String> {
    sqlx::query("ANALYZE").execute(&shop.pool).await.unwrap();
    let tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
        WHERE schemaname IN ('public', 'replay')";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&shop.pool).await.unwrap();
    let samples =
        "(SELECT most_common_vals::text, most_common_elems::text, histogram_bounds::text FROM pg_stats
        WHERE schemaname IN ('public', 'replay'))";
    let mut found = BTreeSet::new();
    for relation in tables.iter().map(String::as_str).chain([samples]) {
        let is_there = format!(
            "SELECT EXISTS (SELECT FROM {relation} AS t, unnest($1::text[]) AS said
             WHERE strpos(t::text, said) > 0 OR strpos(t::text, encode(convert_to(said, 'UTF8'), 'hex')) > 0)"
        );
        let is_there = sqlx::query_scalar::<_, bool>(AssertSqlSafe(is_there)).bind(texts);
        if is_there.fetch_one(&shop.pool).await.unwrap() {
            found.insert(relation.to_owned());
        }
    }
    found
}

/// All records of all topics, those of dead letters among them, each with its key and headers.
fn records(kafka: &KafkaConfig) -> Vec<String> {
    let mut config = kafka.client();
    config.set("group.id", "personal-data").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let metadata = consumer.fetch_metadata(None, DEADLINE).unwrap();
    let (mut assignment, mut expected) = (TopicPartitionList::new(), 0);
    for topic in metadata.topics().iter().filter(|topic| topic.name().starts_with(&kafka.prefix)) {
        for partition in topic.partitions() {
            let (low, high) = consumer.fetch_watermarks(topic.name(), partition.id(), DEADLINE).unwrap();
            let offset = Offset::Offset(low);
            assignment.add_partition_offset(topic.name(), partition.id(), offset).unwrap();
            expected += high - low;
        }
    }
    consumer.assign(&assignment).unwrap();
    let (mut records, started) = (Vec::new(), Instant::now());
    while i64::try_from(records.len()).unwrap() < expected {
        assert!(started.elapsed() < DEADLINE, "{} of {expected} records", records.len());
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.unwrap();
        let mut record = vec![message.key().unwrap_or_default(), message.payload().unwrap_or_default()];
        for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
            record.extend([header.key.as_bytes(), header.value.unwrap_or_default()]);
        }
        records.push(String::from_utf8_lossy(&record.join(&b' ')).into_owned());
    }
    records
}

/// The secrets of the shop.
fn secrets(shop: &Shop) -> Vec<String> {
    let (_, login) = shop.connections.database_url.split_once("://").unwrap();
    let (_, password) = login.split_once('@').unwrap().0.split_once(':').unwrap();
    let file = fs::read_to_string(&shop.wire_secret_file).unwrap();
    let wire = file.lines().find_map(|line| line.strip_prefix("secret ")).unwrap();
    [ADMIN_KEY, ENVIRONMENT_KEY, UNKNOWN_KEY, CALLBACK_SECRET, password, wire].map(str::to_owned).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_or_personal_is_in_logs_and_topics_nor_in_any_table_once_the_user_is_erased() {
    // Its log is looked at, too.
    let postgres = Private::postgres().unwrap();
    let brokers = &TestStack::shared().await.kafka_brokers;
    let shop = Shop::in_database(postgres.url("ordermill"), brokers).await;
    let parts = [&["relay"][..], &["api", "--admin-key", ENVIRONMENT_KEY], &["worker"]]
        .map(|arguments| shop.start_talkative(arguments));
    shop.until_ready().await;
    let (kim, lamp) = (Kim::sign_up(&shop).await, shop.product(100, 50).await);
    let done = kim.trade(&shop, lamp).await;
    kim.be_refused(&shop, lamp, &done).await;
    kim.fail_to_be_stored(&shop, lamp).await;
    kim.be_put_aside(&shop).await;
    shop.until_quiet().await;
    // The shadow is of tables that are made from the log.
    assert!(shop.run(&["replay"]).await.status.success());

    let secrets = secrets(&shop);
    let never: Vec<&str> = secrets.iter().map(String::as_str).chain(kim.unkept()).collect();
    assert_eq!(tables_with(&shop, &never).await, BTreeSet::new());
    let until_erased = ["public.notes", "public.users"].map(str::to_owned);
    assert_eq!(tables_with(&shop, &kim.words()).await, BTreeSet::from(until_erased));
    assert_eq!(Kim::told(&shop, &done).await, [kim.reason.as_str(), &kim.tracking_number]);
    kim.be_erased(&shop).await;
    assert_eq!(tables_with(&shop, &kim.words()).await, BTreeSet::new());
    assert_eq!(Kim::told(&shop, &done).await, Vec::<String>::new());
    // What was ordered goes its way.
    let (status, parcel) = shop.post(&format!("/shipments/{}/delivery", done.shipment), &json!({})).await;
    assert_eq!((status, &parcel["tracking_number"]), (StatusCode::OK, &Value::Null), "{parcel}");
    shop.until_quiet().await;
    parts.iter().for_each(stop);

    let mut written = shop.written();
    let log = fs::read(postgres.log()).unwrap();
    written.push(("the log of PostgreSQL".to_owned(), String::from_utf8_lossy(&log).into_owned()));
    written.push(("Kafka".to_owned(), records(&shop.connections.kafka).join("\n")));
    assert!(written.iter().filter(|(_, text)| text.contains("\"DEBUG\"")).count() >= parts.len());
    assert!(log_tells_of(&written, "refused") && log_tells_of(&written, "dead letter"));
    for (place, text) in &written {
        for said in never.iter().copied().chain(kim.words()) {
            assert!(!text.contains(said), "{place} has {said}");
        }
    }
    shop.assert_verified().await;
}

/// Whether any of what was written has that text: nothing would be found in logs that tell nothing.
fn log_tells_of(written: &[(String, String)], text: &str) -> bool {
    written.iter().any(|(_, log)| log.contains(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_an_order_while_its_user_is_being_erased_is_not_kept() {
    let shop = Arc::new(Shop::new().await);
    let running = shop.open().await;
    let (user, lamp) = (shop.user(1_000).await, shop.product(100, 5).await);
    let order_id = id(&shop.order(&user, &[(lamp, 1)]).await["order_id"]);
    let mut erasing = database::begin(&shop.pool).await.unwrap();
    assert!(users::erase(&mut erasing, user.id, Timestamp::now()).await.unwrap().is_some());
    let cancelling = tokio::spawn({
        let shop = shop.clone();
        async move { shop.ask(ADMIN_KEY, order_id, "cancellation", &json!({"reason": "by mistake"})).await }
    });
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    until("the cancellation waits for the user", async || shop.count(waiting).await > 0).await;
    erasing.commit().await.unwrap();
    let (status, order) = cancelling.await.unwrap();
    assert_eq!(status, StatusCode::ACCEPTED, "{order}");
    assert_eq!(shop.settled(order_id).await["status"], "CANCELLED");
    assert_eq!(shop.count("SELECT count(*) FROM notes").await, 0);
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_given_where_none_belongs_is_not_told() {
    let shop = Shop::new().await;
    let password = mark("sesame");
    let wrong = format!("postgres://ordermill:{password}@127.0.0.1:1/shop?sslpassword={password}");
    let setting = format!("sasl.pasword={password}");
    for (url, arguments) in [
        (&wrong, &["relay", "status"][..]),
        (&shop.connections.database_url, &["topics", "--kafka-setting", setting.as_str()]),
        (&shop.connections.database_url, &["topics", "--kafka-setting", password.as_str()]),
    ] {
        let output = shop.run_as(url, arguments).await;
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(!told.is_empty() && !told.contains(&password), "{told}");
    }
}
