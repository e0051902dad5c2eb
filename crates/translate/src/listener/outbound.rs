//! Outbound listeners: for each port of each service that is seen, those that `Sidecar.egress` names, the one that
//! connections are redirected to, and the one for all HTTP.
//!
//! Source: Istio `pilot/pkg/networking/core/listener.go` (`buildSidecarOutboundListeners`, `buildHTTPProxy`).

mod catch_all;
mod entry;
pub(crate) mod network;
mod opaque;
mod services;

pub(crate) use entry::RouteName;

use std::collections::BTreeSet;

use meltemi_api::Diagnostic;
use meltemi_envoy::config::listener::v3::{Filter, Listener};
use meltemi_envoy::config::route::v3::RouteConfiguration;
use meltemi_snapshot::GatewayName;

use crate::cluster;
use crate::connection_manager::{Http, Place, Routes};
use crate::context::Context;
use crate::listener::Built;
use crate::listener::address::Families;
use crate::listener::outbound::entry::{Bind, Chain, Entry, Kind, Wanted};
use crate::names::HTTP_PROXY_ROUTE;
use crate::resources::Origins;
use crate::shape::{Interception, SidecarShape};
use crate::virtual_host;

/// What goes out of a sidecar.
#[derive(Default)]
pub(crate) struct Outbound {
    pub(crate) listeners: Vec<Built>,
    pub(crate) routes: Vec<RouteConfiguration>,
    pub(crate) clusters: Vec<cluster::Built>,
    /// What has no effect here, and why.
    pub(crate) left_out: Vec<Diagnostic>,
}

/// The outbound listeners and the route configurations that they name.
pub(crate) fn build(context: &Context<'_>, sidecar: &SidecarShape, origins: &mut Origins) -> Outbound {
    let families = Families::of(sidecar);
    let mesh = GatewayName::mesh();
    let (entries, left_out) = services::entries(context, sidecar, &mesh);
    let names: BTreeSet<&RouteName> = entries.iter().flat_map(Entry::routes).collect();
    let mut out = Outbound {
        routes: names.into_iter().map(|name| virtual_host::of_route_name(context, name, origins)).collect(),
        listeners: entries.iter().map(|entry| finish(context, entry)).collect(),
        clusters: catch_all::resolving(context).into_iter().collect(),
        left_out,
    };
    if let Some(port) = sidecar.http_proxy_port
        && let Some(view) = context.scope.catch_all()
    {
        out.listeners.push(Built { listener: http_proxy(context, families, port), origin: None });
        out.routes.push(virtual_host::of_http_proxy(context, view, origins));
    }
    if sidecar.interception != Interception::None {
        let listener = catch_all::listener(context, families, sidecar.interception);
        out.listeners.push(Built { listener, origin: None });
    }
    out
}

fn finish(context: &Context<'_>, entry: &Entry) -> Built {
    let unmatched = network::to_cluster(context, &catch_all::unmatched(context));
    Built { listener: entry.build(unmatched), origin: entry.origin.clone() }
}

/// The listener that programs name as their HTTP proxy.
fn http_proxy(context: &Context<'_>, families: Families, port: u16) -> Listener {
    let bind = Bind { addresses: families.loopbacks(), port, is_real: true };
    let filters = http(context, &bind, HTTP_PROXY_ROUTE.to_owned());
    let wanted = Wanted { kind: Kind::Http, bind, origin: None };
    Entry::new(wanted, vec![Chain::unconditional(filters)]).build(Vec::new())
}

fn http(context: &Context<'_>, bind: &Bind, routes: String) -> Vec<Filter> {
    let http = Http {
        shape: context.shape,
        options: context.options,
        stat_prefix: format!("outbound_{};", bind.name()),
        routes: Routes::Named(routes),
        place: Place::Outbound,
    };
    http.filters()
}
