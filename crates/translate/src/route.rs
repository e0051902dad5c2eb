//! Routes: those of a VirtualService, and the default one of a service without.
//!
//! Source: Istio `pilot/pkg/networking/core/route/route.go`.

mod action;
mod filter;
mod hash;
mod headers;
pub(crate) mod l4;
mod request_match;
mod retry;

pub(crate) use action::destination_cluster;

use meltemi_envoy::config::route::v3::route::Action;
use meltemi_envoy::config::route::v3::route_action::{ClusterSpecifier, MaxStreamDuration};
use meltemi_envoy::config::route::v3::route_match::PathSpecifier;
use meltemi_envoy::config::route::v3::{Decorator, DirectResponseAction, Route, RouteAction, RouteMatch};
use meltemi_snapshot::route::{Callers, HttpAction, HttpCondition, HttpRule};
use meltemi_snapshot::{GatewayName, Service, VirtualService, labels_match};

use crate::context::{Context, written_origin};
use crate::message::{UNLIMITED, config_path, fields, istio_metadata, text};
use crate::names::{PASSTHROUGH_CLUSTER, outbound_cluster};
use crate::resources::Origin;
use crate::shape::Role;

/// Name of a route that no object describes.
const DEFAULT_ROUTE: &str = "default";

/// A route and what asked for it.
#[derive(Clone)]
pub(crate) struct Built {
    pub(crate) route: Route,
    pub(crate) origin: Option<Origin>,
    /// Parts of it that the user wrote apart, by their path below the route.
    pub(crate) parts: Vec<(String, Origin)>,
}

/// A VirtualService on a port of a gateway or of the mesh: where its routes are to be used.
pub(crate) struct Binding<'a> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) virtual_service: &'a VirtualService,
    /// The gateway, or the mesh.
    pub(crate) gateway: &'a GatewayName,
    /// The port that requests are addressed to; also of destinations that name none.
    pub(crate) port: u16,
    /// Services are known by that port alone, as in a table of one port of a sidecar: then a destination that names no
    /// port means the one that was called, whichever ports it has.
    pub(crate) is_of_one_port: bool,
}

/// The routes that can match there, in order, up to the first that matches everything.
pub(crate) fn of_virtual_service(binding: &Binding<'_>) -> Vec<Built> {
    let mut routes = Vec::new();
    for rule in &binding.virtual_service.rules.http {
        let conditions: Vec<Option<&HttpCondition>> = match rule.conditions.as_slice() {
            [] => vec![None],
            some => some.iter().map(Some).collect(),
        };
        for condition in conditions {
            if !condition.is_none_or(|c| binding.admits(&c.callers)) {
                continue;
            }
            let route = of_rule(binding, rule, condition);
            let ends = catches_all(&route);
            let written = condition.map_or(&rule.written, |c| &c.written);
            let parts = parts(rule);
            routes.push(Built { route, origin: Some(written_origin(written)), parts });
            if ends {
                return routes;
            }
        }
    }
    routes
}

/// The destinations of a rule, as [`action`] puts them into the route.
fn parts(rule: &HttpRule) -> Vec<(String, Origin)> {
    let HttpAction::Forward(onward) = &rule.action else { return Vec::new() };
    let destinations = match onward.destinations.as_slice() {
        [only] => vec![("route.cluster".to_owned(), written_origin(&only.written))],
        several => {
            let chosen = several.iter().filter(|d| d.weight > 0).enumerate();
            let path = |k| format!("route.weighted_clusters.clusters[{k}]");
            chosen.map(|(k, d)| (path(k), written_origin(&d.written))).collect()
        }
    };
    let mirrors = onward.mirrors.iter().filter(|mirror| mirror.percent > 0.0).enumerate();
    let mirrors = mirrors.map(|(k, mirror)| {
        (format!("route.request_mirror_policies[{k}]"), written_origin(&mirror.destination.written))
    });
    destinations.into_iter().chain(mirrors).collect()
}

impl Binding<'_> {
    /// Whether a condition can hold at all for this proxy and port.
    fn admits(&self, callers: &Callers) -> bool {
        let shape = self.context.shape;
        self.is_called(callers)
            && labels_match(&callers.labels, &shape.labels)
            && (callers.namespace.is_empty() || callers.namespace == shape.namespace)
    }

    /// Whether a condition can hold for the place that is called, whoever calls.
    fn is_called(&self, callers: &Callers) -> bool {
        (callers.gateways.is_empty() || callers.gateways.contains(self.gateway))
            && callers.port.is_none_or(|p| p == self.port)
    }

    /// Whether the server that requests come through has settings of TLS.
    fn terminates_tls(&self) -> bool {
        let gateway = self.context.snapshot.config.gateways.get(self.gateway);
        let mut servers = gateway.into_iter().flat_map(|gateway| &gateway.spec().servers);
        servers.any(|server| server.port.number == u32::from(self.port) && server.tls.is_some())
    }
}

fn of_rule(binding: &Binding<'_>, rule: &HttpRule, condition: Option<&HttpCondition>) -> Route {
    let object = &binding.virtual_service.object;
    let mut route = Route {
        name: route_name(rule, condition),
        r#match: Some(condition.map_or_else(request_match::everything, request_match::of)),
        metadata: Some(istio_metadata(fields([("config", text(config_path(object)))]))),
        stat_prefix: condition.map(|c| c.stat_prefix.clone()).unwrap_or_default(),
        typed_per_filter_config: filter::configs(rule, binding.context.shape.role == Role::Proxyless),
        ..Default::default()
    };
    action::apply(binding, rule, &mut route);
    route.decorator = Some(Decorator { operation: operation(binding, &route), propagate: None });
    route
}

/// `rule.match`, for access logs.
fn route_name(rule: &HttpRule, condition: Option<&HttpCondition>) -> String {
    match condition {
        Some(condition) if !condition.name.is_empty() => format!("{}.{}", rule.name, condition.name),
        _ => rule.name.clone(),
    }
}

/// The name of a span: destination (or VirtualService, when there are several) and path.
fn operation(binding: &Binding<'_>, route: &Route) -> String {
    let path = match route.r#match.as_ref().and_then(|m| m.path_specifier.as_ref()) {
        Some(PathSpecifier::Prefix(prefix)) => format!("{prefix}*"),
        Some(PathSpecifier::Path(path)) => path.clone(),
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex.clone(),
        _ => "/*".to_owned(),
    };
    let cluster = match &route.action {
        Some(Action::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(name)), ..
        })) => name,
        _ => return format!("{}:{}{path}", binding.virtual_service.object.id.name, binding.port),
    };
    let mut parts = cluster.split('|').skip(1);
    let port = parts.next().unwrap_or_default();
    format!("{}:{port}{path}", parts.nth(1).unwrap_or_default())
}

/// Whether no request passes this route by.
pub(crate) fn catches_all(route: &Route) -> bool {
    let Some(conditions) = &route.r#match else { return false };
    let any_path = match &conditions.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => prefix == "/",
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex == ".*",
        _ => false,
    };
    any_path
        && conditions.headers.is_empty()
        && conditions.query_parameters.is_empty()
        && conditions.dynamic_metadata.is_empty()
}

/// The route of a service port that no VirtualService speaks of.
#[expect(deprecated, reason = "Istio bounds grpc-timeout with max_grpc_timeout")]
pub(crate) fn default_outbound(context: &Context<'_>, service: &Service, port: u16) -> Route {
    let host = &service.host;
    let retries = context.snapshot.config.mesh.retries.as_ref();
    let hash = hash::of_service(context, service, port).and_then(hash::policy);
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(outbound_cluster(port, "", host))),
        timeout: Some(UNLIMITED),
        max_grpc_timeout: Some(UNLIMITED),
        // Istio lets a retry avoid the request's own host here, and only here.
        retry_policy: retry::policy(retries, false),
        hash_policy: hash.into_iter().collect(),
        ..Default::default()
    };
    default_route(action, format!("{host}:{port}/*"))
}

/// The one route of an inbound listener. The application gets a second chance where it has surely seen nothing.
pub(crate) fn default_inbound(cluster: &str, operation: String) -> Route {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        timeout: Some(UNLIMITED),
        max_stream_duration: Some(MaxStreamDuration {
            max_stream_duration: Some(UNLIMITED),
            grpc_timeout_header_max: Some(UNLIMITED),
            ..Default::default()
        }),
        retry_policy: Some(retry::inbound()),
        ..Default::default()
    };
    default_route(action, operation)
}

fn default_route(action: RouteAction, operation: String) -> Route {
    Route {
        name: DEFAULT_ROUTE.to_owned(),
        r#match: Some(request_match::everything()),
        action: Some(Action::Route(action)),
        decorator: Some(Decorator { operation, propagate: None }),
        ..Default::default()
    }
}

/// The route of requests that no virtual host takes: on to where they want, or 502.
#[expect(deprecated, reason = "Istio bounds grpc-timeout with max_grpc_timeout")]
pub(crate) fn unknown_host(is_allowed: bool) -> Route {
    let name = if is_allowed { "allow_any" } else { "block_all" };
    let action = if is_allowed {
        Action::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(PASSTHROUGH_CLUSTER.to_owned())),
            timeout: Some(UNLIMITED),
            max_grpc_timeout: Some(UNLIMITED),
            ..Default::default()
        })
    } else {
        Action::DirectResponse(DirectResponseAction { status: 502, ..Default::default() })
    };
    Route {
        name: name.to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..Default::default()
        }),
        action: Some(action),
        ..Default::default()
    }
}
