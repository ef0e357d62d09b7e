//! Who may do what in Kafka: the least that each role needs.
//!
//! The relay alone writes. Workers, API and readers outside read; readers may be of no group of ours, since who is in a group takes
//! partitions away from the rest of it.

use std::fmt;

use ordermill_wire::Topic;

use super::{AUDIT, FOLLOWER, KafkaConfig, RELAY_ENDS};
use crate::{canary, topics};

/// With what the names of the groups begin that readers outside may form.
pub const READERS: &str = "reader";

/// Who reaches Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Makes topics, and deletes them for a new era.
    Operator,
    /// Publishes the log, makes topics that are missing, and looks at what it has published.
    Relay,
    /// Reads in its group.
    Worker,
    /// Looks whether Kafka answers, follows the products, and audits what was published.
    Api,
    /// Reads along.
    Reader,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 5] = [Role::Operator, Role::Relay, Role::Worker, Role::Api, Role::Reader];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Operator => "operator",
            Role::Relay => "relay",
            Role::Worker => "worker",
            Role::Api => "api",
            Role::Reader => "reader",
        }
    }

    /// What a user of this role may do; `groups` are pairs of a worker's group and its topics. Whoever may read or write, or create or delete a
    /// topic, may also ask about it.
    #[must_use]
    pub fn rights<T: Topic>(self, user: &str, kafka: &KafkaConfig, groups: &[(&str, &[T])]) -> Vec<Right> {
        let all = || topics::names(groups);
        let with_canary = |mut names: Vec<String>| {
            names.push(canary::TOPIC.to_owned());
            names
        };
        let of = |operation, resources: Vec<Resource>| {
            let right = |resource| Right { user: user.to_owned(), operation, resource };
            resources.into_iter().map(right).collect::<Vec<_>>()
        };
        let topics_of = |names: Vec<String>| -> Vec<Resource> {
            names.iter().map(|name| Resource::Topic(kafka.full_name(name))).collect()
        };
        let group = |name: &str| vec![Resource::Group(kafka.full_name(name))];
        let rights = match self {
            Role::Operator => vec![
                of(Operation::Create, topics_of(with_canary(all()))),
                of(Operation::Delete, topics_of(with_canary(all()))),
                of(Operation::Read, topics_of(with_canary(all()))),
                of(Operation::Describe, group(RELAY_ENDS)),
                of(Operation::Describe, group(AUDIT)),
            ],
            Role::Relay => vec![
                of(Operation::Write, topics_of(with_canary(all()))),
                of(Operation::Create, topics_of(with_canary(all()))),
                of(Operation::Read, topics_of(with_canary(all()))),
                of(Operation::Describe, group(RELAY_ENDS)),
            ],
            Role::Worker => vec![
                of(
                    Operation::Read,
                    topics_of(with_canary(T::ALL.iter().map(|topic| topic.name().to_owned()).collect())),
                ),
                of(Operation::Read, groups.iter().flat_map(|&(name, _)| group(name)).collect()),
            ],
            Role::Api => vec![
                of(Operation::Read, topics_of(all())),
                of(Operation::Describe, group(FOLLOWER)),
                of(Operation::Describe, group(AUDIT)),
            ],
            Role::Reader => vec![
                of(Operation::Read, topics_of(all())),
                of(Operation::Read, vec![Resource::GroupsThatBeginWith(kafka.full_name(READERS))]),
            ],
        };
        rights.concat()
    }
}

/// One thing that one user may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// Who.
    pub user: String,
    /// What.
    pub operation: Operation,
    /// With what.
    pub resource: Resource,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = match self.operation {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Create => "create",
            Operation::Delete => "delete",
            Operation::Describe => "ask about",
        };
        write!(f, "{} may {operation} ", self.user)?;
        match &self.resource {
            Resource::Topic(name) => write!(f, "topic {name}"),
            Resource::Group(name) => write!(f, "group {name}"),
            Resource::GroupsThatBeginWith(prefix) => write!(f, "groups {prefix}*"),
        }
    }
}

/// What may be done, as Kafka tells it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads records; of a group, is a member.
    Read,
    /// Writes records.
    Write,
    /// Makes it.
    Create,
    /// Deletes it.
    Delete,
    /// Asks what there is to be known about it.
    Describe,
}

/// What it is done with, by full name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A topic.
    Topic(String),
    /// A consumer group.
    Group(String),
    /// Every consumer group whose name begins so.
    GroupsThatBeginWith(String),
}

#[cfg(test)]
mod tests {
    use ordermill_schemas::Topic as Shop;

    use super::*;
    use crate::testing::kafka;

    /// What each role may do, as lines, in a shop with one group that reads one topic.
    fn lines(role: Role) -> Vec<String> {
        let rights = role.rights("kim", &kafka("shop."), &[("stock", &[Shop::Orders][..])]);
        rights.iter().map(Right::to_string).collect()
    }

    fn may(role: Role, what: &str) -> bool {
        lines(role).contains(&format!("kim may {what}"))
    }

    #[test]
    fn the_relay_alone_writes() {
        for role in Role::ALL {
            assert_eq!(may(role, "write topic shop.orders"), role == Role::Relay, "{role:?}");
            let writes = lines(role).iter().any(|line| line.contains("may write"));
            assert_eq!(writes, role == Role::Relay, "{role:?}");
        }
        assert!(may(Role::Relay, "write topic shop.orders.stock.dlt"));
        assert!(may(Role::Relay, "write topic shop.canary") && may(Role::Worker, "read topic shop.canary"));
    }

    #[test]
    fn who_reads_may_be_in_no_group_but_its_own() {
        let groups = |role| {
            let lines = lines(role).into_iter().filter(|line| line.contains(" group"));
            lines.collect::<Vec<_>>()
        };
        assert_eq!(groups(Role::Worker), ["kim may read group shop.stock"]);
        assert_eq!(groups(Role::Reader), ["kim may read groups shop.reader*"]);
        let api = ["kim may ask about group shop.follower", "kim may ask about group shop.audit"];
        assert_eq!(groups(Role::Api), api);
        assert_eq!(groups(Role::Relay), ["kim may ask about group shop.relay-ends"]);
    }

    #[test]
    fn only_who_operates_deletes_and_workers_do_not_read_dead_letters() {
        for role in Role::ALL {
            assert!(may(role, "read topic shop.orders"), "{role:?}");
            assert_eq!(may(role, "delete topic shop.orders"), role == Role::Operator, "{role:?}");
            assert_eq!(may(role, "read topic shop.orders.stock.dlt"), role != Role::Worker, "{role:?}");
        }
    }
}
