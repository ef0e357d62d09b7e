//! Setting roles up: again, side by side, by whoever may not, and how what is lacking is told.

use std::str::FromStr as _;

use ordermill_pipeline::database::{self, NOT_ALLOWED, Told};
use ordermill_stack::{Private, TestStack};
use ordermill_store::database_roles::{self, DatabaseRole, Lacking, RolesError, workers};
use ordermill_store::migrations;
use ordermill_store::replay::shadow::{self, Shadow};
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use uuid::Uuid;

use crate::{assert_refused, connection_as, migrated, pool, run};

#[tokio::test]
async fn what_a_role_has_been_given_besides_is_taken_away_when_roles_are_set_up_again() {
    let pool = pool().await;
    let given =
        "GRANT DELETE ON orders TO ordermill_relay; GRANT UPDATE (data) ON log_segment TO ordermill_api;
        GRANT CREATE ON SCHEMA public TO ordermill_operator";
    sqlx::raw_sql(given).execute(&pool).await.unwrap();
    database_roles::set_up(&pool).await.unwrap();
    for (role, statement) in [
        (DatabaseRole::Relay, "DELETE FROM orders WHERE false"),
        (DatabaseRole::Api, "UPDATE log_segment SET data = NULL WHERE false"),
        (DatabaseRole::Operator, "CREATE TABLE public.mine (id integer)"),
    ] {
        assert_refused(&mut connection_as(&pool, role).await, role, statement).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_everybody_or_the_role_of_a_former_worker_has_been_given_is_taken_away_as_well() {
    // Roles belong to the cluster.
    let postgres = Private::postgres().unwrap();
    let pool = migrated(&postgres.url("postgres")).await;
    let former = DatabaseRole::Worker("former");
    let given = "CREATE ROLE ordermill_worker_former;
        GRANT SELECT, INSERT (data) ON log_segment TO ordermill_worker_former;
        GRANT USAGE ON SEQUENCE log_segment_number_seq TO ordermill_worker_former;
        GRANT SELECT ON users TO PUBLIC";
    sqlx::raw_sql(given).execute(&pool).await.unwrap();
    database_roles::set_up(&pool).await.unwrap();
    for (role, statement) in [
        (former, "SELECT FROM log_segment"),
        (former, "INSERT INTO log_segment (data) VALUES (NULL)"),
        (former, "SELECT nextval('log_segment_number_seq')"),
        (DatabaseRole::Relay, "SELECT FROM users"),
    ] {
        assert_refused(&mut connection_as(&pool, role).await, role, statement).await;
    }
}

#[tokio::test]
async fn who_may_not_what_a_part_must_is_told_so_and_members_and_owner_lack_nothing() {
    let pool = pool().await;
    let without = migrated(&TestStack::shared().await.fresh_database().await).await;
    let (orders, stock) = (DatabaseRole::Worker("orders"), DatabaseRole::Worker("stock"));
    let user = format!("u{}", Uuid::new_v4().simple());
    let make = format!("CREATE USER {user} IN ROLE {stock}");
    sqlx::raw_sql(AssertSqlSafe(make)).execute(&pool).await.unwrap();
    let mut connection = pool.acquire().await.unwrap().detach();
    run(&mut connection, &format!("SET SESSION AUTHORIZATION {user}")).await.unwrap();
    assert_eq!(database_roles::lacking(&mut connection, stock).await.unwrap(), None);
    let lacking = database_roles::lacking(&mut connection, orders).await.unwrap();
    assert_eq!(lacking, Some(Lacking { user: user.clone(), privilege: "INSERT on orders".to_owned() }));
    let refused = run(&mut connection, "DELETE FROM orders").await.unwrap_err();
    let told = Told(&refused).to_string();
    assert!(told.contains("permission denied for table orders") && told.ends_with(NOT_ALLOWED), "{told}");
    for role in DatabaseRole::all() {
        assert_eq!(database_roles::lacking(&pool, role).await.unwrap(), None, "the owner: {role}");
    }
    // Where nobody was given anything, nothing is said to be lacking.
    let mut connection = without.acquire().await.unwrap().detach();
    run(&mut connection, &format!("SET SESSION AUTHORIZATION {user}")).await.unwrap();
    assert_eq!(database_roles::lacking(&mut connection, orders).await.unwrap(), None);
}

#[tokio::test]
async fn operators_and_owner_make_the_shadow_one_after_the_other_whoever_has_made_it_before() {
    let pool = pool().await;
    let mut users = Vec::new();
    for _ in 0..2 {
        let user = format!("u{}", Uuid::new_v4().simple());
        let make = format!("CREATE USER {user} IN ROLE {}", DatabaseRole::Operator);
        sqlx::raw_sql(AssertSqlSafe(make)).execute(&pool).await.unwrap();
        users.push(user);
    }
    let mut connection = pool.acquire().await.unwrap().detach();
    for user in [Some(&users[0]), Some(&users[1]), None, Some(&users[0])] {
        let become_user = user.map_or_else(|| "DEFAULT".to_owned(), String::clone);
        run(&mut connection, &format!("SET SESSION AUTHORIZATION {become_user}")).await.unwrap();
        // What operators leave there would be done with the rights of the owner.
        assert_eq!(shadow::is_a_trap(&mut connection).await.unwrap(), user.is_none());
        Shadow::make(&mut connection).await.unwrap();
        // What others have made of it goes with it.
        for change in [
            "CREATE VIEW replay.late AS SELECT key FROM replay.orders",
            "CREATE MATERIALIZED VIEW replay.kept AS SELECT 1 AS n",
            "CREATE TABLE replay.numbered (n integer GENERATED ALWAYS AS IDENTITY)",
            "CREATE TABLE replay.parted (n integer) PARTITION BY LIST (n)",
            "CREATE SEQUENCE replay.numbers",
            "DROP TABLE replay.stock",
            "CREATE VIEW replay.stock AS SELECT 1 AS n",
        ] {
            run(&mut connection, change).await.unwrap();
        }
    }
    run(&mut connection, "SET SESSION AUTHORIZATION DEFAULT; DROP SCHEMA replay CASCADE").await.unwrap();
    Shadow::make(&mut connection).await.unwrap();
    assert!(!shadow::is_a_trap(&mut connection).await.unwrap(), "it is the owner's alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_of_one_cluster_are_set_up_side_by_side() {
    let postgres = Private::postgres().unwrap();
    let admin = database::connect(&postgres.url("postgres"), "test", 2).await.unwrap();
    let mut pools = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let create = format!("CREATE DATABASE {name} TEMPLATE template0");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&admin).await.unwrap();
        pools.push(migrated(&postgres.url(name)).await);
    }
    let [a, b, c, d] = pools.as_slice() else { unreachable!("there are four") };
    // The roles are new to the cluster at first, and there later. In one database two may come together as well.
    for _ in 0..2 {
        let all = tokio::join!(
            database_roles::set_up(a),
            database_roles::set_up(b),
            database_roles::set_up(c),
            database_roles::set_up(d),
            database_roles::set_up(a),
        );
        for sees_sessions in [all.0, all.1, all.2, all.3, all.4] {
            assert!(sees_sessions.unwrap());
        }
    }
    for pool in &pools {
        for role in workers() {
            let mut connection = connection_as(pool, role).await;
            run(&mut connection, "SELECT FROM relay_cursor").await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_who_may_not_make_roles_is_told_what_to_do_and_goes_on_once_it_is_done() {
    let postgres = Private::postgres().unwrap();
    let admin = database::connect(&postgres.url("postgres"), "test", 2).await.unwrap();
    for statement in
        ["CREATE USER shop PASSWORD 'shop'", "CREATE DATABASE shop OWNER shop TEMPLATE template0"]
    {
        sqlx::raw_sql(statement).execute(&admin).await.unwrap();
    }
    let options = PgConnectOptions::from_str(&postgres.url("shop")).unwrap();
    let owner = options.username("shop").password("shop");
    let owner = PgPoolOptions::new().connect_with(owner).await.unwrap();
    migrations::run(&owner).await.unwrap();
    let refused = database_roles::set_up(&owner).await.unwrap_err();
    assert!(matches!(&refused, RolesError::NotMade { user, .. } if user == "shop"), "{refused}");
    assert!(refused.to_string().contains("`ordermill roles --print`"), "{refused}");
    let script = sqlx::raw_sql(AssertSqlSafe(database_roles::script()));
    let as_superuser = database::connect(&postgres.url("shop"), "test", 2).await.unwrap();
    script.execute(&as_superuser).await.unwrap();
    assert!(database_roles::set_up(&owner).await.unwrap(), "it is done already");
    let mut connection = owner.acquire().await.unwrap().detach();
    Shadow::make(&mut connection).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_owns_the_tables_and_not_the_database_is_told_what_is_left_to_be_taken_away() {
    let postgres = Private::postgres().unwrap();
    let admin = database::connect(&postgres.url("postgres"), "test", 2).await.unwrap();
    let shop = "CREATE USER shop PASSWORD 'shop' CREATEROLE;
        GRANT CREATE ON DATABASE postgres TO shop; GRANT CREATE ON SCHEMA public TO shop";
    sqlx::raw_sql(shop).execute(&admin).await.unwrap();
    let options = PgConnectOptions::from_str(&postgres.url("postgres")).unwrap();
    let owner = options.username("shop").password("shop");
    let owner = PgPoolOptions::new().connect_with(owner).await.unwrap();
    migrations::run(&owner).await.unwrap();
    let refused = database_roles::set_up(&owner).await.unwrap_err();
    let RolesError::NotGranted { source, .. } = &refused else { panic!("{refused}") };
    let told = source.to_string();
    assert!(
        told.contains("REVOKE CREATE, TEMPORARY ON DATABASE postgres FROM PUBLIC, ordermill_api"),
        "{told}"
    );
    sqlx::raw_sql(AssertSqlSafe(database_roles::script())).execute(&admin).await.unwrap();
    database_roles::set_up(&owner).await.unwrap();
    let mut connection = connection_as(&admin, DatabaseRole::Api).await;
    assert_refused(&mut connection, DatabaseRole::Api, "CREATE TEMPORARY TABLE mine (id integer)").await;
}
