//! `ordermill up` as a user runs it: from nothing to an order, to the end, and again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use ordermill_stack::{Child, Program, Scratch, Signal, TestStack, free_port};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::{DEADLINE, ORDERMILL, answer, id, new_wire_secret};

/// Variables by which the tests, or whoever runs them, may point to other servers than those that `up` starts.
pub(crate) const POINTERS: [&str; 3] = ["DATABASE_URL", "KAFKA_", "ORDERMILL_"];
/// How long everything may take to end on a busy machine.
pub(crate) const END_WITHIN: Duration = Duration::from_secs(60);

/// A stack that runs.
pub(crate) struct Up {
    pub(crate) process: Child,
    pub(crate) data_dir: PathBuf,
    port: u16,
    key: String,
}

impl Up {
    /// Starts it and waits until it says how to go on.
    fn start(data_dir: &Path, port: u16) -> Up {
        Up::start_with(data_dir, port, &[])
    }

    /// The same with further flags.
    pub(crate) fn start_with(data_dir: &Path, port: u16, flags: &[&str]) -> Up {
        let log = data_dir.with_extension(format!("{}.log", Uuid::new_v4().simple()));
        let mut program = Program::new("ordermill up", ORDERMILL, log).arg("up");
        for pointer in POINTERS {
            program = program.without_env_prefix(pointer);
        }
        let program = program.arg("--data-dir").arg(data_dir).args(["--port", &port.to_string()]);
        let process = program.args(flags.iter().copied()).start().unwrap();
        let address = process.wait_for_line("Ordermill is ready at ", DEADLINE).unwrap();
        assert!(address.starts_with(&format!("http://127.0.0.1:{port} ")), "{address}");
        process.wait_for_line("Ctrl-C stops everything", DEADLINE).unwrap();
        let key = fs::read_to_string(data_dir.join("admin.key")).unwrap().trim().to_owned();
        Up { process, data_dir: data_dir.to_owned(), port, key }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let client = Client::builder().no_proxy().timeout(DEADLINE).build().unwrap();
        let request = client
            .request(method, format!("http://127.0.0.1:{}/v1{path}", self.port))
            .bearer_auth(&self.key)
            .header("Idempotency-Key", Uuid::new_v4().to_string())
            .header("Prefer", "wait=30");
        answer(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(Method::POST, path, Some(body)).await;
        assert!(status.is_success(), "POST {path}: {status} {answer}");
        answer
    }

    /// A first order, at rest.
    pub(crate) async fn order(&self) -> Value {
        let lamp =
            json!({"name": "Lamp", "description": "", "category": "light", "price": 12_000, "stock": 5});
        let lamp = id(&self.post("/products", lamp).await["product_id"]);
        let kim = json!({"name": "Kim", "email": format!("{}@example.com", Uuid::new_v4().simple())});
        let kim = id(&self.post("/users", kim).await["user_id"]);
        self.post(&format!("/users/{kim}/balance/charges"), json!({"amount": 50_000})).await;
        self.post("/orders", json!({"user_id": kim, "lines": [{"product_id": lamp, "quantity": 2}]})).await
    }

    pub(crate) async fn find(&self, order_id: Uuid) -> Value {
        let (status, order) = self.ask(Method::GET, &format!("/orders/{order_id}"), None).await;
        assert_eq!(status, StatusCode::OK, "{order}");
        order
    }

    pub(crate) fn stack_file(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.data_dir.join("stack.json")).unwrap()).unwrap()
    }

    /// Expects that everything has ended and only the data is left.
    fn assert_gone(&self) {
        assert!(!self.data_dir.join("stack.json").exists());
        assert_eq!(processes_of(&self.data_dir), Vec::<u32>::new(), "{}", self.process.output());
    }
}

/// The stack of those tests that leave it running.
fn running() -> &'static Up {
    static RUNNING: LazyLock<(Scratch, Up)> = LazyLock::new(|| {
        let scratch = Scratch::new().unwrap();
        let up = Up::start(&scratch.path().join("data"), free_port().unwrap());
        (scratch, up)
    });
    &RUNNING.1
}

/// Runs a command to its end.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> Output {
    let pointers = std::env::vars_os()
        .filter(|(name, _)| POINTERS.iter().any(|pointer| name.to_string_lossy().starts_with(pointer)));
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    for (name, _) in pointers {
        command.env_remove(name);
    }
    tokio::time::timeout(DEADLINE, command.output()).await.expect("the command ends in time").unwrap()
}

/// Runs `ordermill`, and expects it to end with that exit code and one line.
pub(crate) async fn refusal(code: i32, arguments: &[&str]) -> String {
    let output = run(ORDERMILL, arguments).await;
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert!(line.starts_with("ordermill: ") && line.lines().count() == 1, "{line}");
    assert!(output.stdout.is_empty());
    line
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The live processes that work in a data directory or were told of it: a zombie has no command line.
fn processes_of(data_dir: &Path) -> Vec<u32> {
    let ids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|process_id| {
        let process = PathBuf::from(format!("/proc/{process_id}"));
        let works_there = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(data_dir));
        let command_line = fs::read(process.join("cmdline")).unwrap_or_default();
        works_there || String::from_utf8_lossy(&command_line).contains(text(data_dir))
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stack_file_says_where_everything_is_and_only_its_owner_reads_it() {
    let up = running();
    let file = up.stack_file();
    assert_eq!(file["api_url"], format!("http://127.0.0.1:{}", up.port));
    assert!(file["gateway_url"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{file}");
    assert!(file["database_url"].as_str().unwrap().starts_with("postgres://"), "{file}");
    assert!(file["kafka_brokers"].as_str().unwrap().starts_with("127.0.0.1:"), "{file}");
    assert_eq!((&file["topic_prefix"], file.as_object().unwrap().len()), (&json!(""), 7));
    assert_eq!(file["admin_key_file"], text(&up.data_dir.join("admin.key")));
    assert_eq!(file["wire_secret_file"], text(&up.data_dir.join("wire.secret")));
    for secret in ["stack.json", "admin.key", "callback.secret", "wire.secret"] {
        let mode = up.data_dir.join(secret).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    let pool = PgPool::connect(file["database_url"].as_str().unwrap()).await.unwrap();
    let balances = "SELECT key AS user_id, available, held FROM public.balances LIMIT 1";
    sqlx::query(balances).fetch_optional(&pool).await.unwrap();
}

/// Expects that nobody but its owner may do anything with what is in a data directory, nor look into it.
pub(crate) async fn assert_private(data_dir: &Path) {
    for look in [&["-mindepth", "1", "!", "-type", "l", "-perm", "/077"][..], &["-prune", "-perm", "/066"]] {
        // Files come and go meanwhile, of which it complains.
        let found = run("find", &[&[text(data_dir)][..], look].concat()).await;
        assert_eq!(String::from_utf8(found.stdout).unwrap(), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_in_the_data_directory_is_its_owners_alone() {
    let up = running();
    assert_eq!(up.order().await["status"], "CONFIRMED");
    for made in ["kafka/data", "kafka/kafka.log", "gateway-ledger.jsonl", "postgres.log", "kafka.run"] {
        assert!(up.data_dir.join(made).exists(), "{made}");
    }
    assert_private(&up.data_dir).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_order_is_confirmed_and_verify_finds_the_stack_by_its_data_directory() {
    let up = running();
    let order = up.order().await;
    assert_eq!(order["status"], "CONFIRMED", "{order}");
    let output = run(ORDERMILL, &["verify", "--data-dir", text(&up.data_dir), "--json"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["ok"]), (Some(0), &json!(true)), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_in_the_data_directory_is_that_of_the_administrator_up() {
    let up = running();
    let output = run(ORDERMILL, &["keys", "list", "--data-dir", text(&up.data_dir), "--json"]).await;
    let keys: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [key] = &keys.as_array().unwrap()[..] else { panic!("{keys:#}") };
    assert_eq!((&key["name"], &key["state"]), (&json!("up"), &json!("VALID")));
    assert!(!keys.to_string().contains(&up.key), "{keys:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_up_is_told_in_one_line_who_has_the_port_or_the_data() {
    let (up, scratch) = (running(), Scratch::new().unwrap());
    let (port, free) = (up.port.to_string(), free_port().unwrap().to_string());
    let elsewhere = scratch.path().join("data");
    let line = refusal(1, &["up", "--data-dir", text(&elsewhere), "--port", &port]).await;
    assert!(line.contains(&format!("127.0.0.1:{port}")) && line.contains("choose another port"), "{line}");
    let line = refusal(1, &["up", "--data-dir", text(&up.data_dir), "--port", &free]).await;
    let owner = format!("{} is in use by process {}", up.data_dir.display(), up.process.pid());
    assert!(line.contains(&owner) && line.contains("choose another data directory"), "{line}");
    assert_eq!(up.stack_file()["api_url"], format!("http://127.0.0.1:{port}"), "the first is left alone");
    assert_eq!(up.order().await["status"], "CONFIRMED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_a_stack_says_how_to_get_one() {
    let scratch = Scratch::new().unwrap();
    // To `verify`, 1 would mean that it has looked and found something.
    let line = refusal(2, &["verify", "--data-dir", text(scratch.path())]).await;
    assert!(line.contains("start one with `ordermill up`"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_utf_8_is_refused_by_migrate_and_up_before_anything_is_written() {
    let (stack, scratch) = (TestStack::shared().await, Scratch::new().unwrap());
    let (secret, data_dir) = (new_wire_secret(scratch.path()), scratch.path().join("data"));
    let port = free_port().unwrap().to_string();
    // Where nothing listens: what is given is not started.
    let elsewhere = ["--kafka-brokers", "127.0.0.1:1", "--gateway-url", "http://127.0.0.1:1"];
    for encoding in ["SQL_ASCII", "LATIN1"] {
        let url = stack.fresh_database_with(&format!("ENCODING '{encoding}' LOCALE 'C'")).await;
        let migrate = ["migrate", "--wire-secret-file", text(&secret), "--database-url", url.as_str()];
        let up = ["up", "--data-dir", text(&data_dir), "--port", port.as_str()];
        let up = [&up[..], &migrate[3..], &elsewhere[..]].concat();
        for arguments in [&migrate[..], &up[..]] {
            let output = run(ORDERMILL, arguments).await;
            let told = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{told}");
            let line = told.lines().last().unwrap();
            assert!(line.contains(&format!("the encoding of the database is {encoding}")), "{told}");
            assert!(line.contains("ENCODING 'UTF8' TEMPLATE template0"), "it says what to do: {told}");
        }
        let pool = PgPool::connect(&url).await.unwrap();
        let written = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
        let written: i64 = sqlx::query_scalar(written).fetch_one(&pool).await.unwrap();
        assert_eq!(written, 0, "{encoding}");
    }
}

/// The blocks marked `sh` in one section of a document, as one script.
fn script_of(document: &str, heading: &str) -> String {
    let section = document.split_once(&format!("\n{heading}\n")).expect("the section is there").1;
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_order_of_the_readme_is_confirmed_modified_and_cancelled() {
    let up = running();
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let script =
        script_of(&readme, "## A first order") + &script_of(&readme, "## Changing and cancelling it");
    assert!(script.contains("127.0.0.1:8080") && script.contains(".ordermill/"), "{script}");
    let script = script
        .replace("127.0.0.1:8080", &format!("127.0.0.1:{}", up.port))
        .replace(".ordermill/", &format!("{}/", text(&up.data_dir)));
    // What whoever runs the tests has set must not lead the script elsewhere.
    let script =
        format!("set -euo pipefail; unset API KEY; export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1\n{script}");
    let output = run("bash", &["-c", &script]).await;
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && errors.is_empty(), "{told}{errors}");
    assert!(told.contains("\"status\": \"CONFIRMED\""), "{told}");
    assert!(told.contains("order.placed") && told.contains("order.confirmed"), "{told}");
    assert!(told.contains("26000\n3\n"), "{told}");
    assert!(told.contains("\"status\": \"APPLIED\"") && told.contains("\"total\": 36000"), "{told}");
    assert!(told.contains("\"status\": \"CANCELLED\"") && told.contains("\"refunded\": 36000"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_stops_everything_and_the_next_up_finds_the_order_until_postgresql_is_killed() {
    let scratch = Scratch::new().unwrap();
    let (data_dir, port) = (scratch.path().join("data"), free_port().unwrap());
    let up = Up::start(&data_dir, port);
    let order = up.order().await;
    assert_eq!(order["status"], "CONFIRMED", "{order}");
    assert!(processes_of(&data_dir).len() > 3, "the look for processes sees the servers while they run");
    let status = up.process.stop(Signal::SIGINT, END_WITHIN).unwrap();
    assert_eq!(status.code(), Some(0), "{}", up.process.output());
    up.assert_gone();

    // An earlier version has left open what is not PostgreSQL's.
    let parts = ["kafka", "kafka.run", "postgres.run", "gateway.run", "gateway-ledger.jsonl"];
    let parts = parts.map(|part| data_dir.join(part));
    let opened: Vec<&str> = parts.iter().map(|part| text(part)).collect();
    assert!(run("chmod", &[&["-R", "go+rX"][..], &opened[..]].concat()).await.status.success());
    assert!(run("chmod", &["go+rx", text(&data_dir)]).await.status.success());
    let up = Up::start(&data_dir, port);
    assert_private(&data_dir).await;
    assert_eq!(up.find(id(&order["order_id"])).await, order);
    assert_eq!(up.order().await["status"], "CONFIRMED");
    let noted = fs::read_to_string(data_dir.join("postgres.run")).unwrap();
    let server = noted.lines().find_map(|line| line.strip_prefix("child ")?.split(' ').next()).unwrap();
    assert!(run("kill", &["-9", server]).await.status.success());
    let status = up.process.wait(END_WITHIN).expect("up ends in time");
    let output = up.process.output();
    assert_eq!(status.code(), Some(1), "{output}");
    let last = output.lines().last().unwrap();
    assert!(last.starts_with("ordermill: PostgreSQL has stopped; its log is "), "{output}");
    up.assert_gone();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_up_whose_wire_secret_was_lost_makes_another_and_goes_on() {
    let scratch = Scratch::new().unwrap();
    let (data_dir, port) = (scratch.path().join("data"), free_port().unwrap());
    let up = Up::start(&data_dir, port);
    let order = up.order().await;
    assert_eq!(
        up.process.stop(Signal::SIGTERM, END_WITHIN).unwrap().code(),
        Some(0),
        "{}",
        up.process.output()
    );
    fs::remove_file(data_dir.join("wire.secret")).unwrap();
    let up = Up::start(&data_dir, port);
    assert_eq!(up.find(id(&order["order_id"])).await, order);
    assert_eq!(up.order().await["status"], "CONFIRMED");
    assert!(up.process.output().contains("what still matters is published again"), "{}", up.process.output());
    assert_eq!(up.process.stop(Signal::SIGTERM, END_WITHIN).unwrap().code(), Some(0));
}
