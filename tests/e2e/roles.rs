//! Each part as a user of its own in the database, who may do what that part must and no more.

use std::fs;

use ordermill_stack::{Child, Private, TestStack};
use ordermill_store::database_roles::DatabaseRole;
use ordermill_workers::Worker;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::coupons;
use crate::dead_letters::{Poison, replay, until_letters};
use crate::replay::Traded;
use crate::support::{Shop, answer, as_user, id, stop, until};

/// The key that the API is given when it starts.
const ENVIRONMENT_KEY: &str = "om_key_of_the_environment_0123456789";

/// A user for each role, whose password is the name.
struct Users<'a> {
    shop: &'a Shop,
    /// Users belong to the cluster, like roles.
    prefix: String,
}

impl Users<'_> {
    async fn make(shop: &Shop) -> Users<'_> {
        let output = shop.run(&["roles"]).await;
        assert!(output.status.success(), "{output:?}");
        let users = Users { shop, prefix: format!("u{}", Uuid::new_v4().simple()) };
        for role in DatabaseRole::all() {
            users.make_user(&users.name(role), &format!("IN ROLE {role}")).await;
        }
        users
    }

    async fn make_user(&self, name: &str, options: &str) {
        let create = format!("CREATE USER {name} PASSWORD '{name}' {options}");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&self.shop.pool).await.unwrap();
    }

    fn name(&self, role: DatabaseRole) -> String {
        role.to_string().replace("ordermill", &self.prefix)
    }

    fn url_of(&self, name: &str) -> String {
        as_user(&self.shop.connections.database_url, name)
    }

    fn url(&self, role: DatabaseRole) -> String {
        self.url_of(&self.name(role))
    }

    /// Starts every part in a process of its own. To the stock worker a single failure is a flood.
    fn start_all(&self) -> Vec<Child> {
        let start = |role: DatabaseRole, arguments: &[&str]| self.shop.start_as(&self.url(role), arguments);
        let mut parts = vec![
            start(DatabaseRole::Relay, &["relay"]),
            start(DatabaseRole::Api, &["api", "--admin-key", ENVIRONMENT_KEY]),
        ];
        for worker in Worker::ALL {
            let mut arguments = vec!["worker", worker.name()];
            if *worker == Worker::Stock {
                arguments.extend(["--flood-min", "1", "--flood-share", "0.0001"]);
            }
            parts.push(start(worker.role(), &arguments));
        }
        parts
    }

    /// Runs a command as an operator; answers what it has printed.
    async fn operator(&self, arguments: &[&str]) -> String {
        let output = self.shop.run_as(&self.url(DatabaseRole::Operator), arguments).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Asks the API for what no order needs.
async fn ask_for_the_rest(shop: &Shop) {
    let user = shop.user(1_000).await;
    let coupon = coupons::own_coupon(shop, &user, json!({})).await;
    let revocation = format!("/user-coupons/{coupon}/revocation");
    let (status, revoked) = shop.post(&revocation, &json!({"reason": "abuse"})).await;
    assert_eq!(status, StatusCode::OK, "{revoked}");
    let orders = shop.get("/orders?status=CONFIRMED").await;
    for path in [
        "/products?q=lam&availability=in_stock&sort=price_asc",
        "/products/popular",
        "/statistics/sales",
        "/dead-letters/halts",
        "/dead-letters/replays",
        &format!("/orders/{}/events", id(&orders["items"][0]["order_id"])),
        &format!("/users/{}/orders", user.id),
        &format!("/users/{}/coupons", user.id),
        &format!("/users/{}/balance/entries", user.id),
    ] {
        shop.get(path).await;
    }
    let erased = shop.request_as(&user.key, Method::DELETE, &format!("/users/{}", user.id)).send().await;
    assert_eq!(erased.unwrap().status(), StatusCode::NO_CONTENT);
}

/// Three orders that the stock worker can't apply, and the letter of each.
struct Stuck {
    poison: Poison,
    orders: Vec<Uuid>,
    letters: Vec<String>,
}

impl Stuck {
    async fn submit(users: &Users<'_>) -> Stuck {
        let shop = users.shop;
        let (user, lamp) = (shop.user(10_000).await, shop.product(100, 9).await);
        let poison = Poison::of(shop, lamp).await;
        let mut orders = Vec::new();
        for _ in 0..3 {
            orders.push(id(&shop.submit(&user, &[(lamp, 1)]).await["order_id"]));
        }
        let halted = "SELECT count(*) FROM halted_group WHERE resumed_at IS NULL";
        until("the group has stopped", async || shop.count(halted).await == 1).await;
        assert!(users.operator(&["dlq", "halts"]).await.contains("stock"));
        users.operator(&["dlq", "resume", "stock", "--unchecked-for", "10m"]).await;
        until_letters(shop, "stock", "PARKED", 3).await;
        let listed = shop.get("/dead-letters?state=PARKED").await;
        let letter_of = |order: &Uuid| {
            let mut items = listed["items"].as_array().unwrap().iter();
            items.find(|letter| letter["key"] == json!(order)).unwrap()["dead_letter_id"].clone()
        };
        let letters = orders.iter().map(|order| id(&letter_of(order)).to_string()).collect();
        Stuck { poison, orders, letters }
    }

    /// Looks at the letters, and edits some to what they are.
    async fn work(&self, users: &Users<'_>) {
        let (shop, letters) = (users.shop, &self.letters);
        for arguments in
            [&["list"][..], &["groups"], &["show", &letters[0]], &["replay", "--all", "--dry-run"]]
        {
            users.operator(&[&["dlq"], arguments].concat()).await;
        }
        let payload = users.operator(&["dlq", "show", &letters[0], "--payload"]).await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("payload.json");
        fs::write(&file, &payload).unwrap();
        users.operator(&["dlq", "edit", &letters[0], "--file", file.to_str().unwrap()]).await;
        let path = format!("/dead-letters/{}", letters[1]);
        let body = json!({"payload": shop.get(&path).await["payload"]});
        let edit = shop.request(Method::PUT, &format!("{path}/payload")).json(&body);
        let (status, edited) = answer(edit).await;
        assert_eq!(status, StatusCode::OK, "{edited}");
        replay(shop, &json!({"ids": [letters[1]], "dry_run": true})).await;
        users.operator(&["order", &self.orders[0].to_string()]).await;
    }

    /// Has the timers give the orders up; then one letter is replayed, the others are discarded.
    async fn end(self, users: &Users<'_>) {
        let (shop, [first, second, third]) = (users.shop, self.letters.as_slice()) else {
            panic!("there are three letters");
        };
        until_letters(shop, "stock", "WAITING", 3).await;
        self.poison.cure(shop).await;
        users.operator(&["dlq", "replay", first]).await;
        let body = json!({"reason": "given up", "release_waiting": true});
        let discard = shop.request(Method::POST, &format!("/dead-letters/{second}/discard")).json(&body);
        let (status, discarded) = answer(discard).await;
        assert_eq!(status, StatusCode::OK, "{discarded}");
        users.operator(&["dlq", "discard", third, "--reason", "given up", "--release-waiting"]).await;
        for order in self.orders {
            assert_eq!(shop.settled(order).await["status"], "REJECTED");
        }
    }
}

/// Works keys of either kind, and has the relay publish again.
async fn work_keys(users: &Users<'_>) {
    let shop = users.shop;
    let user = shop.user(0).await.id.to_string();
    for arguments in [
        &["create", "--name", "minji"][..],
        &["rotate", "minji", "--grace", "1h"],
        &["list"],
        &["revoke", "minji"],
        &["create", "--name", "app", "--user", &user],
        &["wire", "rotate"],
    ] {
        users.operator(&[&["keys"], arguments].concat()).await;
    }
    let keys: Value =
        serde_json::from_str(&users.operator(&["keys", "wire", "list", "--json"]).await).unwrap();
    let mut keys = keys.as_array().unwrap().iter();
    let retired = keys.find(|key| key["state"] == "RETIRED").unwrap()["id"].as_str().unwrap();
    users.operator(&["relay", "rewind", "--all"]).await;
    users.operator(&["keys", "wire", "revoke", retired]).await;
    let asked = "SELECT count(*) FROM relay_cursor WHERE repeat_after IS NOT NULL";
    until("the relay has gone back", async || shop.count(asked).await == 0).await;
}

/// Looks whether everything adds up, over HTTP and by the commands. Only operators replay: they could have the owner do what they like.
async fn look(users: &Users<'_>) {
    let shop = users.shop;
    shop.until_quiet().await;
    shop.until_applied().await;
    for arguments in [
        &["verify"][..],
        &["replay", "--check"],
        &["relay", "status"],
        &["payments", "reconcile"],
        &["topics"],
    ] {
        users.operator(arguments).await;
    }
    let refused = shop.run(&["replay"]).await;
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{told}");
    assert!(told.contains("a member of ordermill_operator alone"), "{told}");
    users.operator(&["replay", "--swap", "sales"]).await;
    let report = shop.get("/verification").await;
    assert_eq!(report["ok"], true, "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_are_users_of_their_own_do_all_that_they_must_and_nothing_is_refused() {
    // Its log has whatever is refused.
    let postgres = Private::postgres().unwrap();
    let brokers = &TestStack::shared().await.kafka_brokers;
    let shop = Shop::in_database(postgres.url("ordermill"), brokers).await;
    let users = Users::make(&shop).await;
    let parts = users.start_all();
    shop.until_ready().await;
    Traded::in_open_shop(&shop).await;
    ask_for_the_rest(&shop).await;
    let stuck = Stuck::submit(&users).await;
    stuck.work(&users).await;
    work_keys(&users).await;
    stuck.end(&users).await;
    look(&users).await;
    parts.iter().for_each(stop);
    let log = fs::read(postgres.log()).unwrap();
    let log = String::from_utf8_lossy(&log);
    let is_refusal =
        |line: &&str| ["permission denied", "must be owner"].iter().any(|words| line.contains(words));
    let refused: Vec<&str> = log.lines().filter(is_refusal).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_given_the_user_of_another_part_or_of_none_says_so_and_ends() {
    let shop = Shop::new().await;
    let users = Users::make(&shop).await;
    for (role, arguments, other) in [
        (DatabaseRole::Worker("orders"), &["worker", "stock"][..], "ordermill_worker_stock"),
        (DatabaseRole::Worker("stock"), &["relay"], "ordermill_relay"),
        (DatabaseRole::Relay, &["api"], "ordermill_api"),
    ] {
        let output = shop.run_as(&users.url(role), arguments).await;
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
        let says = [format!("user {} lacks", users.name(role)), format!("which {other} has")];
        assert!(says.iter().all(|part| told.contains(part)), "{arguments:?}: {told}");
    }
    let nobody = format!("{}_nobody", users.prefix);
    users.make_user(&nobody, "").await;
    let (nobody, operator) = (users.url_of(&nobody), users.url(DatabaseRole::Operator));
    let relay = users.url(DatabaseRole::Relay);
    // As where the database was restored and has forgotten it.
    let secret = fs::read_to_string(&shop.wire_secret_file).unwrap();
    fs::write(&shop.wire_secret_file, secret + "revoked 1-9-00000000000000cc\n").unwrap();
    for (url, arguments, says) in [
        (&nobody, &["relay"][..], "run `ordermill roles` again"),
        (&nobody, &["relay", "status"], "run `ordermill roles` again"),
        (&operator, &["relay", "adopt", "--force", "--recreate-topics"], "or the owner of the tables"),
        (&operator, &["migrate"], "permission denied"),
        (&operator, &["roles"], "run this as the owner of the tables"),
        (&relay, &["relay"], "run `ordermill migrate` with this file as the owner of the tables"),
    ] {
        let output = shop.run_as(url, arguments).await;
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
        assert!(told.contains(says), "{arguments:?}: {told}");
    }
    assert!(shop.run(&["migrate"]).await.status.success());
    assert!(users.operator(&["keys", "wire", "list"]).await.contains("| REVOKED |"));
}
