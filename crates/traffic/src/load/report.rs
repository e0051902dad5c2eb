//! The result of a run, for people and for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::LoadArgs;
use super::tally::Tally;

/// Share of the requests that may leave late or not at all before the result says so.
const SATURATED_SHARE: f64 = 0.01;

/// The result of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) url: String,
    pub(crate) seconds: f64,
    /// Requests per second asked for; 0: closed loop.
    pub(crate) rate: f64,
    /// Complete responses per second.
    pub(crate) achieved_rate: f64,
    /// Complete responses.
    pub(crate) answered: u64,
    /// Requests without a complete response.
    pub(crate) failed: u64,
    /// Responses with a status of 500 or more.
    pub(crate) server_errors: u64,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) versions: BTreeMap<String, u64>,
    pub(crate) failures: BTreeMap<&'static str, u64>,
    /// Text of the last failure.
    pub(crate) last_error: Option<String>,
    /// Requests sent again because their connection had been closed before they arrived.
    pub(crate) resent: u64,
    /// Requests whose time came but that never left.
    pub(crate) unsent: u64,
    /// Requests that left more than a millisecond after their time.
    pub(crate) late: u64,
    /// The rate was not kept: the latencies include waiting in the generator.
    pub(crate) saturated: bool,
    /// Connections opened.
    pub(crate) connections: u64,
    pub(crate) body_bytes: u64,
    pub(crate) latency_ms: Latency,
}

/// From the intended time of sending to the end of the response, in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) min: f64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Report {
    pub(super) fn new(args: &LoadArgs, tally: &Tally, elapsed: Duration, unsent: u64) -> Report {
        let answered = tally.latency_us.len();
        let failed = tally.failed_count();
        let seconds = elapsed.as_secs_f64();
        let share = |count: u64| count as f64 / (answered + failed + unsent).max(1) as f64;
        Report {
            url: args.url.clone(),
            seconds,
            rate: args.rate,
            achieved_rate: answered as f64 / seconds,
            answered,
            failed,
            server_errors: tally.statuses.range(500..).map(|(_, count)| count).sum(),
            statuses: tally.statuses.clone(),
            versions: tally.versions.clone(),
            failures: tally.failures.iter().map(|(failure, count)| (failure.name(), *count)).collect(),
            last_error: tally.last_error.clone(),
            resent: tally.resent,
            unsent,
            late: tally.late,
            saturated: args.rate > 0.0
                && (share(unsent) > SATURATED_SHARE || share(tally.late) > SATURATED_SHARE),
            connections: tally.connections,
            body_bytes: tally.body_bytes,
            latency_ms: Latency::of(tally),
        }
    }
}

impl Latency {
    fn of(tally: &Tally) -> Latency {
        let histogram = &tally.latency_us;
        let quantile = |q: f64| histogram.value_at_quantile(q) as f64 / 1000.0;
        Latency {
            min: histogram.min() as f64 / 1000.0,
            mean: histogram.mean() / 1000.0,
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: histogram.max() as f64 / 1000.0,
        }
    }
}

/// One JSON object.
pub(super) fn json(report: &Report) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(report)?)
}

/// Tables, with what went wrong below them.
pub(super) fn table(report: &Report) -> String {
    let share = |count: u64| {
        format!("{:.1} %", 100.0 * count as f64 / (report.answered + report.failed).max(1) as f64)
    };
    let mut counts = new_table(["what", "count", "share"]);
    for (status, count) in &report.statuses {
        counts.add_row([format!("status {status}"), count.to_string(), share(*count)]);
    }
    for (failure, count) in &report.failures {
        counts.add_row([format!("failed: {failure}"), count.to_string(), share(*count)]);
    }
    for (version, count) in &report.versions {
        counts.add_row([version.clone(), count.to_string(), share(*count)]);
    }
    let mut latency = new_table(["min", "mean", "p50", "p90", "p99", "p99.9", "max"]);
    let figures = &report.latency_ms;
    let row = [figures.min, figures.mean, figures.p50, figures.p90, figures.p99, figures.p999, figures.max];
    latency.add_row(row.map(|ms| format!("{ms:.2} ms")));
    let mut text = format!(
        "{} in {:.1} s: {} answered ({:.1}/s), {} failed, {} connections\n{counts}\n{latency}",
        report.url, report.seconds, report.answered, report.achieved_rate, report.failed, report.connections
    );
    for note in notes(report) {
        text.push('\n');
        text.push_str(&note);
    }
    text
}

fn notes(report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    if report.saturated {
        notes.push(format!(
            "The rate of {}/s was not kept: {} requests left late and {} not at all. Either the server holds all \
             connections (more --connections) or this machine is busy.",
            report.rate, report.late, report.unsent
        ));
    }
    if report.resent > 0 {
        notes.push(format!(
            "{} requests were sent again because their connection had been closed before.",
            report.resent
        ));
    }
    if let Some(error) = &report.last_error {
        notes.push(format!("Last failure: {error}"));
    }
    notes
}

fn new_table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(header);
    table
}
