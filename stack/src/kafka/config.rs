//! The files that Kafka reads at its start.

use std::fmt::Write;
use std::path::Path;

use super::KafkaSecurity;
use crate::error::Result;
use crate::files::write_private;

/// One node that is broker and controller, on the loopback address, with every internal topic unreplicated.
const SERVER: &str = include_str!("server.properties");

/// What it is besides, where it has a certificate: reached by TLS and as a user, who may do what it was allowed. Its owner alone logs in by a
/// password that stands here, since nobody else is known to it when it first starts.
const SECURE: &str = include_str!("secure.properties");

/// Everything goes to the log, errors to standard output too: from there comes the reason for an early end.
const LOG4J: &str = include_str!("log4j2.properties");

/// Writes `server.properties`, for data in `data` and the ports of broker and controller.
pub(crate) fn write_server(
    path: &Path,
    data: &Path,
    [broker, controller]: [u16; 2],
    security: Option<&KafkaSecurity>,
    settings: &[(String, String)],
) -> Result<()> {
    let listener = if security.is_some() { "SASL_SSL" } else { "PLAINTEXT" };
    let mut text = format!(
        "{SERVER}\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners={listener}://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners={listener}://127.0.0.1:{broker}\n\
         log.dirs={}\n",
        properties_text(&data.to_string_lossy())
    );
    text.push_str(&security.map(secure).unwrap_or_default());
    for (name, value) in settings {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{name}={}", properties_text(value));
    }
    write_private(path, &text)
}

/// The security of a broker. What stands further down wins.
fn secure(security: &KafkaSecurity) -> String {
    let KafkaSecurity { tls, owner, password } = security;
    let file = |path: &Path| properties_text(&path.to_string_lossy());
    SECURE
        .replace("{certificate}", &file(&tls.certificate))
        .replace("{ca}", &file(&tls.ca))
        .replace("{owner}", owner)
        .replace("{password}", password)
}

/// Writes `log4j2.properties`.
pub(crate) fn write_log4j(path: &Path) -> Result<()> {
    write_private(path, LOG4J)
}

/// A value as a properties file of Java has it: there a backslash begins an escape, a line ends the value, and all is Latin-1.
#[must_use]
pub fn properties_text(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for unit in value.encode_utf16() {
        match u8::try_from(unit) {
            Ok(b'\\') => text.push_str(r"\\"),
            Ok(byte @ b' '..=b'~') => text.push(char::from(byte)),
            _ => {
                // Writing to a string can't fail.
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::certificates::ServerTls;

    #[test]
    fn a_value_is_latin_1_and_one_line_whatever_is_in_it() {
        assert_eq!(properties_text("/home/Kim Lee/~x"), "/home/Kim Lee/~x");
        assert_eq!(properties_text("/집/가\\b"), r"/\uc9d1/\uac00\\b");
        assert_eq!(properties_text("é😀\n\t"), r"\u00e9\ud83d\ude00\u000a\u0009");
    }

    #[test]
    fn settings_of_the_caller_come_last_so_that_they_win() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.properties");
        let settings = [("num.partitions".into(), "3".into())];
        write_server(&path, Path::new("/data"), [1, 2], None, &settings).unwrap();
        let text = fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().rfind(|line| line.starts_with("num.partitions")), Some("num.partitions=3"));
        assert!(text.contains("controller.quorum.voters=1@127.0.0.1:2\n"));
    }

    #[test]
    fn a_secure_broker_has_no_listener_in_the_open_and_nothing_is_left_to_be_filled_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.properties");
        let tls = ServerTls { certificate: "/tls/kafka.pem".into(), ca: "/tls/ca.pem".into() };
        let security = KafkaSecurity { tls, owner: "owner".to_owned(), password: "sesame".to_owned() };
        write_server(&path, Path::new("/data"), [1, 2], Some(&security), &[]).unwrap();
        let text = fs::read_to_string(path).unwrap();
        let last = |name: &str| {
            let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            values.next_back().unwrap_or_else(|| panic!("no {name}: {text}"))
        };
        assert_eq!(last("listeners"), "SASL_SSL://127.0.0.1:1,CONTROLLER://127.0.0.1:2");
        let protocols = last("listener.security.protocol.map");
        assert_eq!(protocols, "SASL_SSL:SASL_SSL,CONTROLLER:SASL_SSL");
        assert_eq!(last("inter.broker.listener.name"), "SASL_SSL");
        assert_eq!(last("super.users"), "User:owner");
        assert_eq!(last("ssl.keystore.location"), "/tls/kafka.pem");
        assert_eq!(text.matches("user_owner=\"sesame\";").count(), 2, "{text}");
        assert!(!text.contains('{'), "{text}");
    }
}
