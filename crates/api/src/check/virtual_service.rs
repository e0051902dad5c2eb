//! Rules across one VirtualService.

use super::{at_least_one, unique};
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{HttpMatchRequest, HttpRoute, VirtualService, claim_of_header};

pub(crate) fn virtual_service(service: &VirtualService, decoder: &mut Decoder) {
    if service.hosts.is_empty() {
        delegate(service, decoder);
    }
    at_least_one(
        decoder,
        &[
            ("http", !service.http.is_empty()),
            ("tls", !service.tls.is_empty()),
            ("tcp", !service.tcp.is_empty()),
        ],
    );
    unique(decoder, service.hosts.iter().enumerate(), |index| format!("hosts[{index}]"));
    covered_hosts(service, decoder);
    super::visibility::export_to(&service.export_to, false, decoder);
    wildcard_in_mesh(service, decoder);
    sni_hosts(service, decoder);
    claims_in_mesh(service, decoder);
    unreachable_routes(&service.http, decoder);
}

/// One without hosts is a delegate: where it applies is said by those who delegate to it.
fn delegate(service: &VirtualService, decoder: &mut Decoder) {
    let lists = [
        ("gateways", !service.gateways.is_empty()),
        ("tls", !service.tls.is_empty()),
        ("tcp", !service.tcp.is_empty()),
    ];
    for (field, _) in lists.into_iter().filter(|(_, set)| *set) {
        let message = format!("`{field}` has no meaning without `hosts`, in a delegate");
        let help = "remove it, or name the hosts whose requests are routed";
        decoder.report_below(field, &codes::CONFLICTING_FIELDS, message, help);
    }
    for (index, _) in service.http.iter().enumerate().filter(|(_, route)| route.delegate.is_some()) {
        let message = "a delegate cannot delegate further".to_owned();
        decoder.report_below(&format!("http[{index}].delegate"), &codes::CONFLICTING_FIELDS, message, "");
    }
}

/// Tokens are looked at on gateways, before a route is chosen.
fn claims_in_mesh(service: &VirtualService, decoder: &mut Decoder) {
    let is_delegate = service.hosts.is_empty();
    if is_delegate || !service.gateways.is_empty() && service.gateways.iter().all(|name| name != "mesh") {
        return;
    }
    for (i, route) in service.http.iter().enumerate() {
        for (j, condition) in route.matches.iter().enumerate() {
            for (field, headers) in
                [("headers", &condition.headers), ("withoutHeaders", &condition.without_headers)]
            {
                for name in headers.keys().filter(|name| claim_of_header(name).is_some()) {
                    let mut at = format!("http[{i}].match[{j}].{field}");
                    crate::span::push_key(&mut at, name);
                    let message = "claims of tokens can only be matched on gateways".to_owned();
                    let help = "name the Gateways in `gateways`, and leave `mesh` out";
                    decoder.report_below(&at, &codes::CONFLICTING_FIELDS, message, help);
                }
            }
        }
    }
}

/// Of two hosts that stand for the same names only one has an effect. Istio's webhook refuses such an object, istiod itself
/// serves it.
fn covered_hosts(service: &VirtualService, decoder: &mut Decoder) {
    for (index, host) in service.hosts.iter().enumerate() {
        let others = service.hosts.iter().enumerate();
        let mut wider = others.filter(|(other, wide)| *other != index && *wide != host && covers(wide, host));
        if let Some((_, wide)) = wider.next() {
            let message = format!("`{host}` is covered by `{wide}`");
            decoder.report_below(&format!("hosts[{index}]"), &codes::DOUBTFUL, message, "remove one of them");
        }
    }
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

/// What a delegate takes of it is not known here.
fn takes_everything(route: &HttpRoute) -> bool {
    route.delegate.is_none() && catches_all(route)
}

fn catches_all(route: &HttpRoute) -> bool {
    route.matches.is_empty() || route.matches.iter().any(is_unconditional)
}

fn is_unconditional(condition: &HttpMatchRequest) -> bool {
    let named = HttpMatchRequest { name: condition.name.clone(), ..HttpMatchRequest::default() };
    *condition == named
}
