//! From a connection manager or a TCP proxy to clusters.

use meltemi_compile::matcher::RequestView;
use meltemi_compile::program::{HttpConnectionManager, RouteSource, TcpProxy};
use meltemi_compile::route::{
    ClusterChoice, ClusterName, Forward, Found, RouteAction, RouteTable, VirtualHost,
};
use meltemi_compile::{Rejection, route_table};
use meltemi_envoy::type_url;

use crate::call::Call;
use crate::effects;
use crate::explanation::{Explanation, NearMiss};
use crate::proxy::Proxy;
use crate::request::{Prepared, Request};
use crate::verdict::{Decision, Failure, Share};

/// What the registry of Kubernetes completes short names with.
const KUBERNETES_SUFFIX: &str = ".svc.cluster.local";

/// A route table and the name that its origins are under; empty for one within a listener.
type NamedTable<'t> = (&'t RouteTable, &'t str);

/// Follows a request through a connection manager.
pub(crate) fn http(
    proxy: &Proxy,
    call: &Call,
    manager: &HttpConnectionManager,
    mut told: Explanation,
) -> Explanation {
    let request = match Request::prepare(call, manager) {
        Ok(Prepared::Route(request)) => request,
        Ok(Prepared::Answer(status, answer)) => return told.answers(status, answer),
        Err(wrong) => return told.fails(Failure::InvalidCall, wrong),
    };
    match &manager.routes {
        RouteSource::Inline(table) => route(proxy, (table, ""), &request, told),
        RouteSource::Rds(name) => {
            told.verdict.route_config = name.to_string();
            let Some(message) = proxy.route_configuration(name) else {
                return told.fails(Failure::NoVirtualHost, format!("there is no route configuration {name}"));
            };
            match route_table(&message) {
                Ok(table) => route(proxy, (&table, name), &request, told),
                Err(rejections) => told.fails(Failure::InvalidConfig, in_words(&rejections)),
            }
        }
    }
}

/// Follows a connection through a TCP proxy.
pub(crate) fn tcp(proxy: &Proxy, tcp: &TcpProxy, mut told: Explanation) -> Explanation {
    let share = |name: &str, weight| Share { name: name.to_owned(), weight };
    told.verdict.clusters = tcp.clusters.iter().map(|cluster| share(&cluster.name, cluster.weight)).collect();
    arrive(proxy, told)
}

/// All rejections in one line.
pub(crate) fn in_words(rejections: &[Rejection]) -> String {
    let lines: Vec<String> = rejections.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

fn route(proxy: &Proxy, table: NamedTable<'_>, request: &Request, mut told: Explanation) -> Explanation {
    let Some(virtual_host) = table.0.virtual_host(request) else {
        let detail = format!("no virtual host has the name `{}`{}", request.authority(), known(table.0));
        return told.fails(Failure::NoVirtualHost, detail);
    };
    told.verdict.virtual_host = virtual_host.name.to_string();
    told.near_misses = near_misses(proxy, table, virtual_host, request);
    let Some(found) = table.0.find(request) else {
        return told.fails(Failure::NoRoute, "no route of the virtual host matches: 404");
    };
    if found.is_tls_redirect() {
        told.near_misses.clear();
        return told.fails(Failure::TlsRedirect, "the virtual host demands https: 301");
    }
    told.verdict.route = found.route.name.to_string();
    if let Some(path) = found.place.path() {
        told.decided(proxy.resources.origins.find(type_url::ROUTE, table.1, &path));
        for part in destinations(&found.route.action) {
            let path = format!("{path}.{part}");
            told.decided(proxy.resources.origins.find(type_url::ROUTE, table.1, &path));
        }
    }
    act(proxy, &found, request, told)
}

/// The names that there are, if they are few enough to read.
fn known(table: &RouteTable) -> String {
    const FEW: usize = 12;
    let names: Vec<&str> = table.virtual_hosts.iter().map(|host| &*host.name).collect();
    match names.len() {
        0 => "; there is none".to_owned(),
        1..=FEW => format!("; there are {}", names.join(", ")),
        more => format!(" among {more}"),
    }
}

fn near_misses(
    proxy: &Proxy,
    (table, name): NamedTable<'_>,
    virtual_host: &VirtualHost,
    request: &Request,
) -> Vec<NearMiss> {
    let Some(place) = table.virtual_hosts.iter().position(|host| std::ptr::eq(host, virtual_host)) else {
        return Vec::new();
    };
    let of = |(number, unmet): (usize, String)| {
        let path = format!("virtual_hosts[{place}].routes[{number}]");
        let origin = proxy.resources.origins.find(type_url::ROUTE, name, &path);
        let route = virtual_host.routes[number].name.to_string();
        NearMiss { route, unmet, written: origin.map(Decision::new) }
    };
    table.passed_by(virtual_host, request).into_iter().map(of).collect()
}

fn act(proxy: &Proxy, found: &Found<'_>, request: &Request, mut told: Explanation) -> Explanation {
    match &found.route.action {
        RouteAction::Forward(forward) => {
            told.effects = effects::of(found, forward, request);
            let rewritten = forward.rewritten_path(found.route, request.path());
            told.next_path = rewritten.unwrap_or_else(|| request.path().to_owned());
            told.verdict.clusters = shares(forward, request);
            arrive(proxy, told)
        }
        RouteAction::Redirect(redirect) => {
            told.location = redirect.location(request, found.route, "");
            let status = redirect.status.as_u16();
            let detail = format!("{status} to {}", told.location);
            told.answers(status, detail)
        }
        RouteAction::Respond { status, body } => {
            let detail = format!("answered with {} and {} bytes", status.as_u16(), body.len());
            told.answers(status.as_u16(), detail)
        }
    }
}

/// Where in a route its destinations are.
fn destinations(action: &RouteAction) -> Vec<String> {
    let RouteAction::Forward(forward) = action else { return Vec::new() };
    match &forward.cluster {
        ClusterChoice::One(_) => vec!["route.cluster".to_owned()],
        ClusterChoice::Weighted(weighted) => {
            (0..weighted.entries.len()).map(|k| format!("route.weighted_clusters.clusters[{k}]")).collect()
        }
    }
}

fn shares(forward: &Forward, request: &Request) -> Vec<Share> {
    let share = |name: &ClusterName, weight| Share { name: name.text(request).into_owned(), weight };
    match &forward.cluster {
        ClusterChoice::One(name) => vec![share(name, 1)],
        ClusterChoice::Weighted(weighted) => {
            weighted.entries.iter().map(|entry| share(&entry.cluster, entry.weight)).collect()
        }
    }
}

/// Names the cluster if there is one only, and who defined those there are.
fn arrive(proxy: &Proxy, mut told: Explanation) -> Explanation {
    let mut missing = Vec::new();
    for share in &mut told.verdict.clusters {
        if !proxy.has_cluster(&share.name) {
            missing.push(format!("there is no cluster {}: 503", share.name));
            share.name = without_registry(proxy, &share.name);
        }
    }
    if let [only] = told.verdict.clusters.as_slice() {
        told.verdict.cluster.clone_from(&only.name);
    }
    for share in told.verdict.clusters.clone() {
        told.decided(proxy.resources.origins.find(type_url::CLUSTER, &share.name, ""));
    }
    if !missing.is_empty() {
        told.verdict.detail = missing.join("; ");
    }
    told
}

/// A short name that no service answers to keeps its namespace only: what completes it is for the registry to say that
/// has the service, and none has.
fn without_registry(proxy: &Proxy, cluster: &str) -> String {
    let host = cluster.rsplit('|').next().unwrap_or_default();
    match cluster.strip_suffix(KUBERNETES_SUFFIX) {
        Some(short) if !proxy.is_written(host) => short.to_owned(),
        _ => cluster.to_owned(),
    }
}
