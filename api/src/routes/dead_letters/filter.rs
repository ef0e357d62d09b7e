//! Which dead letters are meant, in a query or in a body.

use ordermill_pipeline::dead_letters::letters::Filter;
use ordermill_pipeline::dead_letters::{Code, State};

use crate::routes::prelude::*;

/// Which dead letters are meant; what is left out does not matter.
#[derive(Clone, Debug, Default, Deserialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
#[schema(as = DeadLetterFilter)]
#[serde(deny_unknown_fields)]
pub(super) struct LetterFilter {
    /// The topic that the messages came from, or a dead-letter topic, `<topic>.<group>.dlt`, for topic and group.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required = false, example = "orders.stock.dlt")]
    topic: Option<String>,
    /// The consumer group that did not apply them.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required = false, example = "stock")]
    group: Option<String>,
    /// Why they failed.
    #[serde(default, deserialize_with = "present")]
    #[param(schema_with = code_schema)]
    #[schema(schema_with = code_schema, required = false)]
    code: Option<String>,
    /// What has become of them.
    #[serde(default, deserialize_with = "present")]
    #[param(schema_with = state_schema)]
    #[schema(schema_with = state_schema, required = false)]
    state: Option<String>,
    /// They failed last at this time or later.
    #[serde(default, deserialize_with = "present")]
    #[param(value_type = Option<Timestamp>)]
    #[schema(value_type = Timestamp, required = false)]
    from: Option<String>,
    /// They failed last before this time.
    #[serde(default, deserialize_with = "present")]
    #[param(value_type = Option<Timestamp>)]
    #[schema(value_type = Timestamp, required = false)]
    to: Option<String>,
}

fn code_schema() -> ObjectBuilder {
    words(Code::ALL.map(Code::name))
}

fn state_schema() -> ObjectBuilder {
    words(State::ALL.map(State::name))
}

query!(LetterFilter, |parts| {
    let detail = "topic, group, code, state, from and to may stand in the query once each";
    paging::each_once(parts, &["topic", "group", "code", "state", "from", "to"], detail, detail)
});

impl LetterFilter {
    /// What is meant. `within` stands before the names of fields, like `filter.`; `prefix` is that of the topics in Kafka.
    /// What it answers counts only where nothing is wrong.
    pub(super) fn check(&self, within: &str, prefix: &str, checks: &mut Checks) -> Filter {
        let name = |field: &str| format!("{within}{field}");
        for (field, text) in [("topic", &self.topic), ("group", &self.group)] {
            if let Some(text) = text {
                checks.text(name(field), text, &limits::TOPIC_LENGTH);
            }
        }
        let codes = Code::ALL.into_iter().map(|code| (code.name(), code));
        checks.one_of(name("code"), self.code.as_deref(), codes);
        let states = State::ALL.into_iter().map(|state| (state.name(), state));
        let state = checks.one_of(name("state"), self.state.as_deref(), states);
        let from = checks.time(name("from"), self.from.as_deref());
        let to = checks.time(name("to"), self.to.as_deref());
        if from.zip(to).is_some_and(|(from, to)| from >= to) {
            checks.refuse(name("from"), "OUT_OF_RANGE", "must be before to");
        }
        let filter =
            Filter { topic: None, group: self.group.clone(), code: self.code.clone(), state, from, to };
        let Some(topic) = &self.topic else { return filter };
        filter.with_topic(topic, prefix).unwrap_or_else(|| {
            let detail = "the topic is the dead-letter topic of another group; leave the group out";
            checks.refuse(name("group"), "NOT_TOGETHER", detail);
            Filter::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<Filter, String> {
        let filter: LetterFilter = serde_json::from_str(json).unwrap();
        Checks::all(|checks| filter.check("filter.", "shop-", checks))
            .map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn a_filter_of_nothing_means_all() {
        assert_eq!(check("{}"), Ok(Filter::default()));
    }

    #[test]
    fn a_dead_letter_topic_stands_for_topic_and_group() {
        let expected =
            Filter { topic: Some("orders".into()), group: Some("stock".into()), ..Filter::default() };
        for topic in ["orders.stock.dlt", "shop-orders.stock.dlt"] {
            assert_eq!(check(&format!(r#"{{"topic":"{topic}"}}"#)).as_ref(), Ok(&expected), "{topic}");
        }
        let problem = check(r#"{"topic":"orders.stock.dlt","group":"sales"}"#).unwrap_err();
        assert!(problem.contains("filter.group") && problem.contains("NOT_TOGETHER"), "{problem}");
    }

    #[test]
    fn everything_that_is_wrong_with_a_filter_is_named() {
        let problem = check(
            r#"{"topic":"","group":"a\u0000b","code":"rule","state":"OPEN","from":"yesterday","to":"2026-01-01"}"#,
        )
        .unwrap_err();
        let fields = "filter.topic, filter.group, filter.code, filter.state, filter.from, filter.to\"";
        assert!(problem.contains(fields), "{problem}");
        let backwards = check(r#"{"from":"2026-01-02T00:00:00Z","to":"2026-01-01T00:00:00Z"}"#).unwrap_err();
        assert!(backwards.contains("must be before to"), "{backwards}");
    }
}
