//! Documents of state tables, changed by hand.

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

/// A second in the times of documents.
pub(crate) const SECOND: i64 = 1_000_000;
/// A day in the times of documents.
pub(crate) const DAY: i64 = 86_400 * SECOND;

/// Changes of one row's document, made by one statement. A path is written as PostgreSQL does: `charges,0,amount`.
#[derive(Clone, Debug)]
pub(crate) struct Forgery {
    table: &'static str,
    pub(crate) key: Uuid,
    state: String,
    bulk: String,
}

impl Forgery {
    /// A change of that row, which changes nothing yet.
    pub(crate) fn of(table: &'static str, key: Uuid) -> Forgery {
        Forgery { table, key, state: "state".to_owned(), bulk: "bulk::jsonb".to_owned() }
    }

    /// Adds to a number; where it is 0, it need not have been there.
    pub(crate) fn add(self, path: &str, delta: i64) -> Forgery {
        self.set_to(path, &format!("to_jsonb(coalesce((state #>> '{{{path}}}')::bigint, 0) + {delta})"))
    }

    /// Sets a member, which need not have been there.
    pub(crate) fn set(self, path: &str, value: impl Into<Value>) -> Forgery {
        self.set_to(path, &literal(value))
    }

    /// Sets a member to what an expression over the row makes, as jsonb.
    pub(crate) fn set_to(mut self, path: &str, expression: &str) -> Forgery {
        self.state = format!("jsonb_set({}, '{{{path}}}', {expression})", self.state);
        self
    }

    /// Takes a member away.
    pub(crate) fn unset(mut self, path: &str) -> Forgery {
        self.state = format!("({} #- '{{{path}}}')", self.state);
        self
    }

    /// Takes a member of the bulk away.
    pub(crate) fn unset_in_bulk(mut self, path: &str) -> Forgery {
        self.bulk = format!("({} #- '{{{path}}}')", self.bulk);
        self
    }

    /// Sets a member of the bulk: `lines,0,quantity`.
    pub(crate) fn set_in_bulk(mut self, path: &str, value: impl Into<Value>) -> Forgery {
        self.bulk = format!("jsonb_set({}, '{{{path}}}', {})", self.bulk, literal(value));
        self
    }

    /// Adds to a number of the bulk.
    pub(crate) fn add_in_bulk(mut self, path: &str, delta: i64) -> Forgery {
        let sum = format!("to_jsonb((bulk #>> '{{{path}}}')::bigint + {delta})");
        self.bulk = format!("jsonb_set({}, '{{{path}}}', {sum})", self.bulk);
        self
    }

    /// The statement that makes the changes.
    pub(crate) fn statement(&self) -> String {
        let Forgery { table, key, state, bulk } = self;
        format!("UPDATE {table} SET state = {state}, bulk = ({bulk})::json WHERE key = '{key}'")
    }

    /// Makes the changes for good.
    pub(crate) async fn make(&self, pool: &PgPool) {
        let made = sqlx::query(AssertSqlSafe(self.statement())).execute(pool).await.unwrap();
        assert_eq!(made.rows_affected(), 1, "{self:?}");
    }
}

fn literal(value: impl Into<Value>) -> String {
    format!("'{}'::jsonb", value.into().to_string().replace('\'', "''"))
}
