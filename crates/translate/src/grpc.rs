//! What a gRPC program gets that asks for its configuration itself, without a proxy: for each port of each service that it
//! sees a listener of the name that the program dials, its route, and clusters. Leaves out the server's side.
//!
//! Source: Istio `pilot/pkg/networking/grpcgen`; gRPC proposals A27 (balancing), A28 (routing), A29 (TLS), A32 (limits).
//! Differs: a route configuration has one virtual host for every authority, since it is of one service; mutual TLS needs
//! no DestinationRule where the service demands it (`cluster/proxyless.rs`).

use meltemi_envoy::Any;
use meltemi_envoy::config::core::v3::TrafficDirection;
use meltemi_envoy::config::listener::v3::{ApiListener, Listener};
use meltemi_envoy::config::route::v3::route::Action;
use meltemi_envoy::config::route::v3::route_action::MaxStreamDuration;
use meltemi_envoy::config::route::v3::{RouteAction, RouteConfiguration};
use meltemi_envoy::extensions::filters::http::{fault::v3::HttpFault, router::v3::Router};
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, Rds, http_connection_manager::RouteSpecifier,
};
use meltemi_snapshot::{Service, ServicePort};

use crate::cluster;
use crate::connection_manager::http_filter;
use crate::context::{Context, origin};
use crate::listener;
use crate::message::{ads, packed, socket};
use crate::names::outbound_cluster;
use crate::resources::Origins;
use crate::virtual_host;

/// Everything for one program.
#[derive(Default)]
pub(crate) struct Built {
    pub(crate) listeners: Vec<listener::Built>,
    pub(crate) routes: Vec<RouteConfiguration>,
    pub(crate) clusters: Vec<cluster::Built>,
}

/// The resources of all services; a program subscribes to those that it dials.
pub(crate) fn build(context: &Context<'_>, origins: &mut Origins) -> Built {
    let mut built = Built { clusters: cluster::proxyless::build(context), ..Built::default() };
    for view in context.scope.views() {
        for service in view.services.values() {
            for port in service.ports.iter().filter(|port| virtual_host::is_routed(port.protocol)) {
                let name = outbound_cluster(port.number, "", &service.host);
                if built.routes.iter().any(|routes| routes.name == name) {
                    continue;
                }
                built.listeners.extend(listeners(context, service, port, &name));
                let mut routes = virtual_host::of_one_service(context, view, (service, port), &name, origins);
                limit_streams(&mut routes);
                built.routes.push(routes);
            }
        }
    }
    built
}

/// One listener for each way in which the program may write the service's name.
fn listeners(
    context: &Context<'_>,
    service: &Service,
    port: &ServicePort,
    route: &str,
) -> Vec<listener::Built> {
    let names = virtual_host::names_with_port(service, port.number, &context.shape.namespace);
    let listener = |name: String| Listener {
        address: Some(socket(service.addresses.first().map_or("0.0.0.0", String::as_str), port.number)),
        api_listener: Some(ApiListener { api_listener: Some(manager(route)) }),
        traffic_direction: TrafficDirection::Outbound as i32,
        name,
        ..Default::default()
    };
    let built =
        |name| listener::Built { listener: listener(name), origin: Some(origin(&service.object, "spec")) };
    names.into_iter().map(built).collect()
}

fn manager(route: &str) -> Any {
    let rds = Rds { config_source: Some(ads()), route_config_name: route.to_owned() };
    Any::pack(&HttpConnectionManager {
        http_filters: vec![
            http_filter("envoy.filters.http.fault", packed::<HttpFault>()),
            http_filter("envoy.filters.http.router", packed::<Router>()),
        ],
        route_specifier: Some(RouteSpecifier::Rds(rds)),
        ..Default::default()
    })
}

/// gRPC bounds a call by `max_stream_duration`, and looks at no other timeout.
#[expect(deprecated, reason = "the bound of Envoy's that gRPC does not look at")]
fn limit_streams(routes: &mut RouteConfiguration) {
    let all = routes.virtual_hosts.iter_mut().flat_map(|host| &mut host.routes);
    for action in all.filter_map(|route| route.action.as_mut()) {
        if let Action::Route(RouteAction { timeout, max_grpc_timeout, max_stream_duration, .. }) = action {
            *max_grpc_timeout = None;
            *max_stream_duration =
                Some(MaxStreamDuration { max_stream_duration: timeout.take(), ..Default::default() });
        }
    }
}
