//! Drawings of what was measured, as SVG that is readable on light and on dark pages.

mod bars;
mod lines;
mod svg;

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::drawing::bars::{Bar, Bars};
use crate::drawing::lines::{Axis, Lines, Series};
use crate::machine::{GATEWAY, KAFKA, LOAD, PIPELINE, POSTGRESQL};
use crate::report::table::{grouped, one, two};
use crate::report::{Loop, Measured};

/// The parts of an order's time, in the order in which they are drawn.
const PARTS: [&str; 5] = [PIPELINE, POSTGRESQL, KAFKA, GATEWAY, LOAD];

/// Writes `latency.svg` and `order-time.svg` into a directory, as far as there is something to be drawn. Answers what was
/// written.
///
/// # Errors
/// Where the directory can't be written to.
pub fn write(measured: &Measured, directory: &Path) -> Result<Vec<&'static str>> {
    let drawings = [("latency.svg", latency(measured)), ("order-time.svg", order_time(measured))];
    let drawings = drawings.into_iter().filter_map(|(name, drawing)| Some((name, drawing?)));
    drawings.map(|(name, drawing)| keep(directory, name, &drawing)).collect()
}

/// Writes `memory.svg`: the memory of a process, in megabytes, after so many orders.
///
/// # Errors
/// Where the directory can't be written to.
pub fn write_memory(rss_mb: &[(f64, f64)], directory: &Path) -> Result<&'static str> {
    let most = |of: fn(&(f64, f64)) -> f64| rss_mb.iter().map(of).fold(1.0, f64::max);
    let drawing = Lines {
        title: "Memory of API, relay and workers",
        x: Axis::from_zero("orders so far", most(|point| point.0)),
        y: Axis::from_zero("MB", most(|point| point.1)),
        series: vec![Series { name: "resident", points: rss_mb.to_vec() }],
    };
    keep(directory, "memory.svg", &drawing.drawn())
}

fn keep(directory: &Path, name: &'static str, drawing: &str) -> Result<&'static str> {
    std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(directory.join(name), drawing))
        .with_context(|| format!("can't write {name} into {}", directory.display()))?;
    Ok(name)
}

/// Latency against load; none where fewer than two rates were measured.
fn latency(measured: &Measured) -> Option<String> {
    let mut rates: Vec<&Loop> = measured.rates.iter().filter(|rate| rate.rate_per_s.is_some()).collect();
    rates.sort_by(|a, b| a.rate_per_s.partial_cmp(&b.rate_per_s).unwrap_or(std::cmp::Ordering::Equal));
    if rates.len() < 2 {
        return None;
    }
    let of = |name, ms: fn(&Loop) -> f64| {
        let points = rates.iter().map(|rate| (rate.rate_per_s.unwrap_or_default(), ms(rate)));
        Series { name, points: points.filter(|point| point.1 > 0.0).collect() }
    };
    let series = vec![
        of("settled, p99, as the client sees it", |rate| rate.settle.p99_ms),
        of("settled, p50, as the client sees it", |rate| rate.settle.p50_ms),
        of("settled, p50, in the database", |rate| rate.settle_in_database.p50_ms),
        of("accepted, p99", |rate| rate.accept.p99_ms),
        of("accepted, p50", |rate| rate.accept.p50_ms),
    ];
    let all = || series.iter().flat_map(|series| &series.points);
    let drawing = Lines {
        title: "Latency against load",
        x: Axis::logarithmic("orders a second", all().map(|point| point.0)),
        y: Axis::logarithmic("ms", all().map(|point| point.1)),
        series,
    };
    Some(drawing.drawn())
}

/// Which part has the processors for how much of an order, at each rate and in the closed loop.
fn order_time(measured: &Measured) -> Option<String> {
    let rates = measured.rates.iter();
    let rates = rates.map(|rate| (format!("{}/s", grouped(rate.rate_per_s.unwrap_or_default())), rate));
    let closed = measured.closed_loop.as_ref().map(|closed| {
        (format!("{} connections, {}/s", closed.connections, grouped(closed.settled_per_s)), closed)
    });
    let bars: Vec<Bar> = rates
        .chain(closed)
        .map(|(name, looped)| {
            let ms = PARTS.map(|part| looped.work.used(part) * 1e3 / looped.orders.max(1.0));
            let (all, cores) = (ms.iter().sum::<f64>(), looped.cores);
            let told = if all < 10.0 { two(all) } else { one(all) };
            Bar { name, parts: ms.to_vec(), told: format!("{told} ms an order, {} cores", two(cores)) }
        })
        .collect();
    let title = "Where an order's processor time goes";
    (!bars.is_empty()).then(|| Bars { title, parts: PARTS.to_vec(), bars }.drawn())
}

#[cfg(test)]
mod tests {
    use crate::report::tests::measured;

    use super::*;

    #[test]
    fn latency_is_drawn_with_every_rate() {
        let drawing = latency(&measured()).unwrap();
        // 20 and 1,375 a second, on five lines.
        assert_eq!(drawing.matches("<circle").count(), 10, "{drawing}");
        assert!(drawing.contains("settled, p50, in the database"));
    }

    #[test]
    fn one_rate_is_no_line() {
        let mut measured = measured();
        measured.rates.truncate(1);
        assert_eq!(latency(&measured), None);
    }

    #[test]
    fn an_orders_time_is_drawn_for_each_rate_and_the_closed_loop_with_its_sum() {
        let drawing = order_time(&measured()).unwrap();
        // 6 s of 20,000 orders.
        assert_eq!(drawing.matches("0.30 ms an order, 1.25 cores").count(), 3, "{drawing}");
        assert!(drawing.contains("64 connections, 2,750/s"), "{drawing}");
    }

    #[test]
    fn drawings_are_files_and_what_was_not_measured_is_not_drawn() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("performance");
        assert_eq!(write(&measured(), &below).unwrap(), ["latency.svg", "order-time.svg"]);
        assert_eq!(write_memory(&[(1e4, 100.0), (2e4, 110.0)], &below).unwrap(), "memory.svg");
        for name in ["latency.svg", "order-time.svg", "memory.svg"] {
            let text = std::fs::read_to_string(below.join(name)).unwrap();
            assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"), "{text}");
            assert!(text.contains("prefers-color-scheme: dark"), "{text}");
        }
        assert!(write(&Measured::default(), &below).unwrap().is_empty());
    }
}
