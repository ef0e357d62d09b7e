//! Notices partitions that the group has given to none of its members.
//!
//! The member that shares the partitions out asks the broker which there are, but it shares out again only when they
//! differ from those that its client remembers. The client goes on remembering a topic that is gone for a while
//! (`topic.metadata.propagation.max.ms`), so where it is made anew in that while, nothing has changed for it, and the group
//! stays without the partitions for good. Who has what is known to the broker.

use std::collections::HashSet;
use std::time::Duration;

use rdkafka::consumer::{Consumer, ConsumerContext};
use rdkafka::error::KafkaError;

/// The state of a group whose members all have been told what they have.
const SETTLED: &str = "Stable";

/// A topic's full name, and a partition.
pub(super) type Named = (String, i32);

/// The first of `wanted` that no member of the group has; none while the group is sharing out.
///
/// # Errors
/// Where the brokers do not answer within `timeout`.
pub(super) fn unassigned<C: ConsumerContext>(
    consumer: &impl Consumer<C>,
    group: &str,
    wanted: Vec<Named>,
    timeout: Duration,
) -> Result<Option<Named>, KafkaError> {
    let found = consumer.fetch_group_list(Some(group), timeout)?;
    let Some(group) = found.groups().iter().find(|found| found.name() == group) else { return Ok(None) };
    if group.state() != SETTLED {
        return Ok(None);
    }
    let mut given = HashSet::new();
    for member in group.members() {
        // Of a member whose part can't be read, nothing is known; it may be any.
        let Some(part) = part_of(member.assignment().unwrap_or_default()) else { return Ok(None) };
        given.extend(part);
    }
    Ok(wanted.into_iter().find(|partition| !given.contains(partition)))
}

/// The partitions of a member: `Assignment` of Kafka's `ConsumerProtocol`, whose beginning every version has. None where
/// it is cut off; nothing where the member has been given nothing.
fn part_of(assignment: &[u8]) -> Option<Vec<Named>> {
    let mut part = Vec::new();
    if assignment.is_empty() {
        return Some(part);
    }
    let mut rest = assignment;
    let _version = i16::from_be_bytes(take(&mut rest)?);
    for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
        let length = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).ok()?;
        let topic = String::from_utf8(rest.split_off(..length)?.to_vec()).ok()?;
        for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
            part.push((topic.clone(), i32::from_be_bytes(take(&mut rest)?)));
        }
    }
    Some(part)
}

/// The next bytes of what is left to be read.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    rest.split_off(..N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 3, topic `cups` with partitions 0 and 2, topic `pots` with partition 1, no user data.
    const ASSIGNMENT: &[u8] = b"\0\x03\0\0\0\x02\
        \0\x04cups\0\0\0\x02\0\0\0\0\0\0\0\x02\
        \0\x04pots\0\0\0\x01\0\0\0\x01\
        \xff\xff\xff\xff";

    #[test]
    fn a_members_part_names_each_partition_of_each_topic() {
        let expected = [("cups", 0), ("cups", 2), ("pots", 1)].map(|(topic, p)| (topic.to_owned(), p));
        assert_eq!(part_of(ASSIGNMENT), Some(expected.to_vec()));
    }

    #[test]
    fn a_member_that_was_given_nothing_has_none() {
        assert_eq!(part_of(b""), Some(Vec::new()));
        assert_eq!(part_of(b"\0\x03\0\0\0\0\xff\xff\xff\xff"), Some(Vec::new()));
    }

    #[test]
    fn what_is_cut_off_or_no_assignment_at_all_is_not_guessed_at() {
        let user_data = 4;
        for length in 1..ASSIGNMENT.len() - user_data {
            assert_eq!(part_of(&ASSIGNMENT[..length]), None, "{length} bytes");
        }
        assert_eq!(part_of(b"\0\x03\0\0\0\x01\xff\xff\0\0\0\0"), None, "a topic of a negative length");
        assert_eq!(part_of(b"\0\x03\0\0\0\x01\0\x01\xff\0\0\0\0"), None, "a topic that is no text");
    }
}
