//! `docker-compose.yml` gives nothing away: it has no secret of its own, and publishes on this machine alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

const COMPOSE: &str = include_str!("../docker-compose.yml");

/// The variables that hold secrets.
const SECRETS: [&str; 4] = [
    "ORDERMILL_ADMIN_KEY",
    "ORDERMILL_CALLBACK_SECRET",
    "ORDERMILL_DATABASE_PASSWORD",
    "ORDERMILL_WIRE_SECRET",
];

/// The variables that the file takes from the environment, each with what is to be done where it is missing.
fn variables() -> impl Iterator<Item = (&'static str, &'static str)> {
    let inside = COMPOSE.split("${").skip(1).filter_map(|rest| rest.split('}').next());
    inside.map(|variable| variable.split_once(':').unwrap_or((variable, "")))
}

#[test]
fn every_secret_must_be_given_and_has_no_default() {
    for secret in SECRETS {
        let missing: BTreeSet<&str> =
            variables().filter(|(name, _)| *name == secret).map(|(_, missing)| missing).collect();
        assert_eq!(missing, ["?run scripts/compose-secrets first"].into(), "{secret}");
    }
    let others: BTreeSet<&str> =
        variables().map(|(name, _)| name).filter(|name| !SECRETS.contains(name)).collect();
    assert_eq!(others, ["ORDERMILL_TIME_ZONE"].into(), "what has a default is no secret");
    let settings = COMPOSE.lines().filter_map(|line| line.trim().split_once(": "));
    let is_secret = |name: &str| ["_PASSWORD", "_SECRET", "_KEY"].iter().any(|end| name.ends_with(end));
    for (name, value) in settings.filter(|(name, _)| is_secret(name)) {
        assert!(value.contains("${") || value.starts_with('*'), "{name} is {value}");
    }
}

#[test]
fn every_port_is_published_on_the_loopback_address_alone() {
    let published: Vec<&str> =
        COMPOSE.lines().filter_map(|line| line.trim().strip_prefix("ports: ")).collect();
    assert_eq!((published.len(), COMPOSE.matches("ports:").count()), (4, 4), "{published:?}");
    assert!(COMPOSE.contains("ORDERMILL_METRICS_LISTEN: 0.0.0.0:9100"), "whoever reaches them may read them");
    for ports in published {
        assert!(!ports.contains("9100"), "figures are for other containers alone: {ports}");
        assert!(ports.starts_with("[\"127.0.0.1:") && ports.matches('"').count() == 2, "{ports}");
    }
}

#[test]
fn the_script_makes_each_secret_that_is_missing_once_and_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(".env");
    fs::write(&file, "ORDERMILL_ADMIN_KEY=chosen-by-hand").unwrap();
    let make = || {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/compose-secrets");
        assert!(Command::new(script).arg(&file).status().unwrap().success());
        fs::read_to_string(&file).unwrap()
    };
    let made = make();
    assert_eq!(make(), made);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut secrets: BTreeMap<&str, &str> = made.lines().map(|line| line.split_once('=').unwrap()).collect();
    assert_eq!(secrets.keys().copied().collect::<Vec<_>>(), SECRETS);
    assert_eq!(secrets.remove("ORDERMILL_ADMIN_KEY"), Some("chosen-by-hand"));
    assert_eq!(secrets.values().collect::<BTreeSet<_>>().len(), 3, "no two are alike: {made}");
    for secret in secrets.values() {
        assert!(secret.len() == 64 && secret.bytes().all(|digit| digit.is_ascii_hexdigit()), "{made}");
    }
}
