//! Kafka's jars, by Maven coordinates, in a cache of the user's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Progress;
use crate::cache::Wanted;
use crate::child::Program;
use crate::error::{Result, StackError};
use crate::programs;

/// The version of Kafka that is fetched and run. It is the file `stack/kafka-version` at the time of the build.
pub const KAFKA_VERSION: &str = include_str!("../../kafka-version").trim_ascii();

/// Kafka logs through slf4j; the implementation is in its releases, but not among its Maven dependencies. The version
/// is that of the log4j that comes with Kafka.
const LOG4J_VERSION: &str = "2.25.4";

/// What Maven is to bring.
const POM: &str = include_str!("pom.xml");

/// With its version, since without it Maven asks for several plugins' latest ones, and hides why it can't reach them.
const COPY_DEPENDENCIES: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/// About what Maven transfers, its own plugins included.
const MEGABYTES: u32 = 60;

const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Makes sure that Kafka's jars are in the cache, and returns their directory.
///
/// # Errors
/// If they are not there and Maven is missing or fails.
pub(crate) fn fetch(progress: &Progress) -> Result<PathBuf> {
    let step = format!("fetching Kafka {KAFKA_VERSION} by Maven (about {MEGABYTES} MB, once)");
    Wanted { name: "Kafka", version: KAFKA_VERSION, step: &step }.fetched(progress, fetch_into)
}

fn fetch_into(jars: &Path) -> Result<()> {
    let maven = programs::required("mvn", "Maven (mvn), which fetches Kafka,")?;
    let pom = jars.with_file_name("kafka.pom.xml");
    let text = POM.replace("{KAFKA_VERSION}", KAFKA_VERSION).replace("{LOG4J_VERSION}", LOG4J_VERSION);
    fs::write(&pom, text).map_err(StackError::io("write", &pom))?;
    let log = jars.with_file_name("kafka.maven.log");
    let child = Program::new("Maven", maven, &log)
        .args(["--batch-mode", "--no-transfer-progress", "--file"])
        .arg(&pom)
        .args([COPY_DEPENDENCIES, "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", jars.display()))
        .telling(|line| line.contains("[ERROR]"))
        .start()?;
    let core = jars.join(format!("kafka_2.13-{KAFKA_VERSION}.jar"));
    let fetched =
        child.finish(DEADLINE).and_then(|()| if core.is_file() { Ok(()) } else { Err(child.ended()) });
    fetched.map_err(|error| {
        StackError::Other(format!(
            "Kafka {KAFKA_VERSION} can't be fetched: {error}; check the network, then run this again"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compose_file_names_the_same_version() {
        let compose = include_str!("../../../docker-compose.yml");
        assert!(compose.contains(&format!("image: apache/kafka:{KAFKA_VERSION}\n")));
    }
}
