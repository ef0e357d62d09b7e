//! The gateway's launcher, against a stand-in that keeps its command line: this crate does not build the real one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use ordermill_stack::{Gateway, GatewayOptions, Quiet, Scratch};

use crate::{is_running, open_to_others, open_up, scratch};

fn stand_in(scratch: &Scratch, script: &str) -> PathBuf {
    let path = scratch.path().join("ordermill-gateway");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn it_is_ready_when_it_says_so_and_comes_back_on_its_port() {
    let scratch = scratch();
    let program = stand_in(
        &scratch,
        r#"echo "$@" "$ORDERMILL_CALLBACK_SECRET"; echo "listening on http://$2"; exec sleep 600"#,
    );
    let options = GatewayOptions {
        callback_url: Some("http://api/callbacks".into()),
        callback_secret: "secret".into(),
        ..GatewayOptions::default()
    };
    let gateway = Gateway::start(&program, scratch.path(), options, &Quiet).unwrap();
    let port = gateway.port();
    let log = fs::read_to_string(gateway.log()).unwrap();
    assert!(log.starts_with(&format!("--listen 127.0.0.1:{port} --ledger ")), "{log}");
    assert!(log.contains("--callback-url http://api/callbacks secret\n"), "{log}");

    let pid = gateway.pid().unwrap();
    gateway.kill9();
    assert!(!is_running(pid));
    gateway.restart().unwrap();
    assert_eq!(gateway.url(), format!("http://127.0.0.1:{port}"));
    assert_ne!(gateway.pid(), Some(pid));
}

#[test]
fn its_ledger_is_its_owners_alone_also_where_an_earlier_version_left_it_open() {
    let scratch = scratch();
    let ledger = scratch.path().join("gateway-ledger.jsonl");
    let program = stand_in(&scratch, r#"echo >> "$4"; echo "listening on http://$2"; exec sleep 600"#);
    let start = || Gateway::start(&program, scratch.path(), GatewayOptions::default(), &Quiet).unwrap();
    drop(start());
    assert!(ledger.exists());
    assert_eq!(open_to_others(&ledger), "");
    open_up(&ledger);
    assert_ne!(open_to_others(&ledger), "", "the look for what is open sees something");
    drop(start());
    assert_eq!(open_to_others(&ledger), "");
}

#[test]
fn one_that_fails_to_start_is_reported_with_its_last_words() {
    let scratch = scratch();
    let program = stand_in(&scratch, "echo the ledger is torn at line 7; exit 1");
    let error = Gateway::start(&program, scratch.path(), GatewayOptions::default(), &Quiet).unwrap_err();
    assert!(error.to_string().contains("the ledger is torn at line 7"), "{error}");
}
