//! `ordermill relay status` and `rewind`, as an operator calls them.

use serde_json::Value;

use crate::support::{Shop, stop, until};

async fn said(shop: &Shop, arguments: &[&str]) -> (i32, String) {
    let output = shop.run(arguments).await;
    let text = if output.status.success() { &output.stdout } else { &output.stderr };
    (output.status.code().unwrap(), String::from_utf8(text.clone()).unwrap())
}

async fn status(shop: &Shop) -> Value {
    let (code, text) = said(shop, &["relay", "status", "--json"]).await;
    assert_eq!(code, 0, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_who_leads_and_a_rewind_is_planned_then_done() {
    let shop = Shop::new().await;
    let running = shop.open().await;
    let (user, lamp) = (shop.user(1_000).await, shop.product(100, 9).await);
    assert_eq!(shop.order(&user, &[(lamp, 1)]).await["status"], "CONFIRMED");
    shop.until_quiet().await;
    let before = status(&shop).await;
    assert!(before["leader"].is_string(), "{before}");
    assert_eq!((&before["era"], &before["lag"], &before["adopting"]), (&1.into(), &0.into(), &false.into()));
    let published = shop.count("SELECT count(*) FROM event_log").await;

    let (code, text) = said(&shop, &["relay", "rewind", "--all", "--dry-run"]).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(&format!("would publish positions 1 to {}", before["position"])), "{text}");
    assert!(text.contains(&format!("{published} records")), "{text}");
    assert_eq!(shop.metric("ordermill_relay_repeats_total").await, Some(0.0), "a dry run does nothing");
    let (code, text) = said(&shop, &["relay", "rewind", "--all"]).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.ends_with("again\n") && text.contains("done: the relay is past position"), "{text}");
    let (code, text) = said(&shop, &["relay", "rewind", "--topic", "orders", "--no-wait"]).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("records of orders"), "{text}");
    assert_eq!(shop.order(&user, &[(lamp, 1)]).await["status"], "CONFIRMED");
    shop.until_quiet().await;
    running.stop().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_with_what_to_do() {
    let shop = Shop::new().await;
    for (arguments, code, part) in [
        (&["relay", "rewind"][..], 2, "--to"),
        (&["relay", "rewind", "--to", "-5"], 2, "-5"),
        (&["relay", "rewind", "--to", "x"], 2, "invalid"),
        (&["relay", "rewind", "--all", "--to", "3"], 2, "cannot be used with"),
        (&["relay", "rewind", "--to", "999"], 1, "give a position from 0 to 0"),
        (&["relay", "rewind", "--topic", "cups"], 1, "there is no topic \"cups\"; give one of orders, "),
        (&["relay", "adopt", "--era", "1"], 2, "1"),
        (&["relay", "adopt"], 1, "nothing is wrong"),
    ] {
        let (status, text) = said(&shop, arguments).await;
        assert_eq!(status, code, "{arguments:?}: {text}");
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
    assert_eq!(status(&shop).await["leader"], Value::Null);
    // Without a subcommand it runs a relay, and takes the flags of one.
    let relay = shop.start(&["relay", "--metrics-listen", "127.0.0.1:0"]);
    until("it leads", async || status(&shop).await["leader"].is_string()).await;
    stop(&relay);
}
