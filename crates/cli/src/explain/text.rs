//! An explanation for people.

use std::io::{self, Write};

use meltemi_explain::{Decision, Destination, Explanation, Hop, Journey};

/// Width of the labels in front of the facts.
const LABEL: usize = 13;

/// Endpoints of one cluster that are listed.
const MAX_ENDPOINTS: usize = 8;

/// Writes every hop.
pub(super) fn write(journey: &Journey, out: &mut impl Write) -> io::Result<()> {
    for (number, hop) in journey.hops.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        writeln!(out, "{}. {} of {}", number + 1, kind(hop), hop.proxy)?;
        write_explanation(&hop.explanation, out)?;
        hop.destinations.iter().try_for_each(|destination| write_destination(destination, out))?;
    }
    Ok(())
}

fn kind(hop: &Hop) -> String {
    match hop.direction {
        "gateway" => "the gateway".to_owned(),
        direction => format!("the sidecar ({direction})"),
    }
}

fn write_explanation(told: &Explanation, out: &mut impl Write) -> io::Result<()> {
    let verdict = &told.verdict;
    fact(out, "listener", &verdict.listener)?;
    fact(out, "filter chain", &verdict.filter_chain)?;
    fact(out, "connection", &told.security)?;
    fact(out, "routes", &verdict.route_config)?;
    fact(out, "virtual host", &verdict.virtual_host)?;
    fact(out, "route", &verdict.route)?;
    for effect in &told.effects {
        fact(out, "on the way", effect)?;
    }
    if let Some(error) = verdict.error {
        let name = serde_json::to_value(error).unwrap_or_default();
        fact(out, "fails", name.as_str().unwrap_or_default())?;
    }
    fact(out, "in words", &verdict.detail)?;
    for decision in &verdict.decided_by {
        fact(out, "decided by", &written(decision))?;
    }
    for miss in &told.near_misses {
        let who = miss.written.as_ref().map_or_else(|| miss.route.clone(), written);
        fact(out, "passed by", &format!("{who}: wanted {}", miss.unmet))?;
    }
    Ok(())
}

/// `VirtualService/default/reviews spec.http[0]  shop.yaml:17`
fn written(decision: &Decision) -> String {
    let Decision { object, field, file, line } = decision;
    let space = if field.is_empty() { "" } else { " " };
    format!("{object}{space}{field}  {file}:{line}")
}

fn write_destination(destination: &Destination, out: &mut impl Write) -> io::Result<()> {
    let share = percent(destination.percent);
    fact(out, "cluster", &format!("{}  {share}  {}", destination.cluster, destination.security))?;
    for chance in destination.endpoints.iter().take(MAX_ENDPOINTS) {
        let share = match chance.priority {
            0 => percent(chance.percent),
            waits if chance.percent == 0.0 => format!("when others fail (priority {waits})"),
            _ => percent(chance.percent),
        };
        let line = format!("  {}  {share}  {}  {}", chance.address, chance.workload, chance.locality);
        fact(out, "", line.trim_end())?;
    }
    match destination.endpoints.len() {
        more if more > MAX_ENDPOINTS => fact(out, "", &format!("  and {} more", more - MAX_ENDPOINTS)),
        _ => Ok(()),
    }
}

fn percent(value: f64) -> String {
    let text = format!("{value:.1}");
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}

/// A line, unless there is nothing to say.
fn fact(out: &mut impl Write, label: &str, value: &str) -> io::Result<()> {
    match value.is_empty() {
        true => Ok(()),
        false => writeln!(out, "   {label:LABEL$} {value}"),
    }
}
