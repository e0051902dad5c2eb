//! The HTTP filters of a connection manager: the catalogue, and how a chain is compiled.
//!
//! A filter is one file below: its configuration, what a route may say to it, and its verdict on a request as a
//! pure function ([`HttpFilter::decode`], [`HttpFilter::encode`]). What a verdict asks for, the proxy performs
//! ([`Effect`]). A new filter is a file, a variant of [`FilterConfig`] and a line in each table of this file.
//! Source: `envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter`.

use meltemi_envoy::Any;
use meltemi_envoy::extensions::filters::http::buffer::v3 as buffer_proto;
use meltemi_envoy::extensions::filters::http::cors::v3 as cors_proto;
use meltemi_envoy::extensions::filters::http::fault::v3::HttpFault;
use meltemi_envoy::extensions::filters::http::grpc_stats::v3::FilterConfig as GrpcStatsMessage;
use meltemi_envoy::extensions::filters::http::header_mutation::v3 as header_mutation_proto;
use meltemi_envoy::extensions::filters::http::health_check::v3::HealthCheck as HealthCheckMessage;
use meltemi_envoy::extensions::filters::http::router::v3::Router;
use meltemi_envoy::extensions::filters::http::set_filter_state::v3::Config as SetFilterStateMessage;
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;

use crate::extension::{typed_struct, unknown, unpack};
use crate::istio_stats;
use crate::ledger::At;
use crate::peer_metadata::{self, PeerMetadata};
use crate::program::Name;

pub mod buffer;
pub mod cors;
mod discovery;
pub mod fault;
pub mod grpc_stats;
pub mod header_mutation;
pub mod health_check;
mod per_route;
mod router;
pub mod set_filter_state;
#[cfg(test)]
mod tests;
mod verdict;

pub use discovery::{DiscoveredFilter, FilterDiscovery, discovered};
pub(crate) use per_route::per_filter_configs;
pub use per_route::{Levels, PerFilter, PerFilterConfigs};
pub use router::{CheckedHeader, RouterOptions};
pub use verdict::{Answer, AnswerFlag, Effect, Event, FilterView, HeadEdit, Verdict};

/// The most filters of one chain: which of them are on is a set of bits.
const MAX_FILTERS: usize = 64;

/// One filter before the router.
#[derive(Debug)]
pub struct HttpFilter {
    /// `name`: under it routes hold configurations for the filter.
    pub name: Name,
    /// `disabled`, unless a route has something for it.
    pub disabled: bool,
    /// What kind of filter it is, with its configuration.
    pub config: FilterConfig,
}

/// The catalogue: a variant per filter, with its configuration at the listener.
#[derive(Debug)]
pub enum FilterConfig {
    /// `envoy.filters.http.buffer`: `max_request_bytes`.
    Buffer(u32),
    /// `envoy.filters.http.cors`, acts only by the policies of routes.
    Cors,
    /// `config_discovery`: whatever stands in its place runs, see [`FilterDiscovery::choose`].
    Discovered(Box<FilterDiscovery>),
    /// `envoy.filters.http.fault`.
    Fault(Box<fault::Fault>),
    /// `envoy.filters.http.grpc_stats`.
    GrpcStats(grpc_stats::GrpcStats),
    /// `envoy.filters.http.header_mutation`.
    HeaderMutation(Box<header_mutation::HeaderMutation>),
    /// `envoy.filters.http.health_check`.
    HealthCheck(Box<health_check::HealthCheck>),
    /// `envoy.filters.http.set_filter_state`.
    SetFilterState(set_filter_state::SetFilterState),
}

/// What a route, virtual host, weighted cluster or route configuration says to a filter.
#[derive(Debug)]
pub enum RouteFilterConfig {
    /// `envoy.extensions.filters.http.buffer.v3.BufferPerRoute`.
    Buffer(buffer::BufferOverride),
    /// `envoy.extensions.filters.http.cors.v3.CorsPolicy`.
    Cors(Box<cors::CorsPolicy>),
    /// `envoy.extensions.filters.http.fault.v3.HTTPFault`.
    Fault(Box<fault::Fault>),
    /// `envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute`.
    HeaderMutation(Box<header_mutation::Mutations>),
    /// `envoy.extensions.filters.http.set_filter_state.v3.Config`.
    SetFilterState(Box<set_filter_state::SetFilterState>),
}

/// What a filter keeps of a request between its hooks.
#[derive(Debug, Default)]
pub enum FilterState {
    /// Nothing.
    #[default]
    Idle,
    /// The origin that is allowed.
    Cors(http::HeaderValue),
    /// The faults of the request.
    Fault(fault::FaultState),
    /// It is a gRPC call.
    Grpc(grpc_stats::GrpcCall),
    /// It is a health check.
    HealthCheck,
}

impl HttpFilter {
    /// What to do with a request head.
    pub fn decode(&self, view: &impl FilterView, levels: &Levels<'_>, state: &mut FilterState) -> Verdict {
        match &self.config {
            FilterConfig::Buffer(limit) => buffer::decode(*limit, &self.name, view, levels),
            FilterConfig::Cors => cors::decode(&self.name, view, levels, state),
            FilterConfig::Discovered(_) => Verdict::Continue,
            FilterConfig::Fault(own) => fault::decode(own, &self.name, view, levels, state),
            FilterConfig::GrpcStats(own) => {
                grpc_stats::decode(own, view, state);
                Verdict::Continue
            }
            FilterConfig::HeaderMutation(own) => own.decode(&self.name, levels),
            FilterConfig::HealthCheck(own) => health_check::decode(own, &self.name, view, state),
            FilterConfig::SetFilterState(own) => own.decode(&self.name, levels),
        }
    }

    /// What to do next, after the effect of the verdict before was performed.
    pub fn resume(&self, view: &impl FilterView, levels: &Levels<'_>, state: &mut FilterState) -> Verdict {
        match &self.config {
            FilterConfig::Fault(own) => fault::resume(own, &self.name, view, levels, state),
            FilterConfig::HealthCheck(own) => health_check::resume(own, &self.name, view),
            FilterConfig::Buffer(_)
            | FilterConfig::Cors
            | FilterConfig::Discovered(_)
            | FilterConfig::GrpcStats(_)
            | FilterConfig::HeaderMutation(_)
            | FilterConfig::SetFilterState(_) => Verdict::Continue,
        }
    }

    /// What to do with a response head, also one of ours; `state` is what [`HttpFilter::decode`] left.
    pub fn encode(&self, view: &impl FilterView, levels: &Levels<'_>, state: &FilterState) -> HeadEdit {
        match &self.config {
            FilterConfig::Cors => cors::encode(&self.name, levels, state),
            FilterConfig::Fault(_) => fault::encode(state),
            FilterConfig::GrpcStats(_) => grpc_stats::encode(state),
            FilterConfig::HeaderMutation(own) => own.encode(&self.name, levels),
            FilterConfig::HealthCheck(_) => health_check::encode(view, state),
            FilterConfig::Buffer(_) | FilterConfig::Discovered(_) | FilterConfig::SetFilterState(_) => {
                HeadEdit::Nothing
            }
        }
    }
}

/// The compiled `http_filters`.
#[derive(Default)]
pub(crate) struct Filters {
    /// Those before the router.
    pub(crate) filters: Vec<HttpFilter>,
    /// `istio.stats` is among them.
    pub(crate) istio_stats: bool,
    /// What those that are `istio.metadata_exchange` do.
    pub(crate) peer_metadata: PeerMetadata,
    /// The router's options.
    pub(crate) router: RouterOptions,
}

/// What one entry turned out to be.
enum Compiled {
    Filter(HttpFilter),
    IstioStats,
    PeerMetadata(PeerMetadata),
    Router(RouterOptions),
    /// Optional and not known.
    Nothing,
}

/// A type that is known.
enum Known {
    Filter(FilterConfig),
    IstioStats,
    PeerMetadata(PeerMetadata),
    Router(RouterOptions),
}

/// Compiles the filters. The router must be the last one, as Envoy demands of a terminal filter.
pub(crate) fn http_filters(at: &At<'_>, messages: &[proto::HttpFilter]) -> Filters {
    let mut compiled = Filters::default();
    if messages.is_empty() {
        at.field("http_filters").reject("the last filter must be the router");
    }
    for (i, message) in messages.iter().enumerate() {
        let at = at.item("http_filters", i);
        let is_last = i + 1 == messages.len();
        match http_filter(&at, message) {
            Some(Compiled::Router(_)) if !is_last => at.reject("the router must be the last filter"),
            Some(Compiled::Router(options)) => compiled.router = options,
            None => {}
            Some(_) if is_last => at.reject("the last filter must be the router"),
            Some(Compiled::Filter(filter)) => compiled.filters.push(filter),
            Some(Compiled::IstioStats) => compiled.istio_stats = true,
            Some(Compiled::PeerMetadata(more)) => compiled.peer_metadata = compiled.peer_metadata.and(more),
            Some(Compiled::Nothing) => {}
        }
    }
    if compiled.filters.len() > MAX_FILTERS {
        at.field("http_filters").reject(format_args!("more than {MAX_FILTERS} filters"));
    }
    compiled
}

fn http_filter(at: &At<'_>, message: &proto::HttpFilter) -> Option<Compiled> {
    let proto::HttpFilter { name, is_optional, disabled, config_type } = message;
    at.required("name", name);
    let any = match config_type {
        Some(ConfigType::TypedConfig(any)) => any,
        Some(ConfigType::ConfigDiscovery(source)) => {
            let config = discovery::config_discovery(&at.field("config_discovery"), name, source)?;
            return Some(Compiled::Filter(HttpFilter {
                name: name.as_str().into(),
                disabled: *disabled,
                config,
            }));
        }
        None => return at.field("typed_config").none("must be set"),
    };
    let at_config = &at.field("typed_config");
    let config = match known_filter(at_config, any)? {
        Some(Known::Filter(config)) => config,
        Some(Known::IstioStats | Known::PeerMetadata(_)) if *disabled => return Some(Compiled::Nothing),
        Some(Known::IstioStats) => return Some(Compiled::IstioStats),
        Some(Known::PeerMetadata(config)) => return Some(Compiled::PeerMetadata(config)),
        Some(Known::Router(_)) if *disabled => {
            return at.field("disabled").none("the router cannot be disabled");
        }
        Some(Known::Router(options)) => return Some(Compiled::Router(options)),
        None if *is_optional => return Some(Compiled::Nothing),
        None => return unknown(at_config, name, any),
    };
    Some(Compiled::Filter(HttpFilter { name: name.as_str().into(), disabled: *disabled, config }))
}

/// Compiles a configuration at the listener; `Some(None)` when the type is not known.
fn known_filter(at: &At<'_>, any: &Any) -> Option<Option<Known>> {
    if any.is::<Router>() {
        return Some(Some(Known::Router(router::compile(at, &unpack(at, any)?))));
    }
    let config = if any.is::<buffer_proto::Buffer>() {
        FilterConfig::Buffer(buffer::compile(at, &unpack(at, any)?)?)
    } else if any.is::<GrpcStatsMessage>() {
        FilterConfig::GrpcStats(grpc_stats::compile(at, &unpack(at, any)?))
    } else if any.is::<header_mutation_proto::HeaderMutation>() {
        FilterConfig::HeaderMutation(Box::new(header_mutation::compile(at, &unpack(at, any)?)))
    } else if any.is::<HealthCheckMessage>() {
        FilterConfig::HealthCheck(Box::new(health_check::compile(at, &unpack(at, any)?)?))
    } else if any.is::<SetFilterStateMessage>() {
        FilterConfig::SetFilterState(set_filter_state::compile(at, &unpack(at, any)?))
    } else if any.is::<HttpFault>() {
        FilterConfig::Fault(Box::new(fault::compile(at, &unpack(at, any)?)?))
    } else if any.is::<cors_proto::Cors>() {
        let cors_proto::Cors {} = unpack(at, any)?;
        FilterConfig::Cors
    } else {
        return known_by_name(at, any);
    };
    Some(Some(Known::Filter(config)))
}

/// Filters whose messages exist here only as text.
fn known_by_name(at: &At<'_>, any: &Any) -> Option<Option<Known>> {
    let Some(inner) = typed_struct(at, any) else { return Some(None) };
    Some(match &*inner.type_name {
        istio_stats::PLUGIN_CONFIG => {
            istio_stats::check(at, &inner.value);
            Some(Known::IstioStats)
        }
        peer_metadata::HTTP_CONFIG => Some(Known::PeerMetadata(peer_metadata::http(at, &inner.value))),
        _ => None,
    })
}

/// Compiles a configuration below the listener; `Some(None)` when the type is not known.
fn known_route_config(at: &At<'_>, any: &Any) -> Option<Option<RouteFilterConfig>> {
    let config = if any.is::<cors_proto::CorsPolicy>() {
        RouteFilterConfig::Cors(Box::new(cors::compile(at, &unpack(at, any)?)))
    } else if any.is::<HttpFault>() {
        RouteFilterConfig::Fault(Box::new(fault::compile(at, &unpack(at, any)?)?))
    } else if any.is::<buffer_proto::BufferPerRoute>() {
        RouteFilterConfig::Buffer(buffer::per_route(at, &unpack(at, any)?)?)
    } else if any.is::<header_mutation_proto::HeaderMutationPerRoute>() {
        RouteFilterConfig::HeaderMutation(Box::new(header_mutation::per_route(at, &unpack(at, any)?)))
    } else if any.is::<SetFilterStateMessage>() {
        RouteFilterConfig::SetFilterState(Box::new(set_filter_state::compile(at, &unpack(at, any)?)))
    } else {
        return Some(None);
    };
    Some(Some(config))
}
