//! Rules across one VirtualService.

use super::{at_least_one, not_empty, unique};
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{HttpMatchRequest, HttpRoute, VirtualService};

pub(crate) fn virtual_service(service: &VirtualService, decoder: &mut Decoder) {
    not_empty(
        decoder,
        &service.hosts,
        "hosts",
        "name the hosts whose requests are routed, or `*` on a gateway",
    );
    at_least_one(
        decoder,
        &[
            ("http", !service.http.is_empty()),
            ("tls", !service.tls.is_empty()),
            ("tcp", !service.tcp.is_empty()),
        ],
    );
    unique(decoder, service.hosts.iter().enumerate(), |index| format!("hosts[{index}]"));
    wildcard_in_mesh(service, decoder);
    sni_hosts(service, decoder);
    unreachable_routes(&service.http, decoder);
}

/// In sidecars a VirtualService for every host would shadow every service.
fn wildcard_in_mesh(service: &VirtualService, decoder: &mut Decoder) {
    let in_mesh = service.gateways.is_empty() || service.gateways.iter().any(|gateway| gateway == "mesh");
    let wildcard = service.hosts.iter().position(|host| host == "*");
    if let Some(index) = wildcard.filter(|_| in_mesh) {
        let message = "the host `*` is only allowed on gateways".to_owned();
        let help = "name the hosts, or name the Gateways in `gateways` and leave `mesh` out";
        decoder.report_below(&format!("hosts[{index}]"), &codes::BAD_HOST, message, help);
    }
}

/// A server name that no host of the object covers would never be looked at.
fn sni_hosts(service: &VirtualService, decoder: &mut Decoder) {
    for (route, tls) in service.tls.iter().enumerate() {
        for (condition, matched) in tls.matches.iter().enumerate() {
            for (index, name) in matched.sni_hosts.iter().enumerate() {
                if service.hosts.iter().any(|host| covers(host, name)) {
                    continue;
                }
                let message = format!("the server name `{name}` is covered by none of the `hosts`");
                let field = format!("tls[{route}].match[{condition}].sniHosts[{index}]");
                decoder.report_below(&field, &codes::BAD_HOST, message, "add it to `hosts`");
            }
        }
    }
}

/// Whether every name that `name` stands for is one that `host` stands for.
fn covers(host: &str, name: &str) -> bool {
    match host.strip_prefix('*') {
        Some(suffix) => name.strip_prefix('*').unwrap_or(name).ends_with(suffix),
        None => host.eq_ignore_ascii_case(name),
    }
}

/// A route after one that takes every request never gets any.
fn unreachable_routes(routes: &[HttpRoute], decoder: &mut Decoder) {
    let Some(catch_all) = routes.iter().position(takes_everything) else { return };
    for index in catch_all + 1..routes.len() {
        let message = format!("this route can never match: `http[{catch_all}]` takes every request");
        decoder.report_below(
            &format!("http[{index}]"),
            &codes::UNREACHABLE_ROUTE,
            message,
            "move it further up",
        );
    }
}

fn takes_everything(route: &HttpRoute) -> bool {
    route.matches.is_empty() || route.matches.iter().any(is_unconditional)
}

fn is_unconditional(condition: &HttpMatchRequest) -> bool {
    let named = HttpMatchRequest { name: condition.name.clone(), ..HttpMatchRequest::default() };
    *condition == named
}
