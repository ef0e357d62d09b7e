//! Kafka's jars, by Maven coordinates, in a cache of the user's.

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Progress;
use crate::child::Program;
use crate::error::{Result, StackError};
use crate::files::remove_if_there;
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
/// The cache is `$ORDERMILL_CACHE_DIR`, else `$XDG_CACHE_HOME/ordermill`, else `$HOME/.cache/ordermill`.
///
/// # Errors
/// If they are not there and Maven is missing or fails.
pub(crate) fn fetch(progress: &Progress) -> Result<PathBuf> {
    let cache = cache_dir()?;
    let jars = cache.join(format!("kafka-{KAFKA_VERSION}"));
    if jars.is_dir() {
        return Ok(jars);
    }
    let maven = programs::required("mvn", "Maven (mvn), which fetches Kafka,")?;
    fs::create_dir_all(&cache).map_err(StackError::io("create", &cache))?;
    let _turn = wait_for_turn(&cache, progress)?;
    if !jars.is_dir() {
        let step = format!("fetching Kafka {KAFKA_VERSION} by Maven (about {MEGABYTES} MB, once)");
        progress.begin(&step).end(fetch_into(&jars, &maven))?;
    }
    Ok(jars)
}

/// One process fetches; others wait for it and then find the jars.
fn wait_for_turn(cache: &Path, progress: &Progress) -> Result<File> {
    let path = cache.join("kafka.lock");
    let file = File::create(&path).map_err(StackError::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let step = "waiting for another process that fetches Kafka";
            progress.begin(step).end(file.lock().map_err(StackError::io("lock", &path)))?;
            Ok(file)
        }
        Err(TryLockError::Error(error)) => Err(StackError::io("lock", &path)(error)),
    }
}

/// Under another name, then renamed: a directory with the right name is complete.
fn fetch_into(jars: &Path, maven: &Path) -> Result<()> {
    let unfinished = jars.with_file_name("kafka.unfinished");
    remove_if_there(&unfinished)?;
    fs::create_dir(&unfinished).map_err(StackError::io("create", &unfinished))?;
    let pom = jars.with_file_name("kafka.pom.xml");
    let text = POM.replace("{KAFKA_VERSION}", KAFKA_VERSION).replace("{LOG4J_VERSION}", LOG4J_VERSION);
    fs::write(&pom, text).map_err(StackError::io("write", &pom))?;
    let log = jars.with_file_name("kafka.maven.log");
    let child = Program::new("Maven", maven, &log)
        .args(["--batch-mode", "--no-transfer-progress", "--file"])
        .arg(&pom)
        .args([COPY_DEPENDENCIES, "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", unfinished.display()))
        .telling(|line| line.contains("[ERROR]"))
        .start()?;
    let core = unfinished.join(format!("kafka_2.13-{KAFKA_VERSION}.jar"));
    let fetched =
        child.finish(DEADLINE).and_then(|()| if core.is_file() { Ok(()) } else { Err(child.ended()) });
    fetched.map_err(|error| {
        StackError::Other(format!(
            "Kafka {KAFKA_VERSION} can't be fetched: {error}; check the network, then run this again"
        ))
    })?;
    fs::rename(&unfinished, jars).map_err(StackError::io("rename", &unfinished))
}

fn cache_dir() -> Result<PathBuf> {
    let from = |name: &str, below: &str| {
        env::var_os(name).filter(|value| !value.is_empty()).map(|value| PathBuf::from(value).join(below))
    };
    from("ORDERMILL_CACHE_DIR", "")
        .or_else(|| from("XDG_CACHE_HOME", "ordermill"))
        .or_else(|| from("HOME", ".cache/ordermill"))
        .map(|dir| std::path::absolute(&dir).unwrap_or(dir))
        .ok_or_else(|| {
            let what = "can't find a cache directory (set ORDERMILL_CACHE_DIR): entity not found";
            StackError::Other(what.to_owned())
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
