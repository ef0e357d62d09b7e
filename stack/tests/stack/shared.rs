//! The stack that all tests of a process share.

use ordermill_stack::TestStack;
use sqlx::{Connection, PgConnection};

async fn use_it() {
    let stack = TestStack::shared().await;
    let url = stack.fresh_database().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(tables, 0);
    assert_ne!(stack.fresh_prefix(), stack.fresh_prefix());
    assert!(std::ptr::eq(stack, TestStack::shared().await));
}

#[tokio::test]
async fn a_first_test_has_a_database_of_its_own() {
    use_it().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_test_with_another_runtime_has_one_too() {
    use_it().await;
}
