use ordermill_api::{BalanceEntry, KafkaPlace, RequestView};
use serde_json::json;
use uuid::Uuid;

use super::*;

fn event(sequence: u32, event_type: &str, after_ms: i64) -> TimelineEvent {
    TimelineEvent {
        sequence,
        r#type: event_type.to_owned(),
        at: Timestamp::from_millisecond(1_000_000 + after_ms).unwrap(),
        actor: "worker:stock".to_owned(),
        request: None,
        trace_id: None,
        data: json!({}),
        log_position: i64::from(sequence) * 10,
        topic: "stock".to_owned(),
        partition: 3,
        published: true,
        kafka: None,
        read_by: Vec::new(),
        event_id: Uuid::from_u128(sequence.into()),
        cause_id: None,
        cause_sequence: None,
        gateway: None,
        balance_entry: None,
        dead_letter: None,
        put_aside: Vec::new(),
    }
}

fn lines(items: &[TimelineEvent]) -> Vec<String> {
    Story::default().next(items).lines().map(str::to_owned).collect()
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn an_event_is_a_line_that_says_when_where_and_why() {
    let mut reserved = event(2, "stock.reserved", 12);
    reserved.cause_id = Some(Uuid::from_u128(1));
    reserved.cause_sequence = Some(1);
    reserved.kafka = Some(KafkaPlace { topic: "stock".to_owned(), partition: 3, offset: 128 });
    let lines = lines(&[event(1, "order.placed", 0), reserved]);
    assert_eq!(words(&lines[0]), TITLES);
    assert_eq!(
        words(&lines[2]),
        [
            "2",
            "1970-01-01",
            "00:16:40.012",
            "12",
            "stock.reserved",
            "worker:stock",
            "20",
            "stock/3@128",
            "#1",
            "order.placed"
        ]
    );
    assert_eq!(lines[1].find("worker"), lines[2].find("worker"), "the columns stand below one another");
}

#[test]
fn a_place_says_how_far_it_is_known() {
    let mut unsent = event(2, "stock.released", 0);
    unsent.published = false;
    let lines = lines(&[event(1, "stock.reserved", 0), unsent]);
    assert!(lines[1].contains("stock/3@?") && lines[2].contains("stock/3, not yet sent"), "{lines:?}");
}

#[test]
fn what_belongs_to_an_event_stands_below_it() {
    let mut captured = event(1, "balance.captured", 0);
    captured.request = Some(RequestView { request_id: Uuid::from_u128(5), route: Some("POST /v1/orders") });
    captured.balance_entry = Some(BalanceEntry {
        entry_id: Uuid::from_u128(1),
        kind: "USED".to_owned(),
        amount: 500,
        balance_after: 1_500,
        created_at: Timestamp::UNIX_EPOCH,
    });
    let attempt = GatewayAttempt {
        at: Timestamp::UNIX_EPOCH,
        call: "CHARGE".to_owned(),
        outcome: "UNKNOWN: timed out".to_owned(),
        took_ms: 3_000,
    };
    captured.gateway = Some(Gateway {
        charge_ids: vec![Uuid::from_u128(7)],
        refund_ids: vec![Uuid::from_u128(8)],
        attempts: vec![attempt],
    });
    captured.read_by = vec!["orders".to_owned(), "sales".to_owned()];
    captured.data =
        json!({"failure": {"code": "OUT_OF_STOCK", "detail": "two are left"}, "reason": "a\u{1b}[2J"});
    let lines = lines(&[captured]);
    let expected = [
        format!("request {}: POST /v1/orders", Uuid::from_u128(5)),
        "failure: OUT_OF_STOCK, two are left".to_owned(),
        r"reason: a\u{1b}[2J".to_owned(),
        format!("gateway: charge {}", Uuid::from_u128(7)),
        format!("gateway: refund {}", Uuid::from_u128(8)),
        "gateway: attempt 1 at 00:00:00.000: CHARGE UNKNOWN: timed out, 3000 ms".to_owned(),
        "balance: USED 500, 1500 after it".to_owned(),
        "done with it: orders, sales".to_owned(),
    ];
    let expected: Vec<String> = expected.iter().map(|line| format!("{INDENT}{line}")).collect();
    assert_eq!(lines[2..], expected);
}

#[test]
fn a_story_that_goes_on_is_told_from_where_it_was() {
    let (first, second) = (event(1, "order.placed", 0), event(2, "stock.reserved", 5));
    let mut story = Story::default();
    assert_eq!(story.next(std::slice::from_ref(&first)).lines().count(), 2);
    assert_eq!(story.next(std::slice::from_ref(&first)), "");
    let next = story.next(&[first, second]);
    assert!(next.lines().count() == 1 && next.contains("stock.reserved"), "{next}");
}
