//! Ports on the loopback address.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use crate::error::{Result, StackError};

/// Below the range that Linux takes outgoing connections' ports from: there a server that restarts could find its port
/// taken by some client's connection.
const RANGE: Range<u16> = 15_000..32_000;

static GIVEN_OUT: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port on 127.0.0.1 that nothing listens on and that this process has not been given before.
///
/// # Errors
/// If no port is free.
pub fn free_port() -> Result<u16> {
    let mut given_out = GIVEN_OUT.lock().unwrap_or_else(PoisonError::into_inner);
    let given_out = given_out.get_or_insert_default();
    for _ in 0..1_000 {
        let span = u128::from(RANGE.end - RANGE.start);
        let offset = u16::try_from(Uuid::new_v4().as_u128() % span).unwrap_or_default();
        let port = RANGE.start + offset;
        if !given_out.contains(&port) && is_free(port) {
            given_out.insert(port);
            return Ok(port);
        }
    }
    let Range { start, end } = RANGE;
    Err(StackError::Other(format!("can't find a free port from {start} to {end}: address in use")))
}

/// The port that was asked for, else the one remembered from the last run if it is free, else any free one.
pub(crate) fn choose(what: &str, asked: Option<u16>, remembered: Option<u16>) -> Result<u16> {
    match asked.or(remembered) {
        Some(port) if is_free(port) => Ok(port),
        Some(port) if asked.is_some() => Err(StackError::PortInUse { what: what.to_owned(), port }),
        _ => free_port(),
    }
}

/// Whether nothing listens on the port. Connections that are winding down do not count.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_refused_when_it_was_asked_for() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        let error = choose("PostgreSQL", Some(port), None).unwrap_err();
        assert!(error.to_string().starts_with(&format!("port {port} for PostgreSQL is in use")));
    }

    #[test]
    fn a_remembered_port_in_use_is_replaced() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        assert_ne!(choose("PostgreSQL", None, Some(port)).unwrap(), port);
    }

    #[test]
    fn a_remembered_port_that_is_free_is_kept() {
        let port = free_port().unwrap();
        assert_eq!(choose("PostgreSQL", None, Some(port)).unwrap(), port);
    }
}
