//! Virtual hosts of gateway servers that share a route configuration.
//!
//! Source: Istio `pilot/pkg/networking/core/gateway.go` (`buildGatewayHTTPRouteConfig`, `collapseDuplicateRoutes`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meltemi_api::ObjectId;
use meltemi_envoy::config::route::v3::virtual_host::TlsRequirementType;
use meltemi_snapshot::{Gateway, GatewayName, GatewayServer, Host, VirtualService};

use crate::context::Context;
use crate::names;
use crate::route::{self, Binding};
use crate::virtual_host::BuiltHost;

/// The virtual hosts of servers, or one that has no route for anybody.
pub(super) fn virtual_hosts(context: &Context<'_>, servers: &[GatewayServer]) -> Vec<BuiltHost> {
    let mut table = Table { context, claims: BTreeMap::new(), routes: BTreeMap::new() };
    for server in servers {
        table.claim(server);
    }
    let mut hosts = table.hosts();
    if hosts.is_empty() {
        let port = servers.first().map_or(0, GatewayServer::port);
        let mut nobody = BuiltHost::new(names::domain("blackhole", port), vec!["*".to_owned()], Vec::new());
        nobody.host.include_request_attempt_count = false;
        return vec![nobody];
    }
    hosts.sort_by(|a, b| a.host.name.cmp(&b.host.name));
    hosts
}

/// Which routes a host has: VirtualServices, each through a gateway.
type Bound<'a> = (&'a Arc<VirtualService>, &'a Arc<Gateway>);

/// [`Bound`] by the names of its objects.
type BoundKey<'a> = (&'a ObjectId, &'a GatewayName);

fn key<'a>((virtual_service, gateway): Bound<'a>) -> BoundKey<'a> {
    (&virtual_service.object.id, &gateway.name)
}

/// What is known of one host.
struct Claim<'a> {
    /// The port of the first server that has it.
    port: u16,
    /// In order; twice where two servers of a gateway have the host.
    bound: Vec<Bound<'a>>,
    redirects_to_https: bool,
}

struct Table<'a> {
    context: &'a Context<'a>,
    claims: BTreeMap<Host, Claim<'a>>,
    /// The routes of a VirtualService are those of the first server that it meets on a gateway.
    routes: BTreeMap<BoundKey<'a>, Vec<route::Built>>,
}

impl<'a> Table<'a> {
    /// Adds the hosts that a server accepts and a bound VirtualService asks for; the more specific of the two counts.
    fn claim(&mut self, server: &'a GatewayServer) {
        let redirects = server.spec().tls.as_ref().is_some_and(|t| t.https_redirect == Some(true));
        let accepted = server.hosts();
        for virtual_service in self.context.scope.virtual_services_of(&server.gateway.name) {
            let admit =
                |wanted| accepted.iter().filter_map(move |a| a.admit(virtual_service.namespace(), wanted));
            let hosts: Vec<Host> = virtual_service.hosts.iter().flat_map(admit).collect();
            if hosts.is_empty() || !self.has_routes((virtual_service, &server.gateway), server.port()) {
                continue;
            }
            for host in hosts {
                let claim = self.claim_of(host, server);
                claim.redirects_to_https |= redirects;
                claim.bound.push((virtual_service, &server.gateway));
            }
        }
        if redirects {
            for host in accepted {
                self.claim_of(host.host, server).redirects_to_https = true;
            }
        }
    }

    fn claim_of(&mut self, host: Host, server: &GatewayServer) -> &mut Claim<'a> {
        let unclaimed = || Claim { port: server.port(), bound: Vec::new(), redirects_to_https: false };
        // An authority is compared in lower case.
        let host = Host::new(&host.as_str().to_ascii_lowercase());
        self.claims.entry(host).or_insert_with(unclaimed)
    }

    fn has_routes(&mut self, bound: Bound<'a>, port: u16) -> bool {
        let (virtual_service, gateway) = bound;
        let routes = self.routes.entry(key(bound)).or_insert_with(|| {
            let context = self.context;
            route::of_virtual_service(&Binding {
                context,
                virtual_service,
                gateway: &gateway.name,
                port,
                is_of_one_port: false,
            })
        });
        !routes.is_empty()
    }

    /// Hosts with the same routes share a virtual host, which has the name of the most specific.
    fn hosts(self) -> Vec<BuiltHost> {
        let mut claims: Vec<(Host, Claim<'a>)> = self.claims.into_iter().collect();
        claims.sort_by(|(a, _), (b, _)| a.by_specificity(b));
        let mut known: BTreeMap<(Vec<BoundKey<'_>>, bool), usize> = BTreeMap::new();
        let mut hosts: Vec<BuiltHost> = Vec::new();
        for (host, claim) in claims {
            let same = (claim.bound.iter().copied().map(key).collect(), claim.redirects_to_https);
            if let Some(first) = known.get(&same) {
                hosts[*first].host.domains.push(host.to_string());
                continue;
            }
            known.insert(same, hosts.len());
            hosts.push(virtual_host(&host, &claim, &self.routes));
        }
        hosts
    }
}

fn virtual_host(host: &Host, claim: &Claim<'_>, routes: &BTreeMap<BoundKey, Vec<route::Built>>) -> BuiltHost {
    let mut seen = BTreeSet::new();
    let own = claim.bound.iter().map(|bound| key(*bound)).filter(|key| seen.insert(*key));
    let own = own.filter_map(|key| routes.get(&key));
    let mut routes: Vec<route::Built> = own.flatten().cloned().collect();
    // What matches everything comes last, so that no VirtualService hides another.
    routes.sort_by_key(|r| route::catches_all(&r.route));
    let mut built = BuiltHost::new(names::domain(host.as_str(), claim.port), vec![host.to_string()], routes);
    if claim.redirects_to_https {
        built.host.require_tls = TlsRequirementType::All as i32;
    }
    built
}
