//! `ordermill up --secure`: over TLS all goes on as before, and whoever is not let in, or may not do something, is refused.

use std::fs;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use ordermill_pipeline::clock::Clock;
use ordermill_stack::{
    Certificates, Gateway, GatewayOptions, Quiet, Scratch, Signal, free_port, sibling_program,
};
use ordermill_workers::{GatewayConfig, GatewayHttp};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::message::Message as _;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection as _, PgConnection};

use crate::support::{DEADLINE, ORDERMILL, Shop, id, until};
use crate::up::{END_WITHIN, POINTERS, Up, assert_private, refusal, run, text};

/// A secure stack on data that was made without a word of security, with an order of that time.
struct Secure {
    // The order of the fields is that of their dropping.
    up: Up,
    order: Value,
    /// The directory of another installation's certificates.
    others: Certificates,
    scratches: [Scratch; 2],
}

/// The one that the tests share.
fn secure() -> &'static Secure {
    static SECURE: LazyLock<Secure> = LazyLock::new(|| {
        let scratches = [Scratch::new().unwrap(), Scratch::new().unwrap()];
        let (data_dir, port) = (scratches[0].path().join("data"), free_port().unwrap());
        let up = Up::start_with(&data_dir, port, &[]);
        // The test that asks first stands in a runtime of its own.
        let order = thread::scope(|scope| {
            let order = || tokio::runtime::Runtime::new().unwrap().block_on(up.order());
            scope.spawn(order).join().unwrap()
        });
        let status = up.process.stop(Signal::SIGTERM, END_WITHIN).unwrap();
        assert_eq!(status.code(), Some(0), "{}", up.process.output());
        let up = Up::start_with(&data_dir, port, &["--secure"]);
        let others = Certificates::keep(scratches[1].path(), SystemTime::now()).unwrap();
        Secure { up, order, others, scratches }
    });
    &SECURE
}

impl Secure {
    fn of_stack_file(&self, name: &str) -> String {
        let file = self.up.stack_file();
        file[name].as_str().unwrap_or_else(|| panic!("no {name}: {file}")).to_owned()
    }

    fn password(&self, user: &str) -> String {
        let file = Path::new(&self.of_stack_file("kafka_users")).join(format!("{user}.password"));
        fs::read_to_string(file).unwrap().trim().to_owned()
    }

    /// A client of Kafka that logs in as that user.
    fn client_of(&self, user: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.of_stack_file("kafka_brokers"))
            .set("security.protocol", "SASL_SSL")
            .set("ssl.ca.location", self.of_stack_file("ca_file"))
            .set("sasl.mechanism", "SCRAM-SHA-512")
            .set("sasl.username", user)
            .set("sasl.password", self.password(user))
            .set("message.timeout.ms", "20000");
        config
    }

    /// What a process is told that finds everything by variables: as the user `relay`, with those changes.
    fn variables(&self, changes: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("DATABASE_URL", self.of_stack_file("database_url")),
            ("KAFKA_BROKERS", self.of_stack_file("kafka_brokers")),
            ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL".to_owned()),
            ("KAFKA_CA_FILE", self.of_stack_file("ca_file")),
            ("KAFKA_USERNAME", "relay".to_owned()),
            ("KAFKA_PASSWORD", self.password("relay")),
            ("ORDERMILL_GATEWAY_URL", self.of_stack_file("gateway_url")),
            ("ORDERMILL_GATEWAY_CA_FILE", self.of_stack_file("ca_file")),
            ("ORDERMILL_WIRE_SECRET_FILE", self.of_stack_file("wire_secret_file")),
        ];
        variables.extend(changes.iter().map(|(name, value)| (*name, (*value).to_owned())));
        variables
    }

    /// Runs a command that is to be refused, and answers its exit code and its last line.
    async fn refused(&self, arguments: &[&str], changes: &[(&'static str, &str)]) -> (Option<i32>, String) {
        let mut command = tokio::process::Command::new(ORDERMILL);
        command.args(arguments).args(["--log-format", "text"]).kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            if POINTERS.iter().any(|pointer| name.to_string_lossy().starts_with(pointer)) {
                command.env_remove(name);
            }
        }
        let nowhere = self.scratches[1].path().join("nowhere");
        command.envs(self.variables(changes)).env("ORDERMILL_DATA_DIR", nowhere);
        let output = tokio::time::timeout(DEADLINE, command.output()).await;
        let output = output.expect("it ends in time").unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), told.lines().last().unwrap_or_default().to_owned())
    }
}

/// Sends a record to the topic `orders`, and answers why that was refused, if it was.
async fn send(config: &ClientConfig) -> Option<Code> {
    let producer: FutureProducer = config.create().unwrap();
    let record = FutureRecord::<(), _>::to("orders").partition(0).payload("forged");
    match producer.send(record, DEADLINE).await {
        Ok(_) => None,
        Err((error, _)) => error.rdkafka_error_code(),
    }
}

/// Whether the first record of `orders` can be read.
fn reads(config: &ClientConfig, group: &str) -> bool {
    let mut config = config.clone();
    // The real members of the group are at work.
    config.set("group.id", group).set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset("orders", 0, Offset::Beginning).unwrap();
    consumer.assign(&partitions).unwrap();
    let started = Instant::now();
    while started.elapsed() < DEADLINE {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => return message.offset() == 0 && message.payload().is_some(),
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    false
}

/// Joins a group, and answers why that was refused.
fn joins(config: &ClientConfig, group: &str) -> Option<Code> {
    let consumer: BaseConsumer = config.clone().set("group.id", group).create().unwrap();
    consumer.subscribe(&["orders"]).unwrap();
    let started = Instant::now();
    let mut refusal = None;
    while refusal.is_none() && started.elapsed() < DEADLINE {
        if let Some(Err(error)) = consumer.poll(Duration::from_millis(100)) {
            refusal = error.rdkafka_error_code().filter(|code| *code == Code::GroupAuthorizationFailed);
        }
    }
    // One that is in no group may take its time to leave it.
    thread::spawn(move || drop(consumer));
    refusal
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_without_tls_goes_on_with_it_and_verify_finds_all_well() {
    let secure = secure();
    assert_eq!(secure.up.find(id(&secure.order["order_id"])).await, secure.order);
    let order = secure.up.order().await;
    assert_eq!(order["status"], "CONFIRMED", "{order}");
    assert!(secure.of_stack_file("gateway_url").starts_with("https://127.0.0.1:"));
    assert!(secure.of_stack_file("database_url").contains("?sslmode=verify-full&sslrootcert="));
    let data_dir = text(&secure.up.data_dir);
    let output = run(ORDERMILL, &["verify", "--data-dir", data_dir, "--json"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &report["ok"]), (Some(0), &json!(true)), "{report:#}{told}");
    // As the operator, who may make topics; and as the owner, who may say who may do what.
    for arguments in [&["topics"][..], &["topics", "access", "--reader", "partner"]] {
        let output = run(ORDERMILL, &[arguments, &["--data-dir", data_dir]].concat()).await;
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(told.contains("partner may read topic orders\n"), arguments.len() > 1, "{told}");
    }
    assert_private(&secure.up.data_dir).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_does_not_answer_who_comes_without_tls() {
    let brokers = secure().of_stack_file("kafka_brokers");
    let asked = tokio::task::spawn_blocking(move || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers);
        let consumer: BaseConsumer = config.create().unwrap();
        consumer.fetch_metadata(None, Duration::from_secs(5)).is_err()
    });
    assert!(asked.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_an_unknown_user_end_a_process_at_its_start_with_what_to_do() {
    for changes in [&[("KAFKA_PASSWORD", "open sesame")][..], &[("KAFKA_USERNAME", "nobody")]] {
        let (code, line) = secure().refused(&["relay"], changes).await;
        assert_eq!(code, Some(1), "{line}");
        assert!(line.contains("does not let the user") && line.contains("check KAFKA_USERNAME"), "{line}");
        assert!(!line.contains("sesame"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_trusts_another_ca_or_none_does_not_start() {
    let others = secure().others.ca_file();
    let (code, line) = secure().refused(&["relay"], &[("KAFKA_CA_FILE", text(&others))]).await;
    assert_eq!(code, Some(1), "{line}");
    assert!(
        line.contains("there is no TLS with Kafka") && line.contains("check that KAFKA_CA_FILE"),
        "{line}"
    );
    let (code, line) = secure().refused(&["relay"], &[("KAFKA_CA_FILE", "/no/such/file")]).await;
    assert_eq!(code, Some(1), "{line}");
    assert!(line.contains("can't read /no/such/file"), "{line}");
    // Of this one the gateway's certificate is not.
    let (code, line) = secure()
        .refused(
            &["verify"],
            &[
                ("ORDERMILL_GATEWAY_CA_FILE", text(&others)),
                ("KAFKA_USERNAME", "api"),
                ("KAFKA_PASSWORD", &secure().password("api")),
            ],
        )
        .await;
    assert_eq!(code, Some(2), "{line}");
    assert!(
        line.contains("the gateway does not answer") && line.contains("invalid peer certificate"),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_outside_reads_by_the_settings_that_it_finds_and_does_nothing_else() {
    let secure = secure();
    let settings = Path::new(&secure.of_stack_file("kafka_users")).join("reader.conf");
    let settings = fs::read_to_string(settings).unwrap();
    let pairs = settings.lines().map(|line| line.split_once('=').unwrap());
    let mut config: ClientConfig = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    config.set("message.timeout.ms", "20000");
    assert_eq!(send(&config).await, Some(Code::TopicAuthorizationFailed));
    let looked = move || (reads(&config, "reader-of-the-tests"), joins(&config, "stock"));
    let (reads, joins) = tokio::task::spawn_blocking(looked).await.unwrap();
    assert!(reads);
    assert_eq!(joins, Some(Code::GroupAuthorizationFailed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workers_user_and_the_apis_read_and_can_not_write() {
    for user in ["worker", "api"] {
        let config = secure().client_of(user);
        assert_eq!(send(&config).await, Some(Code::TopicAuthorizationFailed), "{user}");
    }
    let config = secure().client_of("worker");
    assert!(tokio::task::spawn_blocking(move || reads(&config, "stock")).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_refuses_who_comes_without_tls_and_is_refused_by_who_trusts_another_ca() {
    let options = PgConnectOptions::from_str(&secure().of_stack_file("database_url")).unwrap();
    PgConnection::connect_with(&options).await.unwrap().close().await.unwrap();
    let error = PgConnection::connect_with(&options.clone().ssl_mode(PgSslMode::Disable)).await.unwrap_err();
    assert!(error.to_string().contains("no encryption"), "{error}");
    let error =
        PgConnection::connect_with(&options.ssl_root_cert(secure().others.ca_file())).await.unwrap_err();
    assert!(matches!(error, sqlx::Error::Tls(_) | sqlx::Error::Io(_)), "{error:?}");
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_there_already_are_not_secured() {
    let scratch = Scratch::new().unwrap();
    let (data_dir, port) = (scratch.path().join("data"), free_port().unwrap().to_string());
    let up = ["up", "--secure", "--data-dir", text(&data_dir), "--port", &port];
    let line = refusal(1, &[&up[..], &["--database-url", "postgres://127.0.0.1:1/x"]].concat()).await;
    assert!(line.contains("--secure") && line.contains("DATABASE_URL"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_ask_no_gateway_whose_certificate_is_of_another_ca_and_the_order_waits_for_the_right_one() {
    let (scratch, elsewhere) = (Scratch::new().unwrap(), Scratch::new().unwrap());
    let right = Certificates::keep(scratch.path(), SystemTime::now()).unwrap();
    let wrong = Certificates::keep(elsewhere.path(), SystemTime::now()).unwrap();
    let program = sibling_program("ordermill-gateway").unwrap();
    let options = GatewayOptions { tls: Some(right.gateway()), ..GatewayOptions::default() };
    let gateway = Gateway::start(&program, scratch.path(), options, &Quiet).unwrap();
    let believed_by = |of: &Certificates| GatewayConfig::new(&gateway.url()).believed_by(Some(of.ca_file()));
    let charges = GatewayHttp::new(&gateway.url(), Some(&right.ca_file()), DEADLINE).unwrap();
    let charges = async || {
        let charges = charges.get::<Value>(&format!("{}/charges", gateway.url()), DEADLINE).await;
        charges.unwrap().unwrap()["items"].as_array().unwrap().len()
    };

    let shop = Shop::new().await;
    let running = shop.open_with(Clock::system(), believed_by(&wrong)).await;
    let (user, lamp) = (shop.user(1_000).await, shop.product(100, 5).await);
    let order = shop.submit(&user, &[(lamp, 1)]).await;
    until("the gateway was called", async || {
        shop.metric("ordermill_gateway_answers_total{answer=\"UNKNOWN\"}").await >= Some(1.0)
    })
    .await;
    running.stop().await;
    assert_eq!(charges().await, 0);

    let running = shop.open_with(Clock::system(), believed_by(&right)).await;
    let order = shop.settled(id(&order["order_id"])).await;
    assert_eq!(order["status"], "CONFIRMED", "{order}");
    assert_eq!(charges().await, 1);
    running.stop().await;
}
