//! Which tables each role may see and write, and what nobody may.

use std::collections::BTreeSet;

use ordermill_domain::aggregate::Documents;
use ordermill_domain::capability::Capability;
use ordermill_domain::kinds;
use ordermill_store::database_roles::DatabaseRole;
use sqlx::PgPool;

use crate::{assert_refused, connection_as, pool, run};

/// What is only ever added to.
const APPEND_ONLY: [&str; 3] = ["dead_letter_audit", "log_segment", "log_word"];

/// A table or view.
struct Relation {
    name: String,
    is_view: bool,
    /// Those that may be given a value.
    columns: Vec<String>,
}

impl Relation {
    /// A statement that would change the column, of no row.
    fn change(&self, column: &str) -> String {
        format!("UPDATE {} SET \"{column}\" = NULL WHERE false", self.name)
    }
}

/// All that the migrations have made, but for their own table.
async fn relations(pool: &PgPool) -> Vec<Relation> {
    let rows: Vec<(String, bool, Vec<String>)> = sqlx::query_as(
        "SELECT c.relname::text, c.relkind = 'v',
             array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.attgenerated = '' AND a.attidentity = '')
         FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v') AND c.relname <> '_sqlx_migrations'
         GROUP BY c.oid, c.relname, c.relkind ORDER BY 1",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    rows.into_iter().map(|(name, is_view, columns)| Relation { name, is_view, columns }).collect()
}

/// The tables of state that a worker has.
fn own_tables(role: DatabaseRole) -> BTreeSet<&'static str> {
    macro_rules! own {
        ($($noun:ident $Name:ident $(($($parts:tt)+))?;)+) => {
            [$((
                DatabaseRole::Worker(<ordermill_domain::$noun::$Name as Capability>::TOPIC.name()),
                <ordermill_domain::$noun::$Name as Documents>::KINDS,
            )),+]
        };
    }
    let own = ordermill_schemas::capabilities!(own).into_iter().filter(|(worker, _)| *worker == role);
    own.flat_map(|(_, kinds)| kinds).map(|kind| kind.noun).collect()
}

/// The tables that a role may write in any way.
fn written_by(role: DatabaseRole) -> BTreeSet<&'static str> {
    let letters =
        ["dead_letter", "dead_letter_replay", "dead_letter_replay_item", "halted_group", "parked_key"];
    let work = ["heartbeat", "log_segment", "log_word"];
    let mut tables = own_tables(role);
    match role {
        DatabaseRole::Api => tables.extend(letters.iter().chain(&[
            "api_keys",
            "balances",
            "coupon_claims",
            "coupons",
            "dead_letter_audit",
            "idempotency_keys",
            "log_segment",
            "log_word",
            "notes",
            "orders",
            "products",
            "shipments",
            "stock",
            "user_coupons",
            "users",
        ])),
        DatabaseRole::Relay => {
            tables.extend([
                "heartbeat",
                "log_place",
                "log_word",
                "relay_checkpoint",
                "relay_cursor",
                "wire_key",
            ]);
        }
        DatabaseRole::Operator => tables.extend(letters.iter().chain(&[
            "api_keys",
            "consumer_offset",
            "dead_letter_audit",
            "relay_cursor",
            "sales",
            "users",
            "wire_key",
        ])),
        DatabaseRole::Worker("timers") => {
            tables.extend(work.iter().chain(&["coupon_uses", "orders", "user_coupons"]));
        }
        DatabaseRole::Worker(name) => {
            tables.extend(letters.iter().chain(&work).chain(&["consumer_offset", "relay_cursor"]));
            match name {
                "payments" => tables.extend(["gateway_lease"]),
                "sales" => tables.extend(["sales"]),
                _ => {}
            }
        }
    }
    tables
}

/// The tables that a role may take rows from.
fn emptied_by(role: DatabaseRole) -> BTreeSet<&'static str> {
    let tables: &[&str] = match role {
        DatabaseRole::Api => &["idempotency_keys", "notes", "parked_key"],
        DatabaseRole::Relay | DatabaseRole::Worker("timers") => &["heartbeat"],
        DatabaseRole::Operator => &["parked_key", "sales"],
        DatabaseRole::Worker("payments") => &["gateway_lease", "heartbeat", "parked_key"],
        DatabaseRole::Worker(_) => &["heartbeat", "parked_key"],
    };
    tables.iter().copied().collect()
}

/// The tables and views that a role may see anything of.
fn seen_by(role: DatabaseRole) -> BTreeSet<&'static str> {
    let mut seen = written_by(role);
    seen.extend(["event_history", "event_log", "log_segment", "log_word", "relay_cursor", "wire_key"]);
    match role {
        DatabaseRole::Api | DatabaseRole::Operator => {
            seen.extend(kinds().map(|kind| kind.noun));
            seen.extend(["balance_entries", "consumer_offset", "heartbeat", "log_place", "notes", "sales"]);
        }
        DatabaseRole::Worker("payments") => seen.extend(["orders"]),
        DatabaseRole::Relay | DatabaseRole::Worker(_) => {}
    }
    seen
}

#[tokio::test]
async fn whatever_a_role_was_not_given_it_may_neither_see_nor_write() {
    let pool = pool().await;
    let relations = relations(&pool).await;
    for role in DatabaseRole::all() {
        let mut connection = connection_as(&pool, role).await;
        for relation in &relations {
            let Relation { name, is_view, columns } = relation;
            if !seen_by(role).contains(name.as_str()) {
                assert_refused(&mut connection, role, &format!("SELECT FROM {name} LIMIT 0")).await;
            }
            if *is_view {
                continue;
            }
            assert_refused(&mut connection, role, &format!("TRUNCATE {name} CASCADE")).await;
            if !emptied_by(role).contains(name.as_str()) {
                assert_refused(&mut connection, role, &format!("DELETE FROM {name} WHERE false")).await;
            }
            if !written_by(role).contains(name.as_str()) {
                assert_refused(&mut connection, role, &format!("INSERT INTO {name} DEFAULT VALUES")).await;
                for column in columns {
                    assert_refused(&mut connection, role, &relation.change(column)).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn what_a_role_is_said_to_see_and_to_write_it_may() {
    const MAY: &str = "SELECT coalesce(bool_and(CASE $3
            WHEN 'see' THEN has_any_column_privilege($1::name, t::regclass, 'SELECT')
            WHEN 'take' THEN has_table_privilege($1::name, t::regclass, 'DELETE')
            ELSE has_any_column_privilege($1::name, t::regclass, 'INSERT, UPDATE') END), true)
        FROM unnest($2::text[]) AS t";
    let pool = pool().await;
    for role in DatabaseRole::all() {
        for (what, tables) in
            [("see", seen_by(role)), ("write", written_by(role)), ("take", emptied_by(role))]
        {
            let listed: Vec<&str> = tables.iter().copied().collect();
            let may = sqlx::query_scalar(MAY).bind(role.to_string()).bind(&listed).bind(what);
            let may: bool = may.fetch_one(&pool).await.unwrap();
            assert!(may, "{role} may not {what} all of {tables:?}");
        }
    }
}

/// A new table is of no use to anybody until `grants.sql` says whose it is; of a capability it is known.
#[tokio::test]
async fn every_table_and_view_is_given_to_somebody() {
    let pool = pool().await;
    let given: BTreeSet<&str> = DatabaseRole::all().flat_map(seen_by).collect();
    let names: Vec<String> = relations(&pool).await.into_iter().map(|relation| relation.name).collect();
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(names, given);
}

#[tokio::test]
async fn nobody_changes_or_removes_what_the_log_and_the_audit_have() {
    let pool = pool().await;
    let guarded: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE tgfoid = 'refuse_change'::regproc ORDER BY 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(
        guarded,
        ["dead_letter_audit", "log_segment"],
        "what a trigger guards is guarded by privilege as well"
    );
    let relations = relations(&pool).await;
    for role in DatabaseRole::all() {
        let mut connection = connection_as(&pool, role).await;
        for relation in relations.iter().filter(|relation| APPEND_ONLY.contains(&relation.name.as_str())) {
            for column in &relation.columns {
                assert_refused(&mut connection, role, &relation.change(column)).await;
            }
            for way in ["DELETE FROM", "TRUNCATE"] {
                assert_refused(&mut connection, role, &format!("{way} {}", relation.name)).await;
            }
        }
        // Neither is given by whoever adds to the log.
        for chosen in [
            "INSERT INTO log_segment (xid) VALUES ('1')",
            "INSERT INTO log_segment (number) OVERRIDING SYSTEM VALUE VALUES (1)",
            "INSERT INTO log_word (code) OVERRIDING SYSTEM VALUE VALUES (1)",
            "SELECT nextval('log_segment_number_seq')",
            "SELECT setval('log_segment_number_seq', 1)",
        ] {
            assert_refused(&mut connection, role, chosen).await;
        }
    }
}

#[tokio::test]
async fn nobody_makes_changes_or_drops_tables_nor_gets_around_what_guards_them() {
    let pool = pool().await;
    for role in DatabaseRole::all() {
        let mut connection = connection_as(&pool, role).await;
        for statement in [
            "CREATE TABLE public.mine (id integer)",
            "CREATE TEMPORARY TABLE mine (id integer)",
            "CREATE SCHEMA mine",
            "CREATE FUNCTION public.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
            "CREATE INDEX ON log_segment (at)",
            "CREATE TRIGGER mine BEFORE INSERT ON orders FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
            "ALTER TABLE log_segment DISABLE TRIGGER ALL",
            "DROP TRIGGER log_segment_is_append_only ON log_segment",
            "ALTER TABLE orders DROP CONSTRAINT orders_add_up",
            "DROP TABLE dead_letter_audit",
            "ALTER TABLE log_segment OWNER TO CURRENT_USER",
            "CREATE ROLE mine",
            "SET session_replication_role = replica",
            "DO $$ BEGIN LOCK TABLE log_segment IN SHARE MODE; END $$",
            "COPY log_segment TO PROGRAM 'true'",
        ] {
            assert_refused(&mut connection, role, statement).await;
        }
        let shadow = "CREATE TABLE replay.mine (id integer)";
        match role {
            DatabaseRole::Operator => run(&mut connection, shadow).await.unwrap(),
            _ => assert_refused(&mut connection, role, shadow).await,
        }
    }
}

#[tokio::test]
async fn whoever_edits_a_letter_can_not_say_that_it_came_otherwise() {
    let pool = pool().await;
    let letters = "DELETE FROM dead_letter;
        INSERT INTO dead_letter (dead_letter_id, group_name, topic, partition, record_offset, headers, payload, authentic, attempts,
            code, error, first_failed_at, last_failed_at)
        SELECT gen_random_uuid(), 'stock', 'orders', 0, ordinal, '[]', payload, true, 1, 'RULE', '', now(), now()
        FROM unnest(ARRAY['as it came'::bytea, NULL]) WITH ORDINALITY AS l (payload, ordinal)";
    for role in [DatabaseRole::Api, DatabaseRole::Operator] {
        sqlx::raw_sql(letters).execute(&pool).await.unwrap();
        let mut connection = connection_as(&pool, role).await;
        for (change, is_kept) in [
            ("payload = 'forged'", false),
            ("payload = 'forged', edited = true, original_payload = 'forged, too'", false),
            ("payload = 'forged', edited = true, original_payload = payload", true),
            ("payload = original_payload, edited = false, original_payload = NULL", false),
            ("original_payload = payload", false),
            ("payload = 'again'", true),
            ("payload = 'again', edited = true", true),
            ("state = 'DISCARDED'", true),
        ] {
            let answer = run(&mut connection, &format!("UPDATE dead_letter SET {change}")).await;
            match answer {
                Ok(()) => assert!(is_kept, "{role}: {change}"),
                Err(error) => assert!(!is_kept && error.to_string().contains("keeps what it was"), "{error}"),
            }
        }
        let originals = sqlx::query_scalar("SELECT original_payload FROM dead_letter ORDER BY record_offset");
        let originals: Vec<Option<Vec<u8>>> = originals.fetch_all(&pool).await.unwrap();
        assert_eq!(originals, [Some(b"as it came".to_vec()), None], "{role}");
    }
}

#[tokio::test]
async fn names_and_keys_are_seen_by_those_alone_who_need_them() {
    let pool = pool().await;
    for role in DatabaseRole::all() {
        let mut connection = connection_as(&pool, role).await;
        let may = |allowed: &[DatabaseRole]| allowed.contains(&role);
        for (statement, is_allowed) in [
            ("SELECT name, email FROM users", may(&[DatabaseRole::Api])),
            ("SELECT words FROM notes", may(&[DatabaseRole::Api, DatabaseRole::Operator])),
            ("SELECT key_hash FROM api_keys", may(&[DatabaseRole::Api, DatabaseRole::Operator])),
            ("SELECT body FROM idempotency_keys", may(&[DatabaseRole::Api])),
        ] {
            match is_allowed {
                true => run(&mut connection, statement).await.unwrap(),
                false => assert_refused(&mut connection, role, statement).await,
            }
        }
        // What a letter was stays as it came, whoever works it: whether it is authentic, where it lay, what its headers say.
        for column in ["authentic", "headers", "record_key", "topic", "group_name", "event_id"] {
            let change = format!("UPDATE dead_letter SET {column} = {column} WHERE false");
            assert_refused(&mut connection, role, &change).await;
        }
    }
}
