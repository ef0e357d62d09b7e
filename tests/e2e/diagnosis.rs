//! What a shop that does not come to rest looks like: a test that fails on a machine of somebody else's must tell by itself.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Mutex, Once, PoisonError};

use sqlx::PgPool;
use tracing_subscriber::EnvFilter;

use crate::support::Shop;

/// What is logged unless `RUST_LOG` says otherwise.
const LOGGED: &str = "warn,ordermill_pipeline=info,librdkafka=off,rdkafka=off";
/// So many of the last lines are kept; tests that run at the same time write into the same log.
const LINES_MAX: usize = 200;

static LINES: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Keeps the last lines of what this process logs. Where `RUST_LOG` is set they are also shown at once.
pub(crate) fn keep_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED));
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(|| Lines).init();
    });
}

/// Takes whole lines: the formatter writes each event at once.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(String::from_utf8_lossy(line).into_owned());
        if std::env::var_os("RUST_LOG").is_some() {
            io::stderr().write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the tables say of whatever is not at rest, each with the query of its rows.
const LOOKS: [(&str, &str); 6] = [
    (
        "orders that are not at rest",
        "SELECT key, status, state -> 'round' AS round, to_timestamp((state ->> 'deadline_at')::bigint / 1e6) AS deadline_at \
         FROM orders WHERE status NOT IN ('REJECTED', 'CONFIRMED', 'CANCELLED', 'PARTIALLY_SHIPPED', 'SHIPPED', \
             'DELIVERED')",
    ),
    ("the relay", "SELECT * FROM relay_cursor"),
    (
        "partitions that a group has not applied to their end",
        "SELECT o.*, c.tails -> o.topic -> o.partition AS published FROM consumer_offset o, relay_cursor c \
         WHERE o.label_position < (c.tails -> o.topic -> o.partition ->> 0)::bigint",
    ),
    ("signs of life", "SELECT role, instance, now() - at AS age FROM heartbeat"),
    ("dead letters", "SELECT group_name, topic, partition, code, error, state FROM dead_letter"),
    (
        "open transactions",
        "SELECT pid, application_name, state, now() - xact_start AS age, query FROM pg_stat_activity \
         WHERE xact_start IS NOT NULL AND datname = current_database() AND pid <> pg_backend_pid()",
    ),
];

/// The tables and the last lines of the log, for the message of a test that fails.
pub(crate) async fn of(pool: &PgPool) -> String {
    let tables = tables(pool).await;
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let lines: String = lines.iter().map(String::as_str).collect();
    format!("{tables}\nthe last lines of the log, of all tests of this process:\n{lines}")
}

async fn tables(pool: &PgPool) -> String {
    let mut text = String::new();
    for (what, query) in LOOKS {
        let rows = format!("SELECT coalesce(jsonb_pretty(jsonb_agg(t)), 'none') FROM ({query} LIMIT 20) t");
        let rows: Result<String, _> = sqlx::query_scalar(sqlx::AssertSqlSafe(rows)).fetch_one(pool).await;
        text += &format!("\n{what}: {}", rows.unwrap_or_else(|error| error.to_string()));
    }
    text
}

#[tokio::test]
async fn of_a_shop_in_which_nothing_runs_every_table_is_told() {
    let shop = Shop::new().await;
    let text = tables(&shop.pool).await;
    for expected in ["orders that are not at rest: none", "\"era\": 1", "dead letters: none"] {
        assert!(text.contains(expected), "{text}");
    }
    assert!(!text.contains("error returned from database"), "{text}");
}
