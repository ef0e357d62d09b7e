//! The flags that say which letters are meant.

use anyhow::{Result, bail};
use clap::Args;
use jiff::Timestamp;
use ordermill_pipeline::dead_letters::letters::Filter;
use ordermill_pipeline::dead_letters::{Code, State};
use ordermill_schemas::Topic;

/// Which letters are meant; what is not given does not matter.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FilterArgs {
    /// Only of this topic, or of this dead-letter topic, like orders.stock.dlt.
    #[arg(long)]
    topic: Option<String>,
    /// Only those that this consumer group did not apply.
    #[arg(long)]
    group: Option<String>,
    /// Only those that failed for this: FOREIGN, UNKNOWN_TYPE, UNDECODABLE, SCHEMA, KEY_MISMATCH, RULE, BUG.
    #[arg(long, value_parser = code)]
    code: Option<Code>,
    /// Only those in this state: PARKED, WAITING, REPLAYED, RESOLVED, DISCARDED.
    #[arg(long, value_parser = state)]
    state: Option<State>,
    /// Only those that failed last at this time or later, like 2026-01-31T09:00:00Z.
    #[arg(long)]
    from: Option<Timestamp>,
    /// Only those that failed last before this time.
    #[arg(long)]
    to: Option<Timestamp>,
}

fn code(name: &str) -> Result<Code, String> {
    let known = || format!("there are {}", Code::ALL.map(Code::name).join(", "));
    Code::from_name(&name.to_uppercase()).ok_or_else(known)
}

fn state(name: &str) -> Result<State, String> {
    let known = || format!("there are {}", State::ALL.map(State::name).join(", "));
    State::from_name(&name.to_uppercase()).ok_or_else(known)
}

impl FilterArgs {
    /// Whether nothing was given.
    pub(super) fn is_empty(&self) -> bool {
        *self == FilterArgs::default()
    }

    /// What is meant. `prefix` is that of the topics in Kafka.
    ///
    /// # Errors
    /// Where a topic or a group is named that there is none of, or nothing can be meant.
    pub(super) fn filter(&self, prefix: &str) -> Result<Filter> {
        if self.from.zip(self.to).is_some_and(|(from, to)| from >= to) {
            bail!("nothing failed after --from and before --to: give a --from that is earlier than --to");
        }
        let mut filter = Filter {
            topic: None,
            group: self.group.clone(),
            code: self.code.map(|code| code.name().to_owned()),
            state: self.state,
            from: self.from,
            to: self.to,
        };
        if let Some(topic) = &self.topic {
            let Some(with_topic) = filter.with_topic(topic, prefix) else {
                bail!("{topic} is the dead-letter topic of another group: leave --group out");
            };
            filter = with_topic;
        }
        if let Some(topic) = filter.topic.as_deref().filter(|topic| Topic::from_name(topic).is_none()) {
            let known: Vec<&str> = Topic::ALL.iter().map(|topic| topic.name()).collect();
            let known = known.join(", ");
            bail!(
                "there is no topic {topic}; there are {known}, and dead-letter topics like orders.stock.dlt"
            );
        }
        let groups: Vec<&str> = ordermill_workers::groups().into_iter().map(|(group, _)| group).collect();
        if let Some(group) = filter.group.as_deref().filter(|group| !groups.contains(group)) {
            bail!("there is no group {group}; there are {}", groups.join(", "));
        }
        Ok(filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(topic: &str) -> FilterArgs {
        FilterArgs { topic: Some(topic.to_owned()), ..FilterArgs::default() }
    }

    #[test]
    fn a_dead_letter_topic_stands_for_topic_and_group_with_or_without_prefix() {
        for name in ["orders.stock.dlt", "shop-orders.stock.dlt"] {
            let filter = topic(name).filter("shop-").unwrap();
            assert_eq!((filter.topic.as_deref(), filter.group.as_deref()), (Some("orders"), Some("stock")));
        }
    }

    #[test]
    fn a_name_that_there_is_none_of_is_told_which_there_are() {
        for (wrong, says) in [
            (topic("order.stock.dlt"), "there is no topic order; there are orders, "),
            (topic("orders.stocks.dlt"), "there is no group stocks; there are orders, "),
            (
                FilterArgs { group: Some("sales".to_owned()), ..topic("orders.stock.dlt") },
                "leave --group out",
            ),
        ] {
            let error = wrong.filter("").unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn codes_and_states_are_understood_in_any_case() {
        assert_eq!(code("rule"), Ok(Code::Rule));
        assert_eq!(state("Parked"), Ok(State::Parked));
        assert!(code("rules").unwrap_err().contains("KEY_MISMATCH"));
        assert!(state("open").unwrap_err().contains("PARKED"));
    }
}
