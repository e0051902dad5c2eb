//! What came back.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest latency told apart: an hour, in microseconds.
const LATENCY_MAX_US: u64 = 3_600_000_000;

/// Distinct values of the version header that are counted; the rest is `other`.
const VERSIONS_MAX: usize = 64;

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    /// No connection came up.
    Connect,
    /// The connection ended before the response.
    Closed,
    /// The connection ended inside the response.
    Truncated,
    /// The server reset the stream or refused it.
    Reset,
    /// The response was not HTTP.
    Protocol,
    /// No complete response within `--timeout`.
    Timeout,
}

impl Failure {
    pub(super) fn name(self) -> &'static str {
        match self {
            Failure::Connect => "connect",
            Failure::Closed => "closed",
            Failure::Truncated => "truncated",
            Failure::Reset => "reset",
            Failure::Protocol => "protocol",
            Failure::Timeout => "timeout",
        }
    }
}

/// The counts of a run.
pub(super) struct Tally {
    /// Microseconds from the intended time of sending to the end of the response.
    pub(super) latency_us: Histogram<u64>,
    pub(super) statuses: BTreeMap<u16, u64>,
    pub(super) versions: BTreeMap<String, u64>,
    pub(super) failures: BTreeMap<Failure, u64>,
    /// Requests sent again because their connection had been closed before.
    pub(super) resent: u64,
    pub(super) connections: u64,
    pub(super) body_bytes: u64,
    /// Requests that left more than a millisecond after their time.
    pub(super) late: u64,
    pub(super) last_error: Option<String>,
}

impl Tally {
    pub(super) fn new() -> anyhow::Result<Tally> {
        Ok(Tally {
            latency_us: Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)?,
            statuses: BTreeMap::new(),
            versions: BTreeMap::new(),
            failures: BTreeMap::new(),
            resent: 0,
            connections: 0,
            body_bytes: 0,
            late: 0,
            last_error: None,
        })
    }

    /// Counts a complete response.
    pub(super) fn answered(&mut self, status: u16, version: Option<&str>, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MAX_US);
        self.latency_us.saturating_record(us.max(1));
        *self.statuses.entry(status).or_default() += 1;
        let Some(version) = version else { return };
        if let Some(count) = self.versions.get_mut(version) {
            *count += 1;
        } else {
            let known = if self.versions.len() < VERSIONS_MAX { version } else { "other" };
            *self.versions.entry(known.to_owned()).or_default() += 1;
        }
    }

    /// Counts a request without one.
    pub(super) fn failed(&mut self, failure: Failure, error: String) {
        *self.failures.entry(failure).or_default() += 1;
        self.last_error = Some(error);
    }

    /// Requests that are over.
    pub(super) fn done(&self) -> u64 {
        self.latency_us.len() + self.failed_count()
    }

    pub(super) fn failed_count(&self) -> u64 {
        self.failures.values().sum()
    }

    /// For the live line.
    pub(super) fn line(&self) -> String {
        format!(
            "{} answered, {} failed, p50 {:.2} ms, p99 {:.2} ms",
            self.latency_us.len(),
            self.failed_count(),
            self.latency_us.value_at_quantile(0.5) as f64 / 1000.0,
            self.latency_us.value_at_quantile(0.99) as f64 / 1000.0,
        )
    }
}
