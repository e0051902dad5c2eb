//! Words for routes: which requests go where, in which shares, how long they may take, and what is done to them.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::fields::{differences, take, value};
use super::host::{Destination, short};
use super::statement::Said;

/// Where a part of a route configuration comes from, by side (0 before, 1 after) and path.
type OriginOf<'a> = dyn Fn(usize, &str) -> Option<String> + 'a;

/// The filter that makes faults.
const FAULT: &str = "envoy.filters.http.fault";

pub(super) fn words(name: &str, sides: &[Json; 2], origin: &OriginOf<'_>) -> Vec<Said> {
    match sides {
        [Json::Null, after] => return vec![Said::new(format!("routes `{name}` come: {}", domains(after)))],
        [before, Json::Null] => return vec![Said::new(format!("routes `{name}` go: {}", domains(before)))],
        _ => {}
    }
    let mut sides = sides.clone();
    let lists = take(&mut sides, "virtual_hosts");
    let mut told = Vec::new();
    let [before, after] =
        lists.each_ref().map(|list| by(list, |host| host["name"].as_str().unwrap_or_default().into()));
    for (key, (index, host)) in &after {
        let Some((old_index, old)) = before.get(key) else {
            told.push(Said::of(&host_of(host), format!("requests for {} are known", said_host(host))));
            continue;
        };
        let place = Place { origin, hosts: [*old_index, *index] };
        told.extend(virtual_host(&[old.clone(), host.clone()], &place));
    }
    for (key, (_, host)) in &before {
        if !after.contains_key(key) {
            let text = format!("requests for {} are not known any more", said_host(host));
            told.push(Said::of(&host_of(host), text));
        }
    }
    told.extend(
        differences(&sides).into_iter().map(|change| Said::new(format!("the routes `{name}`: {change}"))),
    );
    told
}

/// Which virtual hosts are compared.
struct Place<'a> {
    origin: &'a OriginOf<'a>,
    hosts: [usize; 2],
}

impl Place<'_> {
    /// What the user wrote: now, else before.
    fn by(&self, routes: [Option<usize>; 2]) -> Option<String> {
        let of = |side: usize| {
            let path = format!("virtual_hosts[{}].routes[{}]", self.hosts[side], routes[side]?);
            (self.origin)(side, &path)
        };
        of(1).or_else(|| of(0))
    }
}

/// The elements of a list by a key, with their places; equal keys are told apart by a number.
fn by(list: &Json, key: impl Fn(&Json) -> String) -> BTreeMap<(String, usize), (usize, Json)> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for (index, element) in list.as_array().into_iter().flatten().enumerate() {
        let key = key(element);
        let number = seen.entry(key.clone()).or_default();
        found.insert((key, *number), (index, element.clone()));
        *number += 1;
    }
    found
}

/// The host that a virtual host stands for: its name without the port.
fn host_of(host: &Json) -> String {
    let name = host["name"].as_str().unwrap_or_default();
    name.rsplit_once(':')
        .filter(|(_, port)| port.parse::<u16>().is_ok())
        .map_or(name, |(host, _)| host)
        .to_owned()
}

fn said_host(host: &Json) -> String {
    short(&host_of(host))
}

fn domains(config: &Json) -> String {
    let hosts: Vec<String> =
        config["virtual_hosts"].as_array().into_iter().flatten().map(said_host).collect();
    if hosts.is_empty() { "for no host".to_owned() } else { format!("for {}", hosts.join(", ")) }
}

fn virtual_host(sides: &[Json; 2], place: &Place<'_>) -> Vec<Said> {
    let (host, to) = (host_of(&sides[1]), said_host(&sides[1]));
    let mut sides = sides.clone();
    let lists = take(&mut sides, "routes");
    let [before, after] = lists.each_ref().map(|list| by(list, |route| route["match"].to_string()));
    let mut told = Vec::new();
    let mut say = |text: String, routes: [Option<usize>; 2]| {
        told.push(Said { by: place.by(routes), ..Said::of(&host, text) });
    };
    for (key, (index, route)) in &after {
        match before.get(key) {
            None => say(format!("{} {}", requests(&to, route), goal(route)), [None, Some(*index)]),
            Some((old_index, old)) => {
                for text in route_words(&to, &[old.clone(), route.clone()]) {
                    say(text, [Some(*old_index), Some(*index)]);
                }
            }
        }
    }
    for (key, (index, route)) in &before {
        if !after.contains_key(key) {
            let (what, before) = (requests(&to, route), goal(route));
            let text = format!("{what} have no route of their own any more; before, they {before}");
            say(text, [Some(*index), None]);
        }
    }
    if is_reordered(&before, &after) {
        say(format!("the routes of {to} are tried in another order"), [None, None]);
    }
    for change in differences(&sides) {
        say(format!("requests for {to}: {change}"), [None, None]);
    }
    told
}

/// Whether routes of both sides have changed places among themselves.
fn is_reordered(
    before: &BTreeMap<(String, usize), (usize, Json)>,
    after: &BTreeMap<(String, usize), (usize, Json)>,
) -> bool {
    let mut places: Vec<(usize, usize)> =
        before.iter().filter_map(|(key, (old, _))| Some((*old, after.get(key)?.0))).collect();
    places.sort_unstable();
    !places.is_sorted_by_key(|(_, new)| *new)
}

/// `requests for reviews`, `requests for reviews with /ratings* and end-user: jason`.
fn requests(to: &str, route: &Json) -> String {
    let matched = &route["match"];
    let mut parts = Vec::new();
    let text = |json: &Json| json.as_str().unwrap_or_default().to_owned();
    match matched["prefix"].as_str() {
        None | Some("/") => {}
        Some(prefix) => parts.push(format!("{prefix}*")),
    }
    for field in ["path", "path_separated_prefix"] {
        parts.extend(matched[field].as_str().map(str::to_owned));
    }
    parts.extend(matched["safe_regex"]["regex"].as_str().map(|regex| format!("regex {regex}")));
    for kind in ["headers", "query_parameters"] {
        for each in matched[kind].as_array().into_iter().flatten() {
            let mut rest = each.clone();
            let name = rest.as_object_mut().and_then(|fields| fields.remove("name")).unwrap_or_default();
            let pattern = rest["string_match"].as_object().and_then(|wanted| wanted.values().next()).cloned();
            let shown = pattern.filter(|_| rest["invert_match"].is_null()).unwrap_or(rest);
            parts.push(format!("{}: {}", text(&name), value(&shown)));
        }
    }
    if parts.is_empty() {
        format!("requests for {to}")
    } else {
        format!("requests for {to} with {}", parts.join(" and "))
    }
}

/// What becomes of the requests of a route.
fn goal(route: &Json) -> String {
    if let Some(status) = route["direct_response"]["status"].as_u64() {
        return format!("are answered with {status}");
    }
    if route.get("redirect").is_some() {
        return "are redirected".to_owned();
    }
    let shares = shares(&route["route"]);
    match shares.iter().next() {
        None => "go on".to_owned(),
        Some((only, _)) if shares.len() == 1 => format!("go to {}", Destination::of(only).said()),
        _ => format!("are shared: {}", list(&shares, "")),
    }
}

/// The destinations of an action with their weights.
fn shares(action: &Json) -> BTreeMap<String, u64> {
    if let Some(cluster) = action["cluster"].as_str() {
        return BTreeMap::from([(cluster.to_owned(), 100)]);
    }
    let weighted = action["weighted_clusters"]["clusters"].as_array().into_iter().flatten();
    let mut shares = BTreeMap::new();
    for each in weighted {
        let name = each["name"].as_str().unwrap_or_default().to_owned();
        *shares.entry(name).or_default() += each["weight"].as_u64().unwrap_or(0);
    }
    shares
}

/// Shares in percent, rounded to what people write.
fn percent(weight: u64, total: u64) -> String {
    let tenths = (weight * 1000 + total / 2).checked_div(total).unwrap_or(0);
    match tenths % 10 {
        0 => format!("{} %", tenths / 10),
        rest => format!("{}.{rest} %", tenths / 10),
    }
}

/// `90 % v1, 10 % v3`: subsets of the host that is spoken of by their names alone.
fn list(shares: &BTreeMap<String, u64>, of: &str) -> String {
    let total = shares.values().sum();
    let each = shares.iter().filter(|(_, weight)| **weight > 0);
    let each = each.map(|(name, weight)| format!("{} {}", percent(*weight, total), part(name, of)));
    each.collect::<Vec<_>>().join(", ")
}

/// A destination in a sentence about a host.
fn part(cluster: &str, of: &str) -> String {
    let destination = Destination::of(cluster);
    let is_part = !destination.subset.is_empty() && short(destination.host) == of;
    if is_part { destination.subset.to_owned() } else { destination.said() }
}

fn route_words(to: &str, sides: &[Json; 2]) -> Vec<String> {
    let what = requests(to, &sides[1]);
    let mut sides = sides.clone();
    let mut told = Vec::new();
    // Where a route comes from is not what it does.
    let _source = take(&mut sides, "metadata");
    let mut actions = take(&mut sides, "route");
    if !actions[0].is_null() && !actions[1].is_null() {
        told.extend(moved(to, &what, &actions));
        if !told.is_empty() {
            // The name of spans in traces follows the destinations.
            let _name = take(&mut sides, "decorator");
        }
        told.extend(timing(&what, &mut actions));
        let mirrors = take(&mut actions, "request_mirror_policies");
        told.extend(mirrored(&what, &mirrors));
        actions = actions.map(without_destinations);
        told.extend(differences(&actions).into_iter().map(|change| format!("{what}: {change}")));
    } else if actions[0] != actions[1] {
        let [before, after] = [0, 1].map(|side| {
            let mut whole = sides[side].clone();
            whole["route"] = actions[side].clone();
            goal(&whole)
        });
        told.push(format!("{what} {after}; before, they {before}"));
        for field in ["redirect", "direct_response"] {
            if sides[0].get(field).is_none() || sides[1].get(field).is_none() {
                let _said = take(&mut sides, field);
            }
        }
    }
    let mut filters = take(&mut sides, "typed_per_filter_config");
    let faults = take(&mut filters, FAULT);
    told.extend(faulty(&what, &faults));
    // A map that is empty now is none.
    let filters = filters.map(|filters| if filters == json!({}) { Json::Null } else { filters });
    told.extend(differences(&filters).into_iter().map(|change| format!("{what}: {change}")));
    told.extend(differences(&sides).into_iter().map(|change| format!("{what}: {change}")));
    told
}

/// An action without what [`moved`] speaks of; what stands beside a destination (headers) stays.
fn without_destinations(mut action: Json) -> Json {
    if let Some(fields) = action.as_object_mut() {
        fields.remove("cluster");
        let weighted = fields.remove("weighted_clusters");
        let clusters = weighted.as_ref().and_then(|weighted| weighted["clusters"].as_array()).cloned();
        let extras: serde_json::Map<String, Json> = clusters
            .into_iter()
            .flatten()
            .filter_map(|mut cluster| {
                let fields = cluster.as_object_mut()?;
                let name = fields.remove("name")?.as_str()?.to_owned();
                fields.remove("weight");
                (!fields.is_empty()).then(|| (name, Json::Object(fields.clone())))
            })
            .collect();
        if !extras.is_empty() {
            fields.insert("towards".to_owned(), Json::Object(extras));
        }
    }
    action
}

/// Shares that move from one destination to another.
fn moved(to: &str, what: &str, actions: &[Json; 2]) -> Vec<String> {
    let [before, after] = actions.each_ref().map(shares);
    let (old_total, new_total): (u64, u64) = (before.values().sum(), after.values().sum());
    // In one unit, so that shares of different sums can be compared.
    let share = |shares: &BTreeMap<String, u64>, name: &str, other: u64| {
        shares.get(name).copied().unwrap_or(0) * other
    };
    let mut gains: Vec<(String, u64)> = Vec::new();
    let mut is_other = false;
    for name in after.keys().chain(before.keys().filter(|name| !after.contains_key(*name))) {
        let (old, new) = (share(&before, name, new_total), share(&after, name, old_total));
        is_other |= old != new;
        if new > old {
            gains.push((name.clone(), new - old));
        }
    }
    if !is_other {
        return Vec::new();
    }
    let total = old_total * new_total;
    let is_same_host =
        |name: &String| Destination::of(name).host == Destination::of(gains[0].0.as_str()).host;
    let goal = |name: &str| part(name, to);
    let subject = what.strip_prefix("requests for ").unwrap_or(what);
    let rest = format!("(before {}; then {})", list(&before, to), list(&after, to));
    match gains.as_slice() {
        [(name, gain)] => {
            vec![format!("{} of {subject} moves to {} {rest}", percent(*gain, total), goal(name))]
        }
        [] => vec![format!("{what} are shared otherwise {rest}")],
        several if several.iter().all(|(name, _)| is_same_host(name)) => {
            let each =
                several.iter().map(|(name, gain)| format!("{} to {}", percent(*gain, total), goal(name)));
            vec![format!("of {subject} move {} {rest}", each.collect::<Vec<_>>().join(" and "))]
        }
        _ => vec![format!("{what} are shared otherwise {rest}")],
    }
}

fn timing(what: &str, actions: &mut [Json; 2]) -> Vec<String> {
    let mut told = Vec::new();
    let timeouts = take(actions, "timeout");
    if timeouts[0] != timeouts[1] {
        let [before, after] = timeouts.each_ref().map(limit);
        told.push(format!("{what} may take {after} instead of {before}"));
    }
    let mut retries = take(actions, "retry_policy");
    let counts = retries.each_ref().map(|policy| match policy {
        Json::Null => 0,
        policy => policy["num_retries"].as_u64().unwrap_or(1),
    });
    if counts[0] != counts[1] {
        let times = |count: u64| if count == 1 { "once".to_owned() } else { format!("{count} times") };
        told.push(match counts {
            [0, after] => format!("{what} are tried again, up to {}", times(after)),
            [_, 0] => format!("{what} are not tried again any more"),
            [before, after] => {
                format!("{what} are tried again up to {} instead of {}", times(after), times(before))
            }
        });
    }
    if !retries[0].is_null() && !retries[1].is_null() {
        let _told = take(&mut retries, "num_retries");
        told.extend(differences(&retries).into_iter().map(|change| format!("retries of {what}: {change}")));
    }
    // Istio sets it to the same.
    let streams = take(actions, "max_grpc_timeout");
    if streams != timeouts && streams[0] != streams[1] && timeouts[0] == timeouts[1] {
        told.extend(
            differences(&streams).into_iter().map(|change| format!("{what}: max_grpc_timeout{change}")),
        );
    }
    told
}

fn limit(timeout: &Json) -> String {
    match timeout.as_str() {
        Some("0s") => "as long as they like".to_owned(),
        Some(time) => time.to_owned(),
        None => "15s".to_owned(),
    }
}

fn mirrored(what: &str, sides: &[Json; 2]) -> Vec<String> {
    let copies = |policies: &Json| -> Vec<String> {
        let each = policies.as_array().into_iter().flatten().map(|policy| {
            let fraction = &policy["runtime_fraction"]["default_value"];
            let of = match fraction["denominator"].as_str() {
                Some("MILLION") => 1_000_000,
                Some("TEN_THOUSAND") => 10_000,
                _ => 100,
            };
            let share = if fraction.is_null() { 1 } else { fraction["numerator"].as_u64().unwrap_or(0) };
            let total = if fraction.is_null() { 1 } else { of };
            let to = Destination::of(policy["cluster"].as_str().unwrap_or_default()).said();
            format!("{} to {to}", percent(share, total))
        });
        each.collect()
    };
    let [before, after] = sides.each_ref().map(copies);
    match (before.is_empty(), after.is_empty()) {
        _ if before == after => Vec::new(),
        (_, true) => vec![format!("{what} are not mirrored any more")],
        (true, _) => vec![format!("{what} are mirrored: {}", after.join(", "))],
        _ => vec![format!("{what} are mirrored: {} instead of {}", after.join(", "), before.join(", "))],
    }
}

fn faulty(what: &str, sides: &[Json; 2]) -> Vec<String> {
    match sides {
        [before, after] if before == after => Vec::new(),
        [_, Json::Null] => vec![format!("{what} have no injected faults any more")],
        [_, after] => {
            let share = |part: &Json| {
                let total = match part["percentage"]["denominator"].as_str() {
                    Some("MILLION") => 1_000_000,
                    Some("TEN_THOUSAND") => 10_000,
                    _ => 100,
                };
                percent(part["percentage"]["numerator"].as_u64().unwrap_or(0), total)
            };
            let mut faults = Vec::new();
            if let Some(delay) = after["delay"]["fixed_delay"].as_str() {
                faults.push(format!("{} wait {delay}", share(&after["delay"])));
            }
            if let Some(abort) = after.get("abort") {
                let status = abort
                    .get("http_status")
                    .or_else(|| abort.get("grpc_status"))
                    .cloned()
                    .unwrap_or(json!("an error"));
                faults.push(format!("{} fail with {}", share(abort), value(&status)));
            }
            vec![format!("{what} get injected faults: {}", faults.join(", "))]
        }
    }
}
