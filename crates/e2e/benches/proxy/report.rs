//! The figures as tables of medians and ratios, and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::workload::{Sample, Workload};

/// Memory of a proxy, fresh and with idle connections.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Memory {
    pub(crate) idle_kib: f64,
    /// Without the pages of the executable and other files, which processes share.
    pub(crate) idle_private_kib: f64,
    pub(crate) kib_per_idle_connection: f64,
    pub(crate) idle_connections: usize,
    pub(crate) kib_per_idle_tls_connection: f64,
    /// `VmHWM` after all workloads without TLS.
    pub(crate) peak_kib: f64,
    /// The same of both proxies of the pair, after its workloads.
    pub(crate) pair_peak_kib: f64,
}

/// Everything that a run found, by peer and workload.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Results {
    pub(crate) samples: BTreeMap<String, BTreeMap<&'static str, Vec<Sample>>>,
    pub(crate) memory: BTreeMap<&'static str, Memory>,
}

/// A figure of a peer, and the same of all others.
type Row = (String, BTreeMap<&'static str, f64>);

pub(crate) fn table(results: &Results) -> Result<String, std::fmt::Error> {
    let peers: Vec<&'static str> = ["meltemi", "envoy", "haproxy", "nginx"]
        .into_iter()
        .filter(|p| results.memory.contains_key(p))
        .collect();
    let mut text = String::from("| figure |");
    for peer in &peers {
        write!(text, " {peer} |")?;
    }
    for peer in &peers[1..] {
        write!(text, " ÷ {peer} |")?;
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(peers.len() * 2 - 1));
    text.push('\n');
    for (name, values) in rows(results) {
        row(&mut text, &name, &values, &peers)?;
    }
    Ok(text)
}

fn row(
    text: &mut String,
    name: &str,
    values: &BTreeMap<&'static str, f64>,
    peers: &[&'static str],
) -> std::fmt::Result {
    write!(text, "| {name} |")?;
    for peer in peers {
        match values.get(peer) {
            Some(value) if *value >= 1000.0 => write!(text, " {value:.0} |")?,
            Some(value) => write!(text, " {value:.1} |")?,
            None => text.push_str(" – |"),
        }
    }
    for peer in &peers[1..] {
        match (values.get("meltemi"), values.get(peer)) {
            (Some(ours), Some(theirs)) if *theirs > 0.0 => write!(text, " {:.2} |", ours / theirs)?,
            _ => text.push_str(" – |"),
        }
    }
    text.push('\n');
    Ok(())
}

fn rows(results: &Results) -> Vec<Row> {
    let mut rows = Vec::new();
    for workload in Workload::ALL {
        let title = workload.title();
        let Some(by_peer) = results.samples.get(title) else { continue };
        rows.push((format!("{title}: per CPU-second"), medians(by_peer, |s| Some(s.per_cpu_s))));
        rows.push((format!("{title}: per second"), medians(by_peer, |s| Some(s.per_s))));
        for (i, quantile) in ["p50", "p99", "p99.9"].iter().enumerate() {
            let values = medians(by_peer, |s| s.latency_us.map(|us| us[i]));
            if !values.is_empty() {
                rows.push((format!("{title}: {quantile} at 4,000/s, µs"), values));
            }
        }
    }
    let memory = |of: fn(&Memory) -> f64| results.memory.iter().map(|(peer, m)| (*peer, of(m))).collect();
    rows.push(("RSS idle, MiB".to_owned(), memory(|m| m.idle_kib / 1024.0)));
    rows.push(("RSS idle without file pages, MiB".to_owned(), memory(|m| m.idle_private_kib / 1024.0)));
    rows.push(("RSS at peak of all workloads, MiB".to_owned(), memory(|m| m.peak_kib / 1024.0)));
    rows.push(("RSS of a pair at peak, MiB".to_owned(), memory(|m| m.pair_peak_kib / 1024.0)));
    rows.push(("KiB per idle connection".to_owned(), memory(|m| m.kib_per_idle_connection)));
    rows.push(("KiB per idle TLS connection".to_owned(), memory(|m| m.kib_per_idle_tls_connection)));
    rows
}

fn medians(
    by_peer: &BTreeMap<&'static str, Vec<Sample>>,
    of: impl Fn(&Sample) -> Option<f64>,
) -> BTreeMap<&'static str, f64> {
    let median = |samples: &Vec<Sample>| {
        let mut values: Vec<f64> = samples.iter().filter_map(&of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    by_peer.iter().filter_map(|(peer, samples)| Some((*peer, median(samples)?))).collect()
}
