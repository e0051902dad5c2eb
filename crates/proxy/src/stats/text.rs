//! Statistics in the forms of `/stats`: lines, and JSON.
//!
//! Source: <https://www.envoyproxy.io/docs/envoy/latest/operations/admin#get--stats>.

use std::fmt::Write as _;

use serde_json::json;

use super::sample::{Sample, Value};
use super::value::Distribution;

/// The quantiles that Envoy prints.
const QUANTILES: [f64; 10] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0];

/// `name: value` lines by name; histograms at the end.
pub fn lines(samples: &[Sample]) -> String {
    let mut out = String::new();
    let mut put = |line: std::fmt::Arguments<'_>| {
        out.write_fmt(line).expect("invariant: writing to a string");
        out.push('\n');
    };
    for sample in samples {
        match &sample.value {
            Value::Counter(n) | Value::Gauge(n) => put(format_args!("{}: {n}", sample.name)),
            Value::Text(text) => put(format_args!("{}: \"{text}\"", sample.name)),
            Value::Histogram(_) => {}
        }
    }
    for sample in samples {
        if let Value::Histogram(distribution) = &sample.value {
            put(format_args!("{}: {}", sample.name, summary(distribution)));
        }
    }
    out
}

/// Envoy shows the last interval and the total; there is no interval here, so `nan`.
fn summary(distribution: &Distribution) -> String {
    if distribution.count() == 0 {
        return "No recorded values".to_owned();
    }
    let quantile = |q: &f64| Some(format!("P{}(nan,{})", q * 100.0, distribution.quantile(*q)?));
    QUANTILES.iter().filter_map(quantile).collect::<Vec<_>>().join(" ")
}

/// The JSON of `?format=json`.
pub fn json(samples: &[Sample]) -> serde_json::Value {
    let mut stats: Vec<serde_json::Value> = samples
        .iter()
        .filter_map(|sample| match &sample.value {
            Value::Counter(n) | Value::Gauge(n) => Some(json!({"name": sample.name, "value": n})),
            Value::Text(text) => Some(json!({"name": sample.name, "value": text})),
            Value::Histogram(_) => None,
        })
        .collect();
    let computed: Vec<serde_json::Value> = samples
        .iter()
        .filter_map(|sample| match &sample.value {
            Value::Histogram(distribution) => {
                let values = QUANTILES.iter().map(|q| json!({"cumulative": distribution.quantile(*q)}));
                Some(json!({"name": sample.name, "values": values.collect::<Vec<_>>()}))
            }
            _ => None,
        })
        .collect();
    if !computed.is_empty() {
        let supported: Vec<f64> = QUANTILES.iter().map(|q| q * 100.0).collect();
        stats.push(json!({"histograms": {"supported_quantiles": supported, "computed_quantiles": computed}}));
    }
    json!({ "stats": stats })
}
