//! The log of ejections: a line of JSON for each.
//!
//! Source: `envoy.data.cluster.v3.OutlierDetectionEvent`, written to
//! `cluster_manager.outlier_detection.event_log_path` with Envoy's order of fields.

use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use meltemi_compile::program::Ejection;
use tokio::time::Instant;

use super::ejection::{Subject, origin};
use crate::access_log::LogSink;

/// Where events go.
#[derive(Debug, Clone)]
pub struct EventLog {
    sink: LogSink,
    path: Arc<str>,
}

impl EventLog {
    /// Appends to this file.
    pub fn new(sink: LogSink, path: &str) -> EventLog {
        EventLog { sink, path: path.into() }
    }

    /// Writes a line, without its end.
    pub(crate) fn line(&self, mut line: String) {
        line.push('\n');
        self.sink.write(&self.path, line.into_bytes());
    }
}

/// The time now as events show it, in milliseconds.
pub(crate) fn timestamp() -> String {
    let now = Timestamp::now();
    let rounded = Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now);
    rounded.to_string()
}

/// What happened.
pub(super) enum Action {
    Eject { ejection: Ejection, enforced: bool },
    Uneject,
}

/// Logs an event of a host, if events are logged.
pub(super) fn log(subject: &Subject<'_>, action: &Action) {
    let Some(log) = &subject.cluster.events else { return };
    let past = *subject.state.outlier.ejections();
    let (ejection, enforced, name, last) = match action {
        Action::Eject { ejection, enforced } => (*ejection, *enforced, "EJECT", past.returned_at),
        // An uneject event has no type of its own: the first one stands there.
        Action::Uneject => (Ejection::Consecutive5xx, false, "UNEJECT", past.ejected_at),
    };
    let mut line = format!(r#"{{"type":"{}","timestamp":"{}""#, type_name(ejection), timestamp());
    if let Some(last) = last {
        let seconds = Instant::now().saturating_duration_since(last).as_secs();
        put(&mut line, format_args!(r#","secs_since_last_action":"{seconds}""#));
    }
    let cluster = serde_json::Value::from(&*subject.cluster.name);
    put(&mut line, format_args!(r#","cluster_name":{cluster},"upstream_url":"{}""#, subject.address));
    let count = past.count;
    put(&mut line, format_args!(r#","action":"{name}","num_ejections":{count},"enforced":{enforced}"#));
    if let Action::Eject { .. } = action {
        line.push_str(&reason(subject, ejection));
    }
    line.push('}');
    log.line(line);
}

fn put(line: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = line.write_fmt(text);
}

/// Rates are whole numbers in the event.
fn reason(subject: &Subject<'_>, ejection: Ejection) -> String {
    let host = subject.state.outlier.success_rate(origin(ejection)) as u32;
    match ejection {
        Ejection::SuccessRate | Ejection::SuccessRateLocalOrigin => {
            let normal = subject.cluster.outlier.rates()[origin(ejection) as usize];
            let (average, threshold) = normal.map_or((0, 0), |n| (n.average as u32, n.threshold as u32));
            format!(
                r#","eject_success_rate_event":{{"host_success_rate":{host},"cluster_average_success_rate":{average},"cluster_success_rate_ejection_threshold":{threshold}}}"#
            )
        }
        Ejection::FailurePercentage | Ejection::FailurePercentageLocalOrigin => {
            format!(r#","eject_failure_percentage_event":{{"host_success_rate":{host}}}"#)
        }
        _ => r#","eject_consecutive_event":{}"#.to_owned(),
    }
}

fn type_name(ejection: Ejection) -> &'static str {
    match ejection {
        Ejection::Consecutive5xx => "CONSECUTIVE_5XX",
        Ejection::ConsecutiveGatewayFailure => "CONSECUTIVE_GATEWAY_FAILURE",
        Ejection::SuccessRate => "SUCCESS_RATE",
        Ejection::ConsecutiveLocalOriginFailure => "CONSECUTIVE_LOCAL_ORIGIN_FAILURE",
        Ejection::SuccessRateLocalOrigin => "SUCCESS_RATE_LOCAL_ORIGIN",
        Ejection::FailurePercentage => "FAILURE_PERCENTAGE",
        Ejection::FailurePercentageLocalOrigin => "FAILURE_PERCENTAGE_LOCAL_ORIGIN",
    }
}
