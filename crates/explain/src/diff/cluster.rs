//! Words for clusters: destinations that come and go, how they are called and balanced.

use serde_json::Value as Json;

use super::fields::{differences, take, value};
use super::host::Destination;
use super::statement::Said;

/// Fields with a name that people know.
const NAMED: [(&str, &str); 6] = [
    ("lb_policy", "load balancing"),
    ("connect_timeout", "the connect timeout"),
    ("type", "the way in which addresses are found"),
    ("dns_refresh_rate", "the time between two look-ups of names"),
    ("max_requests_per_connection", "the most requests of a connection"),
    ("circuit_breakers", "limits of connections and requests"),
];

pub(super) fn words(name: &str, sides: &[Json; 2]) -> Vec<Said> {
    let destination = Destination::of(name);
    let said = |text: String| match destination.is_inbound {
        true => Said::new(text),
        false => Said::of(destination.host, text),
    };
    let to = destination.said();
    let port = if destination.port.is_empty() || destination.is_inbound {
        String::new()
    } else {
        format!(" (port {})", destination.port)
    };
    match sides {
        [Json::Null, _] => return vec![said(format!("{to}{port} becomes a destination"))],
        [_, Json::Null] => return vec![said(format!("{to}{port} is no destination any more"))],
        _ => {}
    }
    let mut sides = sides.clone();
    let mut told = Vec::new();
    let sockets = take(&mut sides, "transport_socket");
    let matches = take(&mut sides, "transport_socket_matches");
    let [before, after] = [0, 1].map(|side| spoken(&sockets[side], &matches[side]));
    match sockets[0] == sockets[1] && matches[0] == matches[1] {
        true => {}
        false if before != after => {
            told.push(said(format!("calls to {to}{port} go in {after} instead of {before}")))
        }
        false => {
            let changes = [differences(&sockets), differences(&matches)].concat();
            told.extend(changes.into_iter().map(|change| said(format!("TLS towards {to}{port}: {change}"))));
        }
    }
    for (field, what) in NAMED {
        let [before, after] = take(&mut sides, field);
        match (&before, &after) {
            (before, after) if before == after => {}
            (Json::Object(_) | Json::Null, Json::Object(_) | Json::Null) => {
                let changes = differences(&[before, after]);
                told.extend(
                    changes.into_iter().map(|change| said(format!("{what} of {to}{port}: {change}"))),
                );
            }
            _ => {
                let (before, after) = (or_default(&before), or_default(&after));
                told.push(said(format!("{what} of {to}{port} changes from {before} to {after}")));
            }
        }
    }
    told.extend(
        outliers(&mut sides).into_iter().map(|what| said(format!("outlier detection of {to}{port} {what}"))),
    );
    told.extend(
        differences(&sides).into_iter().map(|change| said(format!("the destination {to}{port}: {change}"))),
    );
    told
}

/// The JSON of protobuf leaves out what is the default.
fn or_default(json: &Json) -> String {
    if json.is_null() { "the default".to_owned() } else { value(json) }
}

fn outliers(sides: &mut [Json; 2]) -> Vec<String> {
    let sides = take(sides, "outlier_detection");
    match &sides {
        [Json::Null, Json::Null] => Vec::new(),
        [Json::Null, _] => vec!["begins".to_owned()],
        [_, Json::Null] => vec!["ends".to_owned()],
        _ => differences(&sides).into_iter().map(|change| format!("changes: {change}")).collect(),
    }
}

/// What a caller's bytes travel in.
fn spoken(socket: &Json, matches: &Json) -> String {
    let is_tls = |socket: &Json| socket["name"] == "envoy.transport_sockets.tls";
    let is_mutual = |socket: &Json| socket.to_string().contains("\"istio\"");
    let alternatives = matches.as_array().map(Vec::as_slice).unwrap_or_default();
    if alternatives.iter().any(|each| is_tls(&each["transport_socket"])) {
        return "mutual TLS where the other side has it".to_owned();
    }
    match is_tls(socket) {
        true if is_mutual(socket) => "mutual TLS of the mesh".to_owned(),
        true => "TLS".to_owned(),
        false => "plaintext".to_owned(),
    }
}
