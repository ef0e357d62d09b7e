//! What the pipeline tells of itself, from the figures that it gives to Prometheus.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use serde::Serialize;

/// The figures of a process at a moment: `name{labels}` to value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures(HashMap<String, f64>);

/// Batches between two moments.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Batches {
    /// How many there were.
    pub count: f64,
    /// Records or orders in each, on average.
    pub size_mean: f64,
    /// From the first statement to the commit on average, in milliseconds, where it is measured.
    pub ms_mean: Option<f64>,
}

impl Figures {
    /// Reads them from the API's `/metrics`.
    ///
    /// # Errors
    /// Where it does not answer.
    pub(crate) async fn read(client: &reqwest::Client, api_url: &str) -> Result<Figures> {
        let response = client.get(format!("{api_url}/metrics")).send().await?.error_for_status()?;
        Ok(Figures::parse(&response.text().await?))
    }

    pub(crate) fn parse(text: &str) -> Figures {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.rsplit_once(' '));
        Figures(pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    /// The sum of the figures of that name whose labels have that part.
    pub(crate) fn total(&self, name: &str, part: &str) -> f64 {
        self.of(name).filter(|(labels, _)| labels.contains(part)).map(|(_, value)| value).sum()
    }

    /// The figures of that name by their first label.
    pub(crate) fn by_client(&self, name: &str) -> BTreeMap<String, f64> {
        self.of(name).map(|(labels, value)| (first_label(labels), value)).collect()
    }

    /// The labels and values of that name.
    fn of(&self, name: &str) -> impl Iterator<Item = (&str, f64)> {
        let of_name = move |full: &'_ str| full.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
        self.0.iter().filter(move |(full, _)| of_name(full)).map(|(full, value)| (full.as_str(), *value))
    }

    fn since(&self, then: &Figures, name: &str) -> f64 {
        let of = |figures: &Figures| figures.0.get(name).copied().unwrap_or(0.0);
        of(self) - of(then)
    }

    /// The batches from then to now: those in which orders were accepted, and those of each worker's group.
    #[must_use]
    pub(crate) fn batches_since(&self, then: &Figures) -> BTreeMap<String, Batches> {
        const OF_GROUPS: &str = "ordermill_batch_records_count{";
        let groups = self.0.keys().filter_map(|name| name.strip_prefix(OF_GROUPS));
        let groups = groups.map(|labels| {
            let labels = format!("{{{labels}");
            let size = self.mean_since(then, "ordermill_batch_records", &labels);
            let seconds = self.mean_since(then, "ordermill_batch_seconds", &labels);
            (first_label(&labels), size, seconds)
        });
        let accept = ("accept".to_owned(), self.mean_since(then, "ordermill_accept_batch_orders", ""), None);
        groups
            .chain([accept])
            .filter_map(|(name, size, seconds)| {
                let (count, size_mean) = size?;
                Some((name, Batches { count, size_mean, ms_mean: seconds.map(|(_, mean)| mean * 1_000.0) }))
            })
            .collect()
    }

    /// How many were observed since then, and their mean; `None` where none were.
    fn mean_since(&self, then: &Figures, name: &str, labels: &str) -> Option<(f64, f64)> {
        let count = self.since(then, &format!("{name}_count{labels}"));
        let sum = self.since(then, &format!("{name}_sum{labels}"));
        (count > 0.0).then(|| (count, sum / count))
    }
}

/// `stock` of `{group="stock"}`.
fn first_label(labels: &str) -> String {
    labels.split('"').nth(1).unwrap_or(labels).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEN: &str = "# TYPE ordermill_batch_records histogram\n\
        ordermill_batch_records_sum{group=\"stock\"} 100.0\nordermill_batch_records_count{group=\"stock\"} 10\n\
        ordermill_batch_records_bucket{le=\"1.0\",group=\"stock\"} 1\n\
        ordermill_accept_batch_orders_sum 5.0\nordermill_accept_batch_orders_count 5\n# EOF\n";
    const NOW: &str = "ordermill_batch_records_sum{group=\"stock\"} 700.0\n\
        ordermill_batch_records_count{group=\"stock\"} 12\n\
        ordermill_batch_seconds_sum{group=\"stock\"} 0.5\nordermill_batch_seconds_count{group=\"stock\"} 2\n\
        ordermill_batch_records_sum{group=\"orders\"} 9.0\nordermill_batch_records_count{group=\"orders\"} 9\n\
        ordermill_accept_batch_orders_sum 5.0\nordermill_accept_batch_orders_count 5\n";

    #[test]
    fn batches_are_those_since_then_by_group() {
        let batches = Figures::parse(NOW).batches_since(&Figures::parse(THEN));
        let stock = Batches { count: 2.0, size_mean: 300.0, ms_mean: Some(250.0) };
        let orders = Batches { count: 9.0, size_mean: 1.0, ms_mean: None };
        // Nothing was accepted since, so there is no mean of it.
        assert_eq!(batches, [("orders".to_owned(), orders), ("stock".to_owned(), stock)].into());
    }

    #[test]
    fn without_figures_there_are_no_batches() {
        assert!(Figures::default().batches_since(&Figures::default()).is_empty());
    }
}
