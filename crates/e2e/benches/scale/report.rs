//! The figures as tables, and as JSON.

use crate::measure::Outcome;

/// One setup, while the others run.
pub(crate) fn lines(outcome: &Outcome) -> String {
    let mut text = format!(
        "  start: {:.0} ms, {} MiB, CPU {:.0} ms; RSS {:.0} MiB, peak {:.0} MiB\n",
        outcome.start_ms,
        outcome.start_bytes >> 20,
        outcome.start_cpu_ms,
        outcome.rss_kib / 1024.0,
        outcome.peak_kib / 1024.0,
    );
    for change in &outcome.changes {
        text += &format!(
            "  {}: p50 {:.0} ms, p99 {:.0} ms, {} KiB, CPU {:.0} ms\n",
            change.name,
            change.p50_ms,
            change.p99_ms,
            change.bytes >> 10,
            change.cpu_ms
        );
    }
    text
}

pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "| services | clients | mode | change | p50, ms | p99, ms | KiB pushed | CPU, ms | RSS, MiB (peak) |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for outcome in outcomes {
        let Outcome { services, clients, mode, .. } = outcome;
        let memory = format!("{:.0} ({:.0})", outcome.rss_kib / 1024.0, outcome.peak_kib / 1024.0);
        text += &format!(
            "| {services} | {clients} | {mode} | start | – | {:.0} | {} | {:.0} | {memory} |\n",
            outcome.start_ms,
            outcome.start_bytes >> 10,
            outcome.start_cpu_ms,
        );
        for change in &outcome.changes {
            text += &format!(
                "| {services} | {clients} | {mode} | {} | {:.0} | {:.0} | {} | {:.0} | |\n",
                change.name,
                change.p50_ms,
                change.p99_ms,
                change.bytes >> 10,
                change.cpu_ms,
            );
        }
    }
    text
}
