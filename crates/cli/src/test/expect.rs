//! [`Expectation`]: what should come of a request.

use meltemi_explain::{Destination as Met, Journey};
use serde::Deserialize;

/// What should come of a request. What is not said may be anything.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Expectation {
    /// Every cluster that the first proxy may send it to.
    destinations: Option<Vec<Destination>>,
    /// The status of an answer that the first proxy gives itself.
    status: Option<u16>,
    /// Where a redirect leads.
    location: Option<String>,
    /// The name of the route that is taken.
    route: Option<String>,
    /// Why it goes nowhere, such as `no_route`; `none` where it must not fail at any proxy.
    error: Option<String>,
    /// What is done on the way at the first proxy, in the words of `meltemi explain`.
    effects: Vec<String>,
}

/// A destination and its share.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Destination {
    /// The service, in full or as its first labels (`reviews`, `reviews.shop`).
    host: String,
    #[serde(default)]
    subset: String,
    #[serde(default)]
    port: Option<u16>,
    /// Share in percent; absent: any.
    #[serde(default)]
    percent: Option<f64>,
}

impl Expectation {
    /// Everything that is not as expected.
    pub(super) fn differences(&self, journey: &Journey) -> Vec<String> {
        let Some(first) = journey.hops.first() else { return vec!["nobody saw the request".to_owned()] };
        let told = &first.explanation;
        let mut found = Vec::new();
        let mut differ = |what: &str, wanted: &str, got: &str| {
            if wanted != got {
                found.push(format!("{what}: expected {wanted}, got {got}"));
            }
        };
        let text = |number: Option<u16>| number.map_or("none".to_owned(), |number| number.to_string());
        if self.status.is_some() {
            differ("status", &text(self.status), &text(told.status));
        }
        if let Some(location) = &self.location {
            differ("location", location, &told.location);
        }
        if let Some(route) = &self.route {
            differ("route", route, &told.verdict.route);
        }
        if let Some(error) = &self.error {
            differ("error", error, &failure(journey));
        }
        for effect in self.effects.iter().filter(|effect| !told.effects.contains(effect)) {
            differ("effects", effect, &told.effects.join(", "));
        }
        if let Some(wanted) = &self.destinations {
            found.extend(destinations(wanted, &first.destinations));
        }
        found
    }
}

/// The first error of any proxy, `none` without one.
fn failure(journey: &Journey) -> String {
    let first = journey.hops.iter().find_map(|hop| hop.explanation.verdict.error);
    let name = first.and_then(|error| serde_json::to_value(error).ok()?.as_str().map(str::to_owned));
    name.unwrap_or_else(|| "none".to_owned())
}

fn destinations(wanted: &[Destination], met: &[Met]) -> Vec<String> {
    let mut found = Vec::new();
    // A share of nothing is no destination.
    let met: Vec<&Met> = met.iter().filter(|destination| destination.percent > 0.0).collect();
    let names: Vec<&str> = met.iter().map(|destination| destination.cluster.as_str()).collect();
    let names = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
    for destination in wanted {
        match met.iter().find(|met| destination.is(&met.cluster)) {
            None => found.push(format!("destinations: {destination} is not among {names}")),
            Some(met) => {
                let percent = destination.percent.unwrap_or(met.percent);
                if (percent - met.percent).abs() > 0.05 {
                    found.push(format!(
                        "destinations: {destination} gets {:.1} %, not {percent} %",
                        met.percent
                    ));
                }
            }
        }
    }
    let unexpected = met.iter().filter(|met| !wanted.iter().any(|destination| destination.is(&met.cluster)));
    found.extend(unexpected.map(|met| format!("destinations: {} was not expected", met.cluster)));
    found
}

impl Destination {
    /// Whether a cluster, `outbound|PORT|SUBSET|HOST`, is this destination.
    fn is(&self, cluster: &str) -> bool {
        let mut parts = cluster.split('|');
        let (Some("outbound"), Some(port), Some(subset), Some(host)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return cluster == self.host;
        };
        let is_host =
            host == self.host || host.strip_prefix(&self.host).is_some_and(|rest| rest.starts_with('.'));
        is_host && subset == self.subset && self.port.is_none_or(|wanted| port == wanted.to_string())
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.host)?;
        if !self.subset.is_empty() {
            write!(f, " subset {}", self.subset)?;
        }
        self.port.map_or(Ok(()), |port| write!(f, " port {port}"))
    }
}
