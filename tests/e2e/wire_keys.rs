//! `ordermill keys wire`, as an operator calls it.

use std::fs;

use serde_json::Value;

use crate::support::Shop;

async fn said(shop: &Shop, arguments: &[&str]) -> (i32, String) {
    let output = shop.run(&[&["keys", "wire"], arguments].concat()).await;
    let text = if output.status.success() { &output.stdout } else { &output.stderr };
    (output.status.code().unwrap(), String::from_utf8(text.clone()).unwrap())
}

async fn done(shop: &Shop, arguments: &[&str]) -> String {
    let (code, text) = said(shop, arguments).await;
    assert_eq!(code, 0, "{arguments:?}: {text}");
    text
}

/// Id and state of every key.
async fn listed(shop: &Shop) -> Vec<(String, String)> {
    let keys: Value = serde_json::from_str(&done(shop, &["list", "--json"]).await).unwrap();
    let text = |key: &Value, member: &str| key[member].as_str().unwrap().to_owned();
    keys.as_array().unwrap().iter().map(|key| (text(key, "id"), text(key, "state"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wire_key_is_replaced_then_revoked_and_the_secret_file_says_so() {
    let shop = Shop::new().await;
    let [(first, _)] = &listed(&shop).await[..] else { panic!("not one key") };
    let text = done(&shop, &["rotate"]).await;
    assert!(text.contains(&format!("{first} is retired")), "{text}");
    let [_, (second, state)] = &listed(&shop).await[..] else { panic!("not two keys") };
    assert_eq!(state, "SIGNS");
    let text = done(&shop, &["revoke", second]).await;
    for part in [&format!("{second} is revoked"), "signs from now on", "give this file to all processes"] {
        assert!(text.contains(part), "{text}");
    }
    let states: Vec<String> = listed(&shop).await.into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, ["RETIRED", "REVOKED", "SIGNS"]);
    let file = fs::read_to_string(&shop.wire_secret_file).unwrap();
    assert!(file.ends_with(&format!("\nrevoked {second}\n")), "{file}");
    assert!(done(&shop, &["revoke", second]).await.contains("was revoked before"));
    assert!(done(&shop, &["list"]).await.contains("| REVOKED |"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wire_secret_that_is_not_the_databases_is_refused_with_what_to_do() {
    let shop = Shop::new().await;
    for (arguments, code, part) in [
        (&["revoke", "7"][..], 2, "not the id of a key"),
        (&["revoke", "1-7-0123456789abcdef"], 1, "`ordermill keys wire list` lists them"),
    ] {
        let (status, text) = said(&shop, arguments).await;
        assert_eq!(status, code, "{arguments:?}: {text}");
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
    fs::write(&shop.wire_secret_file, done(&shop, &["secret"]).await).unwrap();
    let output = shop.run(&["migrate"]).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("run `ordermill keys wire rotate` with the new file"), "{text}");
    assert_eq!(output.status.code(), Some(1));
    done(&shop, &["rotate"]).await;
    assert!(shop.run(&["migrate"]).await.status.success());
    fs::write(&shop.wire_secret_file, "secret 12").unwrap();
    let (status, text) = said(&shop, &["rotate"]).await;
    assert!(status == 1 && text.contains("line 1 of the wire secret"), "{text}");
}
