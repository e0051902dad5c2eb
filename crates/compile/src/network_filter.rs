//! The catalogue of network filters: those that end a chain, and those that may stand before one.
//!
//! One file for each that has a configuration of its own. Network RBAC, external authorisation and TLS come with the
//! security features; until then they are rejected by their type.

use std::sync::Arc;

use bytes::Bytes;
use meltemi_envoy::Any;
use meltemi_envoy::config::listener::v3 as proto;
use meltemi_envoy::extensions::filters::network::connection_limit::v3::ConnectionLimit as ConnectionLimitMessage;
use meltemi_envoy::extensions::filters::network::direct_response::v3::Config as DirectResponse;
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager as HttpMessage;
use meltemi_envoy::extensions::filters::network::set_filter_state::v3::Config as SetFilterState;
use meltemi_envoy::extensions::filters::network::sni_cluster::v3::SniCluster;
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy as TcpMessage;

use crate::connection_manager::connection_manager;
use crate::extension::{typed_struct, unknown, unpack};
use crate::filter::set_filter_state::ObjectValue;
use crate::istio_stats;
use crate::ledger::At;
use crate::peer_metadata;
use crate::program::{Direction, HttpConnectionManager, TcpProxy};
use crate::scalar::inline_data;
use crate::tcp_proxy::tcp_proxy;

mod connection_limit;
mod set_filter_state;

pub use connection_limit::{ConnectionLimit, Slot};

/// The filter that consumes the connection.
#[derive(Debug)]
pub enum NetworkFilter {
    /// `envoy.filters.network.http_connection_manager`.
    Http(Arc<HttpConnectionManager>),
    /// `envoy.filters.network.tcp_proxy`.
    Tcp(Arc<TcpProxy>),
    /// `envoy.filters.network.direct_response`: these bytes, then the end.
    DirectResponse(Bytes),
}

/// What looks at a connection before the filter that consumes it, in order.
#[derive(Debug)]
pub enum ConnectionFilter {
    /// `envoy.filters.network.sni_cluster`: the TCP proxy's cluster is the one that the client named by SNI.
    SniCluster,
    /// `envoy.filters.network.connection_limit`.
    ConnectionLimit(Arc<ConnectionLimit>),
    /// `envoy.filters.network.set_filter_state`: these objects, when the connection is new.
    SetFilterState(Arc<[ObjectValue]>),
    /// `istio.metadata_exchange`: where TLS agreed upon this protocol, both ends say who they are.
    PeerExchange(Arc<str>),
}

/// The filter state by which another filter tells the TCP proxy its cluster.
pub const TCP_PROXY_CLUSTER: &str = "envoy.tcp_proxy.cluster";

/// What stands before the terminal filter, and that one.
pub(crate) fn network_filters(
    at: &At<'_>,
    filters: &[proto::Filter],
    direction: Direction,
) -> Option<(Vec<ConnectionFilter>, NetworkFilter)> {
    let Some((last, before)) = filters.split_last() else {
        return at.field("filters").none("the last filter must be terminal");
    };
    let mut reports_tcp = false;
    let mut compiled = Vec::new();
    for (i, filter) in before.iter().enumerate() {
        let at = &at.item("filters", i);
        let Some(any) = filter_config(at, filter) else { continue };
        let typed = &at.field("typed_config");
        match typed_struct(typed, any) {
            Some(inner) if inner.type_name == istio_stats::PLUGIN_CONFIG => {
                istio_stats::check(typed, &inner.value);
                reports_tcp = true;
            }
            Some(inner) if inner.type_name == peer_metadata::NETWORK_CONFIG => {
                let protocol = peer_metadata::network(typed, &inner.value);
                compiled.extend(protocol.map(|name| ConnectionFilter::PeerExchange(name.into())));
            }
            _ if is_terminal(any) => at.reject("a terminal filter must be the last one"),
            _ => compiled.extend(connection_filter(typed, &filter.name, any)),
        }
    }
    if compiled.iter().filter(|filter| matches!(filter, ConnectionFilter::PeerExchange(_))).count() > 1 {
        at.field("filters").reject("only one exchange of metadata");
    }
    let at = &at.item("filters", filters.len() - 1);
    let any = filter_config(at, last)?;
    let terminal = terminal(&at.field("typed_config"), &last.name, any, direction, reports_tcp)?;
    Some((compiled, terminal))
}

fn connection_filter(at: &At<'_>, name: &str, any: &Any) -> Option<ConnectionFilter> {
    if any.is::<SniCluster>() {
        let SniCluster {} = unpack(at, any)?;
        return Some(ConnectionFilter::SniCluster);
    }
    if any.is::<ConnectionLimitMessage>() {
        let limit = connection_limit::compile(at, &unpack(at, any)?)?;
        return Some(ConnectionFilter::ConnectionLimit(Arc::new(limit)));
    }
    if any.is::<SetFilterState>() {
        let objects = set_filter_state::compile(at, &unpack(at, any)?);
        return Some(ConnectionFilter::SetFilterState(objects.into()));
    }
    unknown(at, name, any)
}

fn terminal(
    at: &At<'_>,
    name: &str,
    any: &Any,
    direction: Direction,
    reports_tcp: bool,
) -> Option<NetworkFilter> {
    if any.is::<HttpMessage>() {
        let manager = connection_manager(at, &unpack(at, any)?, direction)?;
        return Some(NetworkFilter::Http(Arc::new(manager)));
    }
    if any.is::<TcpMessage>() {
        return Some(NetworkFilter::Tcp(Arc::new(tcp_proxy(at, &unpack(at, any)?, reports_tcp)?)));
    }
    if any.is::<DirectResponse>() {
        let DirectResponse { response } = unpack(at, any)?;
        let at = &at.field("response");
        let bytes = match &response {
            Some(source) => Bytes::copy_from_slice(inline_data(at, source)?),
            None => Bytes::new(),
        };
        return Some(NetworkFilter::DirectResponse(bytes));
    }
    if any.is::<SniCluster>() || any.is::<ConnectionLimitMessage>() || any.is::<SetFilterState>() {
        return at.none("a filter that is not terminal must not be the last one");
    }
    unknown(at, name, any)
}

fn is_terminal(any: &Any) -> bool {
    any.is::<HttpMessage>() || any.is::<TcpMessage>() || any.is::<DirectResponse>()
}

fn filter_config<'m>(at: &At<'_>, message: &'m proto::Filter) -> Option<&'m Any> {
    let proto::Filter { name, config_type } = message;
    at.required("name", name);
    match config_type {
        Some(proto::filter::ConfigType::TypedConfig(any)) => Some(any),
        Some(proto::filter::ConfigType::ConfigDiscovery(_)) => {
            at.field("config_discovery").none("not supported yet")
        }
        None => at.field("typed_config").none("must be set"),
    }
}
