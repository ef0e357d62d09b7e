//! The files that Kafka reads at its start.

use std::fmt::Write;
use std::path::Path;

use crate::error::Result;
use crate::files::write_private;

/// One node that is broker and controller, on the loopback address, with every internal topic unreplicated.
const SERVER: &str = include_str!("server.properties");

/// Everything goes to the log, errors to standard output too: from there comes the reason for an early end.
const LOG4J: &str = include_str!("log4j2.properties");

/// Writes `server.properties`, for data in `data` and the ports of broker and controller.
pub(crate) fn write_server(
    path: &Path,
    data: &Path,
    [broker, controller]: [u16; 2],
    settings: &[(String, String)],
) -> Result<()> {
    let mut text = format!(
        "{SERVER}\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{broker}\n\
         log.dirs={}\n",
        escape(&data.to_string_lossy())
    );
    for (name, value) in settings {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{name}={}", escape(value));
    }
    write_private(path, &text)
}

/// Writes `log4j2.properties`.
pub(crate) fn write_log4j(path: &Path) -> Result<()> {
    write_private(path, LOG4J)
}

/// In a properties file a backslash begins an escape.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn settings_of_the_caller_come_last_so_that_they_win() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.properties");
        write_server(&path, Path::new("/data"), [1, 2], &[("num.partitions".into(), "3".into())]).unwrap();
        let text = fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().rfind(|line| line.starts_with("num.partitions")), Some("num.partitions=3"));
        assert!(text.contains("controller.quorum.voters=1@127.0.0.1:2\n"));
    }
}
