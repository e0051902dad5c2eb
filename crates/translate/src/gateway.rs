//! Listeners and routes of a gateway: the servers of all Gateways that select it, merged by port.
//!
//! Source: Istio `pilot/pkg/networking/core/gateway.go`, `pkg/model/gateway.go` (`MergeGateways`).
//! Left out: TLS and TCP servers, which the snapshot reports as not supported yet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use meltemi_api::istio::Server;
use meltemi_envoy::config::core::v3::TrafficDirection;
use meltemi_envoy::config::route::v3::RouteConfiguration;
use meltemi_envoy::config::route::v3::virtual_host::TlsRequirementType;
use meltemi_snapshot::{Gateway, Host, ServerHost, VirtualService, labels_match, oldest_first};

use crate::connection_manager::{Http, Routes};
use crate::context::{Context, origin};
use crate::listener::{Built, listener};
use crate::names;
use crate::resources::Origins;
use crate::route::{self, Place};
use crate::virtual_host::{BuiltHost, route_configuration};

/// The listeners of a gateway and the route configurations that they name.
pub(crate) fn build(
    context: &Context<'_>,
    bind: IpAddr,
    origins: &mut Origins,
) -> (Vec<Built>, Vec<RouteConfiguration>) {
    let bind = bind.to_string();
    let mut listeners = Vec::new();
    let mut routes = Vec::new();
    for ((port, own_bind), servers) in by_port(context) {
        let Some((gateway, index, _)) = servers.first() else { continue };
        let name = route_name(port, own_bind);
        let address = own_bind.unwrap_or(&bind);
        let http = Http {
            shape: context.shape,
            options: context.options,
            stat_prefix: format!("outbound_{}", names::listener(address, port)),
            routes: Routes::Named(name.clone()),
            at_edge: true,
        };
        listeners.push(Built {
            listener: listener(address, port, TrafficDirection::Outbound, vec![http.filter()]),
            origin: Some(origin(&gateway.object, format!("spec.servers[{index}]"))),
        });
        routes.push(route_configuration(&name, virtual_hosts(context, port, &servers), true, origins));
    }
    (listeners, routes)
}

/// A server of a gateway with its position there.
type Entry<'a> = (&'a Arc<Gateway>, usize, &'a Server);

/// The HTTP servers for this proxy, oldest Gateway first, by port and `bind`.
fn by_port<'a>(context: &Context<'a>) -> BTreeMap<(u16, Option<&'a str>), Vec<Entry<'a>>> {
    let mut gateways: Vec<&'a Arc<Gateway>> = context.snapshot.config.gateways.values().collect();
    gateways.retain(|g| labels_match(&g.spec().selector, &context.shape.labels));
    gateways.sort_by(|a, b| oldest_first(&a.object, &b.object));
    let mut ports: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for gateway in gateways {
        for (index, server) in gateway.spec().servers.iter().enumerate() {
            let Ok(port) = u16::try_from(server.port.number) else { continue };
            let bind = server.bind.as_deref().filter(|b| !b.is_empty());
            if Gateway::serves_plain_http(server) {
                ports.entry((port, bind)).or_default().push((gateway, index, server));
            }
        }
    }
    ports
}

/// `http.8080`, or `http.8080.10.0.0.1` for a server with a `bind` of its own.
fn route_name(port: u16, bind: Option<&str>) -> String {
    let name = names::gateway_route(port);
    bind.map_or_else(|| name.clone(), |bind| format!("{name}.{bind}"))
}

/// What is known of one host on a port.
#[derive(Default)]
struct Claim<'a> {
    bound: Vec<(&'a Arc<VirtualService>, &'a Arc<Gateway>)>,
    redirects_to_https: bool,
}

fn virtual_hosts(context: &Context<'_>, port: u16, servers: &[Entry<'_>]) -> Vec<BuiltHost> {
    let mut claims: BTreeMap<Host, Claim<'_>> = BTreeMap::new();
    for (gateway, _, server) in servers {
        claim(context, gateway, server, &mut claims);
    }
    let hosts: Vec<BuiltHost> =
        claims.into_iter().filter_map(|(host, claim)| virtual_host(context, port, &host, claim)).collect();
    if hosts.is_empty() {
        return vec![BuiltHost::new(names::domain("blackhole", port), vec!["*".to_owned()], Vec::new())];
    }
    hosts
}

/// Adds the hosts that a server accepts and a bound VirtualService asks for; the more specific of the two counts.
fn claim<'a>(
    context: &Context<'a>,
    gateway: &'a Arc<Gateway>,
    server: &Server,
    claims: &mut BTreeMap<Host, Claim<'a>>,
) {
    let redirects = server.tls.as_ref().is_some_and(|t| t.https_redirect == Some(true));
    let accepted: Vec<ServerHost> =
        server.hosts.iter().map(|h| ServerHost::parse(h, &gateway.name.namespace)).collect();
    for virtual_service in context.scope.virtual_services_of(&gateway.name) {
        for wanted in &virtual_service.hosts {
            for host in accepted.iter().filter_map(|a| a.admit(virtual_service.namespace(), wanted)) {
                let claim = claims.entry(host).or_default();
                claim.redirects_to_https |= redirects;
                let is_known = claim
                    .bound
                    .iter()
                    .any(|(v, g)| v.object.id == virtual_service.object.id && g.name == gateway.name);
                if !is_known {
                    claim.bound.push((virtual_service, gateway));
                }
            }
        }
    }
    if redirects {
        for host in accepted {
            claims.entry(host.host).or_default().redirects_to_https = true;
        }
    }
}

/// `None` for a host that has neither a route nor a redirect.
fn virtual_host(context: &Context<'_>, port: u16, host: &Host, mut claim: Claim<'_>) -> Option<BuiltHost> {
    claim.bound.sort_by(|(a, _), (b, _)| oldest_first(&a.object, &b.object));
    let mut routes: Vec<route::Built> = Vec::new();
    for (virtual_service, gateway) in claim.bound {
        let place = Place { context, virtual_service, gateway: &gateway.name, port };
        routes.extend(route::of_virtual_service(&place));
    }
    // What matches everything comes last, so that no VirtualService hides another.
    routes.sort_by_key(|r| route::catches_all(&r.route));
    if routes.is_empty() && !claim.redirects_to_https {
        return None;
    }
    let mut built = BuiltHost::new(names::domain(host.as_str(), port), vec![host.to_string()], routes);
    if claim.redirects_to_https {
        built.host.require_tls = TlsRequirementType::All as i32;
    }
    Some(built)
}
