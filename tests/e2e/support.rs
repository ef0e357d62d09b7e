//! A shop of its own for every test: database, topics, gateway, and the services in this process or as
//! processes of their own.

use std::ffi::OsString;
use std::fs;
use std::io::PipeWriter;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use ordermill::connections::Connections;
use ordermill::services::{self, Services};
use ordermill::verify;
use ordermill_pipeline::authenticity::{RootSecret, Secrets};
use ordermill_pipeline::clock::Clock;
use ordermill_pipeline::kafka::KafkaConfig;
use ordermill_pipeline::relay::{self, Beside};
use ordermill_pipeline::{database, topics};
use ordermill_stack::{
    Child, Gateway, GatewayOptions, Program, Quiet, Scratch, Signal, TestStack, free_port, sibling_program,
};
use ordermill_store::{keys, migrations};
use ordermill_workers::{GatewayConfig, Worker};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::diagnosis;

/// How long anything may take on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(240);
/// The program.
pub(crate) const ORDERMILL: &str = env!("CARGO_BIN_EXE_ordermill");
pub(crate) const ADMIN_KEY: &str = "om_admin_key_of_the_tests_0123456789";
/// The name of that key.
pub(crate) const ADMIN: &str = "tests";
/// The zone whose days shops in this process go by.
pub(crate) const TIME_ZONE: &str = "Asia/Seoul";
pub(crate) const CALLBACK_SECRET: &str = "secret of the tests";
pub(crate) const PARTITIONS: i16 = 4;

/// Database, topics, gateway and an address for the API; nothing runs in it yet.
pub(crate) struct Shop {
    pub(crate) pool: PgPool,
    pub(crate) connections: Connections,
    pub(crate) gateway: Gateway,
    pub(crate) client: Client,
    pub(crate) wire_secret_file: PathBuf,
    api_port: u16,
    scratch: Scratch,
}

/// Services in this process, until they are stopped or dropped by a test that fails.
pub(crate) struct Running {
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        for task in std::mem::take(&mut self.tasks) {
            task.await.unwrap();
        }
    }
}

impl Drop for Running {
    /// Where the test has failed the services must end before its runtime does: a member that leaves its group without one never comes
    /// to an end, and the failure would never be told.
    fn drop(&mut self) {
        self.shutdown.cancel();
        if std::thread::panicking() {
            let tasks = std::mem::take(&mut self.tasks);
            let all = async {
                for task in tasks {
                    let _ = task.await;
                }
            };
            let ended = async { tokio::time::timeout(DEADLINE, all).await };
            let _ = tokio::task::block_in_place(|| Handle::current().block_on(ended));
        }
    }
}

/// Runs a test in the one open shop of this process. What the test does must be bounded, and it may look only at
/// users, products and orders of its own: others are being tested in the same shop.
pub(crate) fn in_open_shop(test: impl AsyncFnOnce(&Shop)) {
    // Its runtime must outlive every test, since connections live where they were opened.
    static OPEN: LazyLock<(Runtime, Shop, Running)> = LazyLock::new(|| {
        let runtime = Runtime::new().unwrap();
        let (shop, running) = runtime.block_on(async {
            let shop = Shop::new().await;
            let running = shop.open().await;
            (shop, running)
        });
        // It stays open until the process ends.
        (runtime, shop, running)
    });
    let (runtime, shop, _running) = &*OPEN;
    runtime.block_on(async {
        tokio::time::timeout(DEADLINE, test(shop)).await.expect("the test comes to its end in time");
    });
}

/// A user with a key.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) id: Uuid,
    pub(crate) key: String,
}

impl Shop {
    pub(crate) async fn new() -> Shop {
        Shop::with_kafka(&TestStack::shared().await.kafka_brokers).await
    }

    /// The same on a Kafka that the test has for itself.
    pub(crate) async fn with_kafka(brokers: &str) -> Shop {
        Shop::in_database(TestStack::shared().await.fresh_database().await, brokers).await
    }

    /// The same in that database, which is empty.
    pub(crate) async fn in_database(database_url: String, brokers: &str) -> Shop {
        diagnosis::keep_log();
        let stack = TestStack::shared().await;
        let scratch = Scratch::new().unwrap();
        let wire_secret_file = new_wire_secret(scratch.path());
        let secrets = Secrets::read(&wire_secret_file).unwrap();
        let kafka = KafkaConfig::new(brokers, &stack.fresh_prefix(), secrets);
        let pool = database::connect(&database_url, "test", 4).await.unwrap();
        migrations::run(&pool).await.unwrap();
        relay::install(&pool, None, PARTITIONS).await.unwrap();
        kafka.keyring.open(&pool).await.unwrap();
        topics::ensure(&kafka, PARTITIONS, &ordermill_workers::groups()).await.unwrap();
        let key_hash = ordermill_api::hash_chosen_key(ADMIN_KEY).unwrap();
        keys::establish(&pool, ADMIN, &key_hash, Clock::system().now()).await.unwrap();
        let api_port = free_port().unwrap();
        let options = GatewayOptions {
            port: None,
            callback_url: Some(format!("http://127.0.0.1:{api_port}/v1/payments/callbacks")),
            callback_secret: CALLBACK_SECRET.to_owned(),
            tls: None,
        };
        let program = sibling_program("ordermill-gateway").unwrap();
        let gateway = Gateway::start(&program, scratch.path(), options, &Quiet).unwrap();
        let gateway_url = Some(gateway.url());
        let connections = Connections { database_url, kafka, gateway_url, gateway_ca_file: None };
        let client = Client::builder().no_proxy().timeout(DEADLINE).build().unwrap();
        Shop { pool, connections, gateway, client, wire_secret_file, api_port, scratch }
    }

    /// Runs API, relay and workers in this process, and waits until they are ready.
    pub(crate) async fn open(&self) -> Running {
        self.open_at(Clock::system()).await
    }

    /// The same by a clock of the test's.
    pub(crate) async fn open_at(&self, clock: Clock) -> Running {
        self.open_with(clock, GatewayConfig::new(&self.gateway.url())).await
    }

    /// The same with workers that ask that gateway.
    pub(crate) async fn open_with(&self, clock: Clock, gateway: GatewayConfig) -> Running {
        let shutdown = CancellationToken::new();
        let mut services = Services::connect(&self.connections, shutdown.clone()).await.unwrap();
        services.go_by(&clock);
        let services = Arc::new(services);
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", self.api_port)).await.unwrap();
        let zone = services::time_zone(TIME_ZONE).unwrap();
        let (relay, workers, api) = (services.clone(), services.clone(), services);
        let tasks = vec![
            tokio::spawn(async move { relay.run_relay(Beside::ApiAndWorkers).await }),
            tokio::spawn(async move { workers.run_workers(Worker::ALL, &gateway).await.unwrap() }),
            tokio::spawn(async move { api.run_api(listener, Some(CALLBACK_SECRET), zone).await.unwrap() }),
        ];
        self.until_ready().await;
        Running { shutdown, tasks }
    }

    /// Starts a part as a process of its own: `["worker", "stock"]`, `["relay"]`, `["api"]`.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        self.start_as(&self.connections.database_url, arguments)
    }

    /// The same as the user whom the address of the database names.
    pub(crate) fn start_as(&self, database_url: &str, arguments: &[&str]) -> Child {
        self.program(database_url, arguments).start().unwrap()
    }

    /// Starts a part as a process that logs whatever it has to say.
    pub(crate) fn start_talkative(&self, arguments: &[&str]) -> Child {
        self.program(&self.connections.database_url, arguments).env("RUST_LOG", "debug").start().unwrap()
    }

    fn program(&self, database_url: &str, arguments: &[&str]) -> Program {
        let name = arguments.join("-").replace('/', "_");
        let log = self.scratch.path().join(format!("{name}-{}.log", Uuid::new_v4().simple()));
        let program = Program::new(arguments.join(" "), PathBuf::from(ORDERMILL), log);
        let environment = self.environment(database_url);
        let program =
            environment.into_iter().fold(program, |program, (name, value)| program.env(name, value));
        program.args(arguments.iter().copied())
    }

    /// What processes of the shop have written into files, by the file: their logs, and the gateway's ledger.
    pub(crate) fn written(&self) -> Vec<(String, String)> {
        let files = fs::read_dir(self.scratch.path()).unwrap().map(|file| file.unwrap().path());
        let read = |file: PathBuf| {
            let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
            (file.display().to_string(), text)
        };
        files.filter(|file| file.is_file() && *file != self.wire_secret_file).map(read).collect()
    }

    /// Runs a command to its end: `["verify", "--json"]`.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        self.run_into(arguments, Stdio::piped()).await
    }

    /// The same as the user whom the address of the database names.
    pub(crate) async fn run_as(&self, database_url: &str, arguments: &[&str]) -> Output {
        self.run_with(database_url, arguments, Stdio::piped()).await
    }

    /// The same with its standard output going there.
    pub(crate) async fn run_into(&self, arguments: &[&str], stdout: impl Into<Stdio>) -> Output {
        self.run_with(&self.connections.database_url, arguments, stdout).await
    }

    async fn run_with(&self, database_url: &str, arguments: &[&str], stdout: impl Into<Stdio>) -> Output {
        let mut command = tokio::process::Command::new(ORDERMILL);
        command.args(arguments).envs(self.environment(database_url)).stdin(Stdio::null()).kill_on_drop(true);
        let process = command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        let ended = tokio::time::timeout(DEADLINE, process.wait_with_output()).await;
        ended.expect("the command ends in time").unwrap()
    }

    /// What tells a process of ours where everything is.
    fn environment(&self, database_url: &str) -> [(&'static str, OsString); 8] {
        [
            ("DATABASE_URL", database_url.into()),
            ("KAFKA_BROKERS", self.connections.kafka.brokers.clone().into()),
            ("ORDERMILL_TOPIC_PREFIX", self.connections.kafka.prefix.clone().into()),
            ("ORDERMILL_GATEWAY_URL", self.gateway.url().into()),
            ("ORDERMILL_LISTEN", format!("127.0.0.1:{}", self.api_port).into()),
            ("ORDERMILL_CALLBACK_SECRET", CALLBACK_SECRET.into()),
            ("ORDERMILL_DATA_DIR", self.scratch.path().into()),
            ("ORDERMILL_WIRE_SECRET_FILE", self.wire_secret_file.clone().into()),
        ]
    }

    pub(crate) async fn until_ready(&self) {
        until("the pipeline is ready", async || {
            let answer = self.client.get(self.url("/readyz")).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.api_port)
    }

    /// A request as the admin.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.request_as(ADMIN_KEY, method, path)
    }

    /// A request as nobody, to any path.
    pub(crate) fn request_as_nobody(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub(crate) fn request_as(&self, key: &str, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(&format!("/v1{path}"))).bearer_auth(key)
    }

    /// A POST with a fresh idempotency key, as the admin.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let key = Uuid::new_v4().to_string();
        answer(self.request(Method::POST, path).header("Idempotency-Key", key).json(body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = answer(self.request(Method::GET, path)).await;
        assert_eq!(status, StatusCode::OK, "GET {path}: {body}");
        body
    }

    /// A user with that much to spend.
    pub(crate) async fn user(&self, balance: i64) -> User {
        let email = format!("{}@example.com", Uuid::new_v4().simple());
        let (status, user) = self.post("/users", &json!({"name": "Kim", "email": email})).await;
        assert_eq!(status, StatusCode::CREATED, "{user}");
        let user = User { id: id(&user["user_id"]), key: user["api_key"].as_str().unwrap().to_owned() };
        if balance > 0 {
            let path = format!("/users/{}/balance/charges", user.id);
            let (status, entry) = self.post(&path, &json!({"amount": balance})).await;
            assert_eq!(status, StatusCode::CREATED, "{entry}");
        }
        user
    }

    pub(crate) async fn product(&self, price: i64, stock: i64) -> Uuid {
        self.product_of("light", price, stock).await
    }

    pub(crate) async fn product_of(&self, category: &str, price: i64, stock: i64) -> Uuid {
        let product =
            json!({"name": "Lamp", "description": "", "category": category, "price": price, "stock": stock});
        let (status, product) = self.post("/products", &product).await;
        assert_eq!(status, StatusCode::CREATED, "{product}");
        id(&product["product_id"])
    }

    /// Submits an order with a fresh key and answers it as accepted.
    pub(crate) async fn submit(&self, user: &User, lines: &[(Uuid, i32)]) -> Value {
        let order = order_of(user, lines);
        let key = Uuid::new_v4().to_string();
        let request = self.request_as(&user.key, Method::POST, "/orders").header("Idempotency-Key", key);
        let (status, order) = answer(request.json(&order)).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{order}");
        order
    }

    /// Submits an order and answers it at rest.
    pub(crate) async fn order(&self, user: &User, lines: &[(Uuid, i32)]) -> Value {
        let order = self.submit(user, lines).await;
        self.settled(id(&order["order_id"])).await
    }

    /// The order once it is at rest.
    pub(crate) async fn settled(&self, order_id: Uuid) -> Value {
        let started = Instant::now();
        loop {
            let request =
                self.request(Method::GET, &format!("/orders/{order_id}")).header("Prefer", "wait=10");
            let (status, order) = answer(request).await;
            assert_eq!(status, StatusCode::OK, "{order}");
            let status = order["status"].as_str().unwrap();
            if !["PENDING", "MODIFYING", "CANCELLING"].contains(&status) {
                return order;
            }
            assert!(started.elapsed() < DEADLINE, "order {order_id} does not come to rest");
        }
    }

    /// Asks for something about an order with a fresh key, as its user: `cancellation`, or as the admin.
    pub(crate) async fn ask(
        &self,
        key: &str,
        order_id: Uuid,
        what: &str,
        body: &Value,
    ) -> (StatusCode, Value) {
        let request = self.request_as(key, Method::POST, &format!("/orders/{order_id}/{what}"));
        answer(request.header("Idempotency-Key", Uuid::new_v4().to_string()).json(body)).await
    }

    /// Replaces an order's lines where it is at that version.
    pub(crate) async fn modify(
        &self,
        user: &User,
        order: &Value,
        lines: &[(Uuid, i32)],
    ) -> (StatusCode, Value) {
        let path = format!("/orders/{}", id(&order["order_id"]));
        let request = self.request_as(&user.key, Method::PATCH, &path);
        let request = request.header("If-Match", format!("\"{}\"", order["version"]));
        answer(request.json(&json!({"lines": lines_of(lines)}))).await
    }

    /// Has the gateway behave so from now on.
    pub(crate) async fn behave(&self, behaviour: &Value) {
        let url = format!("{}/behaviour", self.gateway.url());
        let answer = self.client.put(url).json(behaviour).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    /// A figure of this process as Prometheus reads it; `None` where there is none of that name.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        self.metric_at(&self.url(""), name).await
    }

    /// The same of the process that shows its figures at that address.
    pub(crate) async fn metric_at(&self, address: &str, name: &str) -> Option<f64> {
        let text = self.client.get(format!("{address}/metrics")).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map(|figure| figure.parse().unwrap())
    }

    /// Available and held.
    pub(crate) async fn balance(&self, user: &User) -> (i64, i64) {
        let balance = self.get(&format!("/users/{}/balance", user.id)).await;
        (balance["available"].as_i64().unwrap(), balance["held"].as_i64().unwrap())
    }

    pub(crate) async fn stock(&self, product_id: Uuid) -> i64 {
        self.get(&format!("/products/{product_id}")).await["stock"].as_i64().unwrap()
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&self.pool).await.unwrap()
    }

    /// Waits until no order is pending and everything is in Kafka.
    pub(crate) async fn until_quiet(&self) {
        self.until_none(
            "orders that are not at rest",
            "SELECT count(*) FROM orders WHERE status NOT IN ('REJECTED', 'CONFIRMED', 'CANCELLED', \
                 'PARTIALLY_SHIPPED', 'SHIPPED', 'DELIVERED')",
        )
        .await;
        self.until_none(
            "events that are not published",
            "SELECT count(*) FROM event_log e, relay_cursor c WHERE e.position > c.position",
        )
        .await;
    }

    /// Waits until all workers have applied or passed over what is in the log. Only then may a test's clock leap: what is still on its
    /// way would seem to have waited for all that time, and orders would be refused for it.
    pub(crate) async fn until_applied(&self) {
        self.until_none(
            "events that some group has not applied",
            "SELECT count(*) FROM event_log e JOIN consumer_offset o USING (topic, partition)
             WHERE e.position > o.label_position",
        )
        .await;
    }

    /// Waits until a count is 0; where it is not in time, says how everything stands.
    async fn until_none(&self, what: &str, sql: &str) {
        let started = Instant::now();
        loop {
            let left = self.count(sql).await;
            if left == 0 {
                return;
            }
            if started.elapsed() > DEADLINE {
                panic!("{left} {what} after {DEADLINE:?}{}", diagnosis::of(&self.pool).await);
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Whether everything adds up, with the report.
    pub(crate) async fn verify(&self) -> verify::Report {
        verify::look(&self.connections).await.unwrap()
    }

    pub(crate) async fn assert_verified(&self) {
        let report = self.verify().await;
        assert!(report.ok, "{}", serde_json::to_string_pretty(&report).unwrap());
    }
}

/// The body of an order.
pub(crate) fn order_of(user: &User, lines: &[(Uuid, i32)]) -> Value {
    json!({"user_id": user.id, "lines": lines_of(lines)})
}

/// Lines as a body has them.
pub(crate) fn lines_of(lines: &[(Uuid, i32)]) -> Value {
    let line = |(product_id, quantity): &(Uuid, i32)| json!({"product_id": product_id, "quantity": quantity});
    lines.iter().map(line).collect()
}

pub(crate) fn id(value: &Value) -> Uuid {
    value.as_str().unwrap_or_else(|| panic!("{value} is no id")).parse().unwrap()
}

/// Status and JSON body of an answer.
pub(crate) async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (status, body)
}

/// The address of the same database for a user whose password is the name.
pub(crate) fn as_user(database_url: &str, name: &str) -> String {
    let (_, server) = database_url.rsplit_once('@').unwrap();
    format!("postgres://{name}:{name}@{server}")
}

/// A pipe whose reader has gone, as `head` has once it has its lines.
pub(crate) fn closed_pipe() -> PipeWriter {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer
}

/// A file with a wire secret of its own.
pub(crate) fn new_wire_secret(directory: &Path) -> PathBuf {
    let file = directory.join("wire.secret");
    fs::write(&file, RootSecret::generate().unwrap().file()).unwrap();
    file
}

/// Stops a process as an operator does, and expects it to end well.
pub(crate) fn stop(child: &Child) {
    let status = child.stop(Signal::SIGTERM, Duration::from_secs(30)).unwrap();
    assert!(status.success(), "{status}: {}", child.output());
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
