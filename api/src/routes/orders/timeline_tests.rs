use ordermill_pipeline::log::RecordPlace;
use ordermill_store::notes::NoteRow;
use ordermill_store::timeline::DeadLetterRow;
use serde_json::json;

use super::*;

const REQUEST: Uuid = Uuid::from_u128(0x11);
const CHARGE: Uuid = Uuid::from_u128(0x22);
const REFUND: Uuid = Uuid::from_u128(0x33);
const OWNER: &str = "user:kim";

fn row(number: u128, event_type: &str, data: &Value) -> TimelineRow {
    TimelineRow {
        event_id: Uuid::from_u128(number),
        aggregate_id: Uuid::nil(),
        event_type: event_type.to_owned(),
        version: 1,
        at: Timestamp::UNIX_EPOCH,
        actor: "worker:stock".to_owned(),
        request: None,
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
        data: data.to_string().into_bytes(),
        note: None,
        log_position: 7,
        cause_id: None,
        topic: "orders".to_owned(),
        partition: 3,
        published: true,
        kafka: None,
        read_by: Vec::new(),
        balance_entry: None,
        dead_letter: None,
        put_aside: Vec::new(),
    }
}

fn placed(actor: &str) -> TimelineRow {
    TimelineRow {
        actor: actor.to_owned(),
        request: Some(REQUEST),
        kafka: Some(RecordPlace { topic: "orders".to_owned(), partition: 3, offset: 9 }),
        read_by: vec!["stock".to_owned()],
        ..row(1, "order.placed", &json!({"a": 1}))
    }
}

fn shown(rows: Vec<TimelineRow>, reader: &Reader) -> Vec<Value> {
    let timeline = serde_json::to_value(Timeline::of(rows, reader)).unwrap();
    timeline["items"].as_array().unwrap().clone()
}

fn customer() -> Reader {
    Reader::Customer(OWNER.to_owned())
}

#[test]
fn an_event_has_the_members_of_the_contract() {
    let expected = json!({
        "sequence": 1,
        "type": "order.placed",
        "at": "1970-01-01T00:00:00Z",
        "actor": "admin:minji",
        "request": {"request_id": REQUEST, "route": "POST /v1/orders"},
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "data": {"a": 1},
        "log_position": 7,
        "topic": "orders",
        "partition": 3,
        "published": true,
        "kafka": {"topic": "orders", "partition": 3, "offset": 9},
        "read_by": ["stock"],
        "event_id": Uuid::from_u128(1),
        "cause_id": null,
        "cause_sequence": null,
    });
    assert_eq!(shown(vec![placed("admin:minji")], &Reader::Admin), [expected]);
}

#[test]
fn a_cause_is_named_by_its_place_on_the_timeline_where_it_is_there() {
    let caused = |number, cause| TimelineRow {
        cause_id: Some(Uuid::from_u128(cause)),
        ..row(number, "stock.reserved", &json!({}))
    };
    let items = shown(vec![placed(OWNER), caused(2, 1), caused(3, 99)], &Reader::Admin);
    assert_eq!((&items[1]["cause_sequence"], &items[2]["cause_sequence"]), (&json!(1), &json!(null)));
    assert_eq!(items[2]["cause_id"], json!(Uuid::from_u128(99)));
}

#[test]
fn a_customer_sees_the_own_request_but_nobody_elses() {
    for (actor, is_shown) in [(OWNER, true), ("admin:minji", false)] {
        let items = shown(vec![placed(actor)], &customer());
        assert_eq!(items[0]["request"].is_object(), is_shown, "{actor}");
    }
}

#[test]
fn a_customer_is_not_told_which_administrator_it_was() {
    let items = shown(vec![placed("admin:minji"), placed(OWNER)], &customer());
    assert_eq!((&items[0]["actor"], &items[1]["actor"]), (&json!("admin"), &json!(OWNER)));
    assert!(!json!(items).to_string().contains("minji"), "{items:?}");
}

#[test]
fn what_was_said_with_an_event_stands_in_its_data_whoever_reads_it() {
    let note = Some(NoteRow { kind: "reason".to_owned(), words: "too bright".to_owned() });
    let cancelling = TimelineRow { note, ..row(1, "order.cancelling", &json!({"round": 2})) };
    for reader in [Reader::Admin, customer()] {
        let items = shown(vec![cancelling.clone()], &reader);
        assert_eq!(items[0]["data"], json!({"round": 2, "reason": "too bright"}));
    }
}

#[test]
fn dead_letters_are_for_administrators() {
    let dead = DeadLetterRow {
        dead_letter_id: Uuid::from_u128(2),
        event_id: Some(Uuid::from_u128(1)),
        group: "stock".to_owned(),
        place: RecordPlace { topic: "orders".to_owned(), partition: 3, offset: 9 },
        event_type: Some("order.placed".to_owned()),
        code: Some("RULE".to_owned()),
        error: Some("secret_table".to_owned()),
        attempts: 1,
        first_failed_at: Some(Timestamp::UNIX_EPOCH),
        last_failed_at: Some(Timestamp::UNIX_EPOCH),
        state: "PARKED".to_owned(),
    };
    let placed = TimelineRow { put_aside: vec![dead.clone()], ..placed(OWNER) };
    let dead = TimelineRow {
        topic: "orders.stock.dlt".to_owned(),
        dead_letter: Some(dead),
        ..row(2, "dead_letter.recorded", &json!("secret"))
    };
    let after = row(3, "stock.reserved", &json!({}));
    let rows = vec![placed, dead, after];
    let items = shown(rows.clone(), &Reader::Admin);
    assert_eq!((items.len(), &items[1]["dead_letter"]["code"]), (3, &json!("RULE")));
    assert_eq!(items[1]["dead_letter"]["kafka"]["offset"], 9);
    assert_eq!(items[0]["put_aside"][0]["group"], "stock");
    let items = shown(rows, &customer());
    assert_eq!((items.len(), &items[1]["sequence"]), (2, &json!(2)));
    assert!(!json!(items).to_string().contains("secret"), "{items:?}");
}

#[test]
fn a_customer_sees_that_the_gateway_gave_no_answer_but_not_why() {
    let attempt = |outcome: &str| json!({"at": "1970-01-01T00:00:00Z", "call": "CHARGE", "outcome": outcome, "took_ms": 3});
    let completed = json!({
        "order_id": CHARGE, "user_id": CHARGE, "charge_id": CHARGE, "charge_number": 1, "amount": 5,
        "method": "BALANCE", "attempts": [attempt("UNKNOWN: no route to secret"), attempt("APPROVED")],
    });
    let row = row(1, "payment.completed", &completed);
    let items = shown(vec![row.clone()], &Reader::Admin);
    assert_eq!(items[0]["gateway"]["charge_ids"], json!([CHARGE]));
    assert_eq!(items[0]["gateway"]["attempts"][0], attempt("UNKNOWN: no route to secret"));
    let items = shown(vec![row], &customer());
    for attempts in [&items[0]["gateway"]["attempts"], &items[0]["data"]["attempts"]] {
        assert_eq!(attempts, &json!([attempt("UNKNOWN"), attempt("APPROVED")]));
    }
}

#[test]
fn what_ends_a_refund_names_the_refunds_that_were_decided_upon() {
    let part = json!({"refund_id": REFUND, "charge_id": CHARGE, "charge_number": 1, "amount": 5});
    let of_round = |round: i32| json!({"order_id": CHARGE, "user_id": CHARGE, "round": round, "amount": 5});
    let mut refunding = of_round(2);
    refunding["parts"] = json!([part]);
    let mut refunded = of_round(2);
    refunded["method"] = json!("CARD");
    let mut nothing = of_round(3);
    nothing["method"] = json!("CARD");
    let rows = vec![
        row(1, "payment.refunding", &refunding),
        row(2, "payment.refunded", &refunded),
        row(3, "payment.refunded", &nothing),
    ];
    let items = shown(rows, &Reader::Admin);
    let expected = json!({"charge_ids": [CHARGE], "refund_ids": [REFUND], "attempts": []});
    assert_eq!((&items[0]["gateway"], &items[1]["gateway"]), (&expected, &expected));
    assert_eq!(items[2].get("gateway"), None);
}
