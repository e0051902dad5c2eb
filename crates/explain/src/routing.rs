//! From a connection manager or a TCP proxy to clusters.

use meltemi_compile::program::{HttpConnectionManager, RouteSource, TcpProxy};
use meltemi_compile::route::{ClusterChoice, ClusterName, Forward, Found, RouteAction, RouteTable};
use meltemi_compile::{Rejection, route_table};
use meltemi_envoy::type_url;

use crate::call::Call;
use crate::proxy::Proxy;
use crate::request::{Prepared, Request};
use crate::verdict::{Failure, Share, Verdict};

/// Follows a request through a connection manager.
pub(crate) fn http(
    proxy: &Proxy,
    call: &Call,
    manager: &HttpConnectionManager,
    mut verdict: Verdict,
) -> Verdict {
    let request = match Request::prepare(call, manager) {
        Ok(Prepared::Route(request)) => request,
        Ok(Prepared::Answer(answer)) => return Verdict { detail: answer, ..verdict },
        Err(wrong) => return verdict.fails(Failure::InvalidCall, wrong),
    };
    match &manager.routes {
        RouteSource::Inline(table) => route(proxy, (table, ""), &request, verdict),
        RouteSource::Rds(name) => {
            verdict.route_config = name.to_string();
            let Some(message) = proxy.route_configuration(name) else {
                return verdict
                    .fails(Failure::NoVirtualHost, format!("there is no route configuration {name}"));
            };
            match route_table(&message) {
                Ok(table) => route(proxy, (&table, name), &request, verdict),
                Err(rejections) => verdict.fails(Failure::InvalidConfig, told(&rejections)),
            }
        }
    }
}

/// Follows a connection through a TCP proxy.
pub(crate) fn tcp(proxy: &Proxy, tcp: &TcpProxy, mut verdict: Verdict) -> Verdict {
    verdict.clusters =
        tcp.clusters.iter().map(|c| Share { name: c.name.to_string(), weight: c.weight }).collect();
    arrive(proxy, verdict)
}

pub(crate) fn told(rejections: &[Rejection]) -> String {
    let lines: Vec<String> = rejections.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

fn route(
    proxy: &Proxy,
    (table, name): (&RouteTable, &str),
    request: &Request,
    mut verdict: Verdict,
) -> Verdict {
    let Some(virtual_host) = table.virtual_host(request) else {
        return verdict.fails(Failure::NoVirtualHost, "no virtual host has this name");
    };
    verdict.virtual_host = virtual_host.name.to_string();
    let Some(found) = table.find(request) else {
        return verdict.fails(Failure::NoRoute, "no route of the virtual host matches");
    };
    if found.is_tls_redirect() {
        return verdict.fails(Failure::TlsRedirect, "the virtual host demands https: 301");
    }
    verdict.route = found.route.name.to_string();
    if let Some(path) = found.place.path().filter(|_| !name.is_empty()) {
        verdict.decided(proxy.resources.origins.find(type_url::ROUTE, name, &path));
    }
    act(proxy, &found, request, verdict)
}

fn act(proxy: &Proxy, found: &Found<'_>, request: &Request, mut verdict: Verdict) -> Verdict {
    match &found.route.action {
        RouteAction::Forward(forward) => {
            verdict.clusters = shares(forward, request);
            arrive(proxy, verdict)
        }
        RouteAction::Redirect(redirect) => {
            let location = redirect.location(request, found.route, "");
            Verdict { detail: format!("{} to {location}", redirect.status.as_u16()), ..verdict }
        }
        RouteAction::Respond { status, .. } => {
            Verdict { detail: format!("answered with {}", status.as_u16()), ..verdict }
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
fn arrive(proxy: &Proxy, mut verdict: Verdict) -> Verdict {
    if let [only] = verdict.clusters.as_slice() {
        verdict.cluster = only.name.clone();
    }
    for share in verdict.clusters.clone() {
        verdict.decided(proxy.resources.origins.find(type_url::CLUSTER, &share.name, ""));
        if !proxy.resources.clusters.iter().any(|cluster| cluster.name == share.name) {
            verdict.detail = format!("there is no cluster {}: 503", share.name);
        }
    }
    verdict
}
