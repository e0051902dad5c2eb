//! VirtualService, lowered: its spellings become the one form of the model.
//!
//! Source: Istio `pilot/pkg/model/virtualservice.go` (names, delegation) and `networking.VirtualService`.

mod action;
mod condition;

use std::sync::Arc;

use meltemi_api::{Object, istio};

use crate::host::Host;
use crate::route::delegate::{self, Delegates};
use crate::route::{
    Destination, HttpRule, L4Condition, L4Destination, Rules, TcpRule, TlsCondition, TlsRule, Written,
};

/// The rules of a VirtualService, those that it delegates among them.
pub(crate) fn lower(object: &Arc<Object>, spec: &istio::VirtualService, delegates: &Delegates) -> Rules {
    let http = delegate::expand(object, spec, delegates);
    Rules {
        http: http.iter().map(http_rule).collect(),
        tls: each(&spec.tls, |i, rule| tls_rule(rule, &Written::new(object, format!("spec.tls[{i}]")))),
        tcp: each(&spec.tcp, |i, rule| tcp_rule(rule, &Written::new(object, format!("spec.tcp[{i}]")))),
    }
}

fn each<T, U>(list: &[T], lower: impl Fn(usize, &T) -> U) -> Vec<U> {
    list.iter().enumerate().map(|(i, item)| lower(i, item)).collect()
}

fn http_rule(route: &delegate::Route<'_>) -> HttpRule {
    let rule = &*route.rule;
    let conditions = rule.matches.iter().zip(&route.matches);
    HttpRule {
        name: rule.name.clone().unwrap_or_default(),
        conditions: conditions.map(|(m, at)| condition::http(m, at)).collect(),
        headers: action::header_changes(rule.headers.as_ref()),
        fault: rule.fault.as_ref().map(action::fault),
        cors: rule.cors_policy.as_ref().map(action::cors),
        action: action::of(route),
        written: route.written.clone(),
    }
}

fn tls_rule(rule: &istio::TlsRoute, written: &Written) -> TlsRule {
    TlsRule {
        conditions: each(&rule.matches, |i, m| {
            let written = written.below(&format!("match[{i}]"));
            TlsCondition {
                server_names: m.sni_hosts.clone(),
                destination_subnets: m.destination_subnets.clone(),
                callers: condition::callers_of_tls(m, &written),
                written,
            }
        }),
        destinations: l4_destinations(&rule.route, written),
        written: written.clone(),
    }
}

fn tcp_rule(rule: &istio::TcpRoute, written: &Written) -> TcpRule {
    TcpRule {
        conditions: each(&rule.matches, |i, m| {
            let written = written.below(&format!("match[{i}]"));
            L4Condition {
                destination_subnets: m.destination_subnets.clone(),
                callers: condition::callers_of_tcp(m, &written),
                written,
            }
        }),
        destinations: l4_destinations(&rule.route, written),
        written: written.clone(),
    }
}

fn l4_destinations(route: &[istio::RouteDestination], written: &Written) -> Vec<L4Destination> {
    each(route, |i, d| L4Destination {
        destination: destination(&d.destination, written.below(&format!("route[{i}].destination"))),
        weight: weight(d.weight),
    })
}

fn destination(wire: &istio::Destination, written: Written) -> Destination {
    Destination {
        host: Host::resolve(&wire.host, &written.object.id.namespace),
        subset: wire.subset.clone().unwrap_or_default(),
        port: wire.port.as_ref().and_then(|p| port(p.number)),
        written,
    }
}

/// `api` has refused negative ones.
fn weight(wire: Option<i32>) -> u32 {
    wire.and_then(|w| u32::try_from(w).ok()).unwrap_or(0)
}

/// Zero stands for none.
fn port(number: u32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port > 0)
}
