//! How many files a process may have open, and so how many clients it can serve at once: each connection is one.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// How many files are left for all that is not a client's connection: the database, Kafka, the gateway, logs.
const RESERVE: u64 = 512;

/// Raises the limit of open files as far as that many connections need, and tells how many of them it allows.
pub(crate) fn make_room_for(connections: usize) -> usize {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => {
            tracing::warn!(%error, "cannot see how many files may be open");
            return connections;
        }
    };
    let mut limit = raised(soft, hard, connections);
    if limit > soft
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, limit, hard)
    {
        tracing::warn!(%error, "the limit of open files can't be raised");
        limit = soft;
    }
    let places = places(limit, connections);
    if places < connections {
        tracing::warn!(
            places,
            open_files = limit,
            "the limit of open files allows fewer clients at once than the API could serve; give it more (`ulimit -Hn`, LimitNOFILE)"
        );
    } else {
        tracing::info!(places, open_files = limit, "so many clients can be served at once");
    }
    places
}

/// The limit that so many connections need, where the hard limit allows it. No less than the one that there is, and no more than is
/// needed: programs that this one starts inherit it.
fn raised(soft: u64, hard: u64, connections: usize) -> u64 {
    let needed = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(RESERVE);
    needed.min(hard).max(soft)
}

/// How many of the connections have a place where so many files may be open. Of few, half are for the rest.
fn places(limit: u64, connections: usize) -> usize {
    let left = limit - RESERVE.min(limit / 2);
    usize::try_from(left).unwrap_or(usize::MAX).min(connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_is_needed_and_allowed_and_never_lowered() {
        for (soft, hard, limit) in [
            (1_024, 1_048_576, 8_704),
            (1_024, 4_096, 4_096),
            (65_536, 1_048_576, 65_536),
            (1_024, u64::MAX, 8_704),
        ] {
            assert_eq!(raised(soft, hard, 8_192), limit, "{soft} {hard}");
        }
    }

    #[test]
    fn clients_have_no_more_places_than_there_are_files_beside_the_rest() {
        for (limit, expected) in
            [(1_048_576, 8_192), (8_704, 8_192), (8_703, 8_191), (1_024, 512), (100, 50), (u64::MAX, 8_192)]
        {
            assert_eq!(places(limit, 8_192), expected, "{limit}");
        }
    }

    #[test]
    fn this_process_has_room_for_a_few_clients() {
        assert_eq!(make_room_for(8), 8);
    }
}
