//! Words for endpoints: who joins a destination and who leaves it.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::fields::{differences, take};
use super::host::Destination;
use super::statement::Said;

/// Addresses that are named; more are counted.
const MAX_NAMED: usize = 3;

pub(super) fn words(name: &str, sides: &[Json; 2]) -> Vec<Said> {
    let destination = Destination::of(name);
    let to = destination.said();
    let mut sides = sides.clone();
    let lists = take(&mut sides, "endpoints");
    let [before, after] = lists.map(|list| endpoints(&list));
    let mut told = Vec::new();
    let missing_in = |these: &BTreeMap<String, Json>, other: &BTreeMap<String, Json>| -> Vec<String> {
        these.keys().filter(|address| !other.contains_key(*address)).cloned().collect()
    };
    let (gained, lost) = (missing_in(&after, &before), missing_in(&before, &after));
    if !gained.is_empty() {
        told.push(format!("{to} gets {}", named(&gained)));
    }
    if !lost.is_empty() {
        let rest = if after.is_empty() { ", and has none left" } else { "" };
        told.push(format!("{to} loses {}{rest}", named(&lost)));
    }
    for (address, old) in &before {
        let Some(new) = after.get(address) else { continue };
        let changes = differences(&[old.clone(), new.clone()]);
        told.extend(changes.into_iter().map(|change| format!("the endpoint {address} of {to}: {change}")));
    }
    let rest = differences(&sides);
    told.extend(rest.into_iter().map(|change| format!("the endpoints of {to}: {change}")));
    told.into_iter().map(|text| Said::of(destination.host, text)).collect()
}

/// Each by its address, with the locality that it is in.
fn endpoints(localities: &Json) -> BTreeMap<String, Json> {
    let list = |json: &Json| json.as_array().cloned().unwrap_or_default();
    let mut found = BTreeMap::new();
    for locality in list(localities) {
        let mut around = locality.clone();
        if let Some(fields) = around.as_object_mut() {
            fields.remove("lb_endpoints");
        }
        for endpoint in list(&locality["lb_endpoints"]) {
            let address = &endpoint["endpoint"]["address"];
            let socket = &address["socket_address"];
            let shown = match (socket["address"].as_str(), socket["port_value"].as_u64()) {
                (Some(ip), Some(port)) => format!("{ip}:{port}"),
                _ => address["pipe"]["path"].as_str().map_or_else(|| address.to_string(), str::to_owned),
            };
            found.insert(shown, json!({ "endpoint": endpoint, "locality": around }));
        }
    }
    found
}

fn named(addresses: &[String]) -> String {
    let (first, rest) = addresses.split_at(addresses.len().min(MAX_NAMED));
    let what = if addresses.len() == 1 { "the endpoint" } else { "the endpoints" };
    match rest.len() {
        0 => format!("{what} {}", first.join(", ")),
        more => format!("{what} {} and {more} more", first.join(", ")),
    }
}
