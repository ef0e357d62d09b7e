//! The golden log and its documents in a database: what is changed there by hand is found, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use ordermill_pipeline::audit::{self, Slice};
use ordermill_pipeline::journal::{Keys, Lock, load};
use ordermill_schemas::Event;
use ordermill_stack::TestStack;
use ordermill_store::replay::moment::{self, State};
use ordermill_store::replay::shadow::{self, Shadow};
use ordermill_store::replay::swap::{self, Basis};
use ordermill_store::replay::{Difference, Fold, Pass, Side, Totals, What, last_page, sales, tables};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};
use uuid::Uuid;

use crate::golden::{Golden, Leaf, leaves};

/// A database with the golden log and the golden documents.
pub(crate) async fn database(golden: &Golden) -> PgPool {
    let url = TestStack::shared().await.fresh_database().await;
    let pool = PgPool::connect(&url).await.unwrap();
    ordermill_store::migrations::run(&pool).await.unwrap();
    let mut connection = pool.acquire().await.unwrap();
    fill_log(&mut connection, golden).await;
    // The rules of the tables would refuse most forgeries.
    run(&mut connection, "DO $$ DECLARE rule record; BEGIN
             FOR rule IN SELECT conrelid::regclass AS of, conname FROM pg_constraint
                 WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f', 'u') AND conrelid <> 0
             LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I CASCADE', rule.of, rule.conname);
             END LOOP; END $$; DELETE FROM coupons").await;
    for (table, key, row) in golden.all_rows() {
        let insert = format!(
            "INSERT INTO {table} (key, version, state, bulk)
             SELECT $2::uuid, 3, $1 -> 'state', nullif($1 -> 'bulk', 'null')"
        );
        sqlx::query(AssertSqlSafe(insert)).bind(row).bind(key).execute(&mut *connection).await.unwrap();
    }
    sqlx::query("INSERT INTO sales SELECT * FROM jsonb_populate_recordset(NULL::sales, $1)")
        .bind(json!(golden.sales))
        .execute(&mut *connection)
        .await
        .unwrap();
    pool
}

async fn fill_log(connection: &mut PgConnection, golden: &Golden) {
    let words: Vec<&str> =
        golden.log.iter().flat_map(|logged| [logged.topic.as_str(), &logged.event_type]).collect();
    let write = sqlx::query("INSERT INTO log_word (word) SELECT DISTINCT unnest($1::text[])").bind(words);
    write.execute(&mut *connection).await.unwrap();
    let mut sequences = BTreeMap::new();
    for logged in &golden.log {
        let event = logged.event::<Event>().unwrap();
        let sequence: &mut i32 = sequences.entry((event.topic(), event.aggregate_id())).or_default();
        *sequence += 1;
        sqlx::query(
            "INSERT INTO log_segment (number, at, events, about, event_id, aggregate_id, sequence, topic, type, version,
                 partition, key, actor, trace, data) OVERRIDING SYSTEM VALUE
             SELECT $1::bigint / 100000, $2::text::timestamptz, 1, ARRAY[$4::uuid], ARRAY[$3], ARRAY[$4], ARRAY[$7], ARRAY[t.code],
                 ARRAY[y.code], ARRAY[$8], '{0}', ARRAY[$9], ARRAY[t.code], decode(repeat('00', 25), 'hex'), ARRAY[$10]
             FROM log_word t, log_word y WHERE t.word = $5 AND y.word = $6",
        )
        .bind(logged.position)
        .bind(logged.at.to_string())
        .bind(logged.event_id)
        .bind(event.aggregate_id())
        .bind(&logged.topic)
        .bind(&logged.event_type)
        .bind(*sequence)
        .bind(logged.version)
        .bind(event.key())
        .bind(&logged.data)
        .execute(&mut *connection)
        .await
        .unwrap();
    }
    let upto = golden.seen_by_orders;
    let offsets = format!(
        "INSERT INTO consumer_offset (group_name, topic, partition, label_position)
         SELECT 'orders', topic, 0, {upto} FROM unnest('{{stock,payments,coupons}}'::text[]) AS topic
         UNION ALL SELECT 'sales', 'orders', 0, 100000000"
    );
    run(connection, &offsets).await;
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.unwrap();
}

/// What `verify` and `replay --check` find.
async fn differences(connection: &mut PgConnection) -> Vec<Difference> {
    let applied = audit::applied(&mut *connection, "orders").await.unwrap();
    let mut found = sales::differences(&mut *connection, "sales").await.unwrap();
    let mut totals = Totals::default();
    for fold in [Fold::of_aggregates(Slice::ALL, &applied), Fold::of_user_coupons(Slice::ALL, &applied)] {
        let mut pass = Pass::begin(&mut *connection, fold).await.unwrap().compared();
        while let Some(page) = pass.next(&mut *connection).await.unwrap() {
            assert!(page.undecodable.is_empty());
        }
        let (counted, of_pass) = pass.finish();
        found.extend(of_pass);
        totals.add(counted);
    }
    found.extend(last_page(connection, totals, true).await.unwrap().1);
    found.differences
}

/// Sets one value of a row.
async fn forge(connection: &mut PgConnection, table: &str, key: &str, leaf: &Leaf) {
    let mut path = leaf.pointer[1..].split('/');
    let column = path.next().unwrap();
    let path = path.collect::<Vec<_>>().join(",");
    let forged = leaf.forged.to_string().replace('\'', "''");
    let set = format!("{column} = jsonb_set({column}::jsonb, '{{{path}}}', '{forged}')");
    run(connection, &format!("UPDATE {table} SET {set} WHERE key = '{key}'")).await;
}

#[tokio::test]
async fn whatever_is_changed_in_a_table_by_hand_is_told_with_its_row_and_its_path() {
    let golden = Golden::read();
    let pool = database(&golden).await;
    let mut connection = pool.acquire().await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    let told: Vec<String> = differences(&mut transaction).await.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{told:#?}");
    transaction.rollback().await.unwrap();
    for round in 0.. {
        // A round forges one value of each row that has so many.
        let mut transaction = connection.begin().await.unwrap();
        let mut forged = Vec::new();
        for (table, key, row) in golden.all_rows() {
            let Some(leaf) = leaves(row).into_iter().nth(round) else { continue };
            forge(&mut transaction, table, key, &leaf).await;
            forged.push(format!("{table} {key}: {} is ", leaf.path));
        }
        if forged.is_empty() {
            break;
        }
        let told = differences(&mut transaction).await;
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        for name in &forged {
            // Who owns a row that is not his any more may have had to do without it.
            let row = name.split(": ").next().unwrap_or_default();
            let names = |line: &&String| {
                line.starts_with(name) || line.starts_with(row) && line.contains("not in the")
            };
            assert!(told.iter().any(|line| names(&line)), "{name}: {told:#?}");
        }
        let rows: std::collections::BTreeSet<_> = told.iter().map(|line| line.split(": ").next()).collect();
        assert_eq!(rows.len(), forged.len(), "{told:#?}");
        transaction.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn rows_that_are_missing_or_too_many_are_told_in_every_table() {
    let golden = Golden::read();
    let pool = database(&golden).await;
    let mut connection = pool.acquire().await.unwrap();
    for table in tables().filter(|table| table.name != "sales") {
        let (name, key) = (table.name, table.key[0]);
        let mut transaction = connection.begin().await.unwrap();
        // As the log makes it, under another key.
        let change = format!(
            "UPDATE {name} SET {key} = gen_random_uuid() WHERE {key} = (SELECT {key} FROM {name} ORDER BY 1 LIMIT 1)"
        );
        run(&mut transaction, &change).await;
        let told = differences(&mut transaction).await;
        let mut told: Vec<_> = told.into_iter().map(|d| (d.table, d.what)).collect();
        told.sort_by_key(|(_, what)| *what == What::OnlyIn(Side::Log));
        assert_eq!(told, [Side::Table, Side::Log].map(|side| (name, What::OnlyIn(side))));
        transaction.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn the_shadow_has_the_golden_documents_and_its_summary_counts_them() {
    let golden = Golden::read();
    let pool = database(&golden).await;
    let mut connection = pool.acquire().await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    let mut writer = pool.acquire().await.unwrap();
    let shadow = Shadow::make(&mut writer).await.unwrap();
    let [orders, sales] = [
        audit::applied(&mut transaction, "orders").await.unwrap(),
        audit::applied(&mut transaction, "sales").await.unwrap(),
    ];
    let folds = [
        Fold::of_aggregates(Slice::ALL, &orders).with_sales(&sales),
        Fold::of_user_coupons(Slice::ALL, &orders),
    ];
    let mut totals = Totals::default();
    for fold in folds {
        let mut pass = Pass::begin(&mut transaction, fold).await.unwrap();
        while let Some(page) = pass.next(&mut transaction).await.unwrap() {
            shadow.write(&mut writer, page).await.unwrap();
        }
        totals.add(pass.finish().0);
    }
    let (page, _) = last_page(&mut transaction, totals, false).await.unwrap();
    shadow.write(&mut writer, page).await.unwrap();
    for table in tables() {
        let rows = |schema: &str| format!("SELECT to_jsonb(t) - 'version' FROM {schema}.{} AS t", table.name);
        let [live, shadow] = [rows("public"), rows("replay")];
        let differing = format!(
            "SELECT count(*) FROM (({live} EXCEPT {shadow}) UNION ALL ({shadow} EXCEPT {live})) AS rows"
        );
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(differing)).fetch_one(&mut *writer).await.unwrap();
        assert_eq!(count, 0, "{}", table.name);
    }
    let summary = serde_json::to_value(shadow::summary(&mut writer).await.unwrap()).unwrap();
    let of = |name: &str| summary.as_array().unwrap().iter().find(|table| table["table"] == name).unwrap();
    assert_eq!(of("orders")["by_state"]["REJECTED"], 5);
    assert_eq!(of("stock")["sums"], json!({"on_hand": 43, "reserved": 10, "deducted": 16, "received": 69}));
    assert_eq!(of("balances")["sums"], json!({"available": 96_818, "held": 667}));
    assert_eq!(of("payments")["by_state"], json!({"COMPLETED": 5, "FAILED": 4, "REQUESTED": 2}));
    assert_eq!(of("payments")["sums"]["refunded"], 334 + 1_333 + 4_117);
    assert_eq!(of("sales")["sums"]["orders"], 6);
}

#[tokio::test]
async fn the_entries_of_balances_are_their_events() {
    let golden = Golden::read();
    let pool = database(&golden).await;
    let entries: Vec<Value> = sqlx::query_scalar(
        "SELECT to_jsonb(e) - 'about' FROM balance_entries AS e ORDER BY created_at, entry_id",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(entries, golden.entries);
}

#[tokio::test]
async fn every_kind_of_aggregate_is_seen_as_its_document_is_and_as_it_was() {
    let golden = Golden::read();
    let pool = database(&golden).await;
    let mut snapshot = audit::snapshot(&pool).await.unwrap();
    let last = golden.log.last().unwrap().at;
    let names = ordermill_domain::kinds().map(|kind| (kind.name, kind.noun));
    for (kind, table) in names.chain([("user", "balances")]) {
        for (key, row) in golden.rows(table) {
            let mut document = row["state"].as_object().unwrap().clone();
            if !row["bulk"].is_null() {
                let member = if table == "orders" { "purchase" } else { "lines" };
                document.insert(member.to_owned(), row["bulk"].clone());
            }
            let subject = format!("{kind}:{key}").parse().unwrap();
            let state = moment::state_at(&mut snapshot, subject, last, &golden.applied()).await.unwrap();
            assert_eq!(state, State::Known(document), "{subject}");
        }
    }
    let order: Uuid = golden.rows("orders").keys().next().unwrap().parse().unwrap();
    let placed =
        golden.log.iter().find(|logged| logged.event::<Event>().unwrap().aggregate_id() == order).unwrap().at;
    let subject = format!("order:{order}").parse().unwrap();
    let state = moment::state_at(&mut snapshot, subject, placed, &golden.applied()).await.unwrap();
    assert!(matches!(&state, State::Known(order) if order["status"] == "PENDING"), "{state:?}");
    let before = golden.log[0].at;
    let state = moment::state_at(&mut snapshot, subject, before, &golden.applied()).await.unwrap();
    assert_eq!(state, State::BeginsAt(placed));
}

#[tokio::test]
async fn sales_that_were_changed_by_hand_are_told_and_swapped_for_those_of_the_log() {
    let golden = Golden::read();
    let pool = database(&golden).await;
    let mut connection = pool.acquire().await.unwrap();
    run(&mut connection, "UPDATE sales SET revenue = revenue + 1 WHERE level = 'ALL'; DELETE FROM sales WHERE level = 'CATEGORY';
         INSERT INTO relay_cursor (system_identifier, partitions, position) VALUES (1, 1, 100000000)").await;
    let found = sales::differences(&mut connection, "sales").await.unwrap();
    assert!(
        found
            .differences
            .iter()
            .any(|d| d.to_string().starts_with("sales ALL at ") && d.to_string().contains(": revenue is "))
    );
    let shadow = Shadow::make(&mut connection).await.unwrap();
    let mut basis = Basis::begin(&mut connection, "sales").await.unwrap();
    let (_, events) = swap::events(&mut connection, 0).await.unwrap().unwrap();
    for logged in events {
        let mut sums = ordermill_domain::sales::Sums::default();
        basis.take(logged, &mut sums).unwrap();
        shadow.add_sales(&mut connection, &sums).await.unwrap();
    }
    let mut transaction = connection.begin().await.unwrap();
    let swapped = swap::put_in_place(&mut transaction, &shadow, basis, "sales").await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!((swapped.removed, swapped.written), (0, 6));
    let rows: Vec<Value> =
        sqlx::query_scalar("SELECT to_jsonb(t) FROM sales AS t").fetch_all(&pool).await.unwrap();
    assert_eq!(rows.len(), golden.sales.len());
    assert!(golden.sales.iter().all(|row| rows.contains(row)));
}

#[tokio::test]
async fn keys_that_follow_from_documents_are_the_same_in_memory_as_in_the_database() {
    let golden = Golden::read();
    let pool = database(&golden).await;
    let (mut connection, mut followed) = (pool.acquire().await.unwrap(), 0);
    for table in ordermill_store::tables() {
        let Some(follows) = &table.follows else { continue };
        for key in golden.rows(follows.of).keys() {
            let keys = Keys::of(follows.of, key.parse().unwrap());
            let loaded = load(&mut connection, ordermill_store::tables(), &keys, Lock::None).await.unwrap();
            let of = |name| loaded.documents.iter().filter(move |document| document.table == name);
            let in_database: BTreeSet<Uuid> = of(table.name).map(|document| document.key).collect();
            let in_memory: BTreeSet<Uuid> =
                of(follows.of).flat_map(|document| (follows.keys.0)(document)).collect();
            assert_eq!(in_memory, in_database, "{} from {} {key}", table.name, follows.of);
            followed += in_memory.len();
        }
    }
    assert!(followed > 0);
}

#[test]
fn what_is_part_of_an_aggregate_names_one_that_there_is() {
    for kind in ordermill_domain::kinds() {
        let whole = kind.part_of.map(|whole| ordermill_domain::kinds().any(|kind| kind.noun == whole));
        assert_ne!(whole, Some(false), "{}", kind.noun);
    }
}
