//! Listeners and their filter chains.
//!
//! Source: `envoy.config.listener.v3`.

use std::sync::Arc;
use std::time::Duration;

use meltemi_envoy::Any;
use meltemi_envoy::config::core::v3::{TrafficDirection, TransportSocket, transport_socket};
use meltemi_envoy::config::listener::v3 as proto;
use meltemi_envoy::config::listener::v3::filter_chain_match::ConnectionSourceType;
use meltemi_envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use meltemi_envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use meltemi_envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use meltemi_envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use meltemi_envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;

use crate::access_log::{Place, access_logs};
use crate::chain;
use crate::connection_manager::connection_manager;
use crate::extension::{typed_struct, unknown, unpack};
use crate::istio_stats;
use crate::ledger::{At, harmless, refuse};
use crate::program::{
    ChainMatch, Direction, FilterChain, Listener, ListenerFilter, NetworkFilter, SourceType,
};
use crate::scalar::{cidr, digest, socket_addr};
use crate::tcp_proxy::tcp_proxy;

/// `listener_filters_timeout` when it is not set.
const LISTENER_FILTERS_TIMEOUT: Duration = Duration::from_secs(15);
/// `per_connection_buffer_limit_bytes` when it is not set.
const CONNECTION_BUFFER_LIMIT_BYTES: u32 = 1 << 20;

/// Compiles a listener.
pub(crate) fn compile(at: &At<'_>, message: &proto::Listener) -> Option<Listener> {
    refuse_unsupported(at, message);
    let address = socket_addr(&at.field("address"), &message.address);
    let direction = match at.choice("traffic_direction", message.traffic_direction)? {
        TrafficDirection::Unspecified => Direction::Unspecified,
        TrafficDirection::Inbound => Direction::Inbound,
        TrafficDirection::Outbound => Direction::Outbound,
    };
    let (chains, default_chain) =
        chains(at, &message.filter_chains, message.default_filter_chain.as_ref(), direction);
    let filters = at.each("listener_filters", &message.listener_filters, listener_filter);
    let access_log = access_logs(at, &message.access_log, Place::Listener);
    let address = address?;
    Some(Listener {
        name: if message.name.is_empty() { address.to_string().into() } else { message.name.as_str().into() },
        address,
        direction,
        chains,
        default_chain,
        listener_filters: filters,
        listener_filters_timeout: at.timeout(
            "listener_filters_timeout",
            &message.listener_filters_timeout,
            Some(LISTENER_FILTERS_TIMEOUT),
        ),
        continue_on_listener_filters_timeout: message.continue_on_listener_filters_timeout,
        per_connection_buffer_limit_bytes: message
            .per_connection_buffer_limit_bytes
            .unwrap_or(CONNECTION_BUFFER_LIMIT_BYTES),
        access_log,
        digest: digest(message),
    })
}

/// Every field that the parts do not read.
fn refuse_unsupported(at: &At<'_>, message: &proto::Listener) {
    let proto::Listener {
        name: _,
        address: _,
        additional_addresses,
        stat_prefix,
        stats_matcher,
        filter_chains: _,
        fcds_config,
        filter_chain_matcher,
        use_original_dst,
        default_filter_chain: _,
        per_connection_buffer_limit_bytes: _,
        per_connection_buffer_high_watermark_timeout,
        metadata,
        deprecated_v1,
        drain_type,
        listener_filters: _,
        listener_filters_timeout: _,
        continue_on_listener_filters_timeout: _,
        transparent,
        freebind,
        socket_options,
        tcp_fast_open_queue_length,
        traffic_direction: _,
        udp_listener_config,
        api_listener,
        connection_balance_config,
        reuse_port,
        enable_reuse_port,
        access_log: _,
        tcp_backlog_size,
        max_connections_to_accept_per_socket_event,
        bind_to_port,
        enable_mptcp,
        ignore_global_conn_limit,
        bypass_overload_manager,
        tcp_keepalive,
        listener_specifier,
    } = message;
    refuse!(at; additional_addresses, stats_matcher, fcds_config, filter_chain_matcher, drain_type);
    refuse!(at; per_connection_buffer_high_watermark_timeout, socket_options, tcp_fast_open_queue_length);
    refuse!(at; udp_listener_config, api_listener, connection_balance_config, tcp_backlog_size);
    refuse!(at; enable_mptcp, tcp_keepalive, listener_specifier);
    at.refuse_true("use_original_dst", *use_original_dst);
    at.refuse_true("transparent", *transparent);
    at.refuse_true("freebind", *freebind);
    at.refuse_false("bind_to_port", *bind_to_port);
    at.field("deprecated_v1")
        .refuse_false("bind_to_port", deprecated_v1.as_ref().and_then(|v1| v1.bind_to_port));
    harmless!(StatsOnly; stat_prefix);
    harmless!(Metadata; metadata);
    harmless!(AcceptPacing; reuse_port, enable_reuse_port, max_connections_to_accept_per_socket_event);
    harmless!(NoSuchLimit; ignore_global_conn_limit, bypass_overload_manager);
}

/// The chains with the default one at the end, and its index.
fn chains(
    at: &At<'_>,
    messages: &[proto::FilterChain],
    default: Option<&proto::FilterChain>,
    direction: Direction,
) -> (Vec<Arc<FilterChain>>, Option<usize>) {
    if messages.is_empty() && default.is_none() {
        at.field("filter_chains").reject("no filter chains specified");
    }
    let mut chains =
        at.each("filter_chains", messages, |at, chain| filter_chain(at, chain, direction).map(Arc::new));
    for (i, j) in chain::overlaps(&chains) {
        at.item("filter_chains", j)
            .field("filter_chain_match")
            .reject(format_args!("has the same matching rules as filter_chains[{i}], or overlapping ones"));
    }
    let default = default.and_then(|message| {
        let at = at.field("default_filter_chain");
        if message.filter_chain_match.as_ref().is_some_and(|m| *m != proto::FilterChainMatch::default()) {
            at.field("filter_chain_match").reject("must be empty: the default chain has no conditions");
        }
        filter_chain(&at, message, direction)
    });
    let index = default.map(|chain| {
        chains.push(Arc::new(chain));
        chains.len() - 1
    });
    (chains, index)
}

fn filter_chain(at: &At<'_>, message: &proto::FilterChain, direction: Direction) -> Option<FilterChain> {
    let proto::FilterChain {
        filter_chain_match,
        filters,
        use_proxy_proto,
        metadata,
        transport_socket,
        transport_socket_connect_timeout,
        name,
    } = message;
    at.refuse_true("use_proxy_proto", *use_proxy_proto);
    harmless!(Metadata; metadata);
    raw_transport_socket(at, transport_socket.as_ref());
    let matches = match filter_chain_match {
        Some(message) => chain_match(&at.field("filter_chain_match"), message)?,
        None => ChainMatch::default(),
    };
    Some(FilterChain {
        name: name.as_str().into(),
        matches,
        filter: network_filters(at, filters, direction)?,
        transport_socket_connect_timeout: at.timeout(
            "transport_socket_connect_timeout",
            transport_socket_connect_timeout,
            None,
        ),
    })
}

/// Rejects every transport socket but plaintext.
pub(crate) fn raw_transport_socket(at: &At<'_>, socket: Option<&TransportSocket>) {
    let Some(TransportSocket { name, config_type }) = socket else { return };
    let at = &at.field("transport_socket");
    match config_type {
        Some(transport_socket::ConfigType::TypedConfig(any)) if any.is::<RawBuffer>() => {}
        Some(transport_socket::ConfigType::TypedConfig(any)) => {
            at.field("typed_config").reject(format_args!("not supported yet: {}", any.message_name()));
        }
        None if name == "envoy.transport_sockets.raw_buffer" => {}
        None => at.reject(format_args!("not supported yet: {name}")),
    }
}

fn chain_match(at: &At<'_>, message: &proto::FilterChainMatch) -> Option<ChainMatch> {
    let proto::FilterChainMatch {
        destination_port,
        prefix_ranges,
        address_suffix,
        suffix_len,
        direct_source_prefix_ranges,
        source_type,
        source_prefix_ranges,
        source_ports,
        server_names,
        transport_protocol,
        application_protocols,
    } = message;
    refuse!(at; address_suffix, suffix_len);
    let nonzero = |at: &At<'_>, port: u32| match u16::try_from(port) {
        Ok(port) if port > 0 => Some(port),
        _ => at.none(format_args!("{port} is not a port")),
    };
    Some(ChainMatch {
        destination_port: destination_port.and_then(|port| nonzero(&at.field("destination_port"), port)),
        prefix_ranges: at.each("prefix_ranges", prefix_ranges, cidr),
        server_names: at.each("server_names", server_names, |at, name| server_name(at, name)),
        transport_protocol: (!transport_protocol.is_empty()).then(|| transport_protocol.as_str().into()),
        application_protocols: application_protocols.iter().map(|p| p.as_str().into()).collect(),
        source_prefix_ranges: at.each("source_prefix_ranges", source_prefix_ranges, cidr),
        source_ports: at.each("source_ports", source_ports, |at, port| nonzero(at, *port)),
        direct_source_prefix_ranges: at.each(
            "direct_source_prefix_ranges",
            direct_source_prefix_ranges,
            cidr,
        ),
        source_type: match at.choice("source_type", *source_type)? {
            ConnectionSourceType::Any => SourceType::Any,
            ConnectionSourceType::SameIpOrLoopback => SourceType::SameIpOrLoopback,
            ConnectionSourceType::External => SourceType::External,
        },
    })
}

fn server_name(at: &At<'_>, name: &str) -> Option<Box<str>> {
    let name = name.to_ascii_lowercase();
    let fixed = name.strip_prefix("*.").unwrap_or(&name);
    if fixed.is_empty() || fixed.contains('*') {
        return at.none(format_args!("{name:?}: only a whole first label may be a wildcard"));
    }
    Some(name.into())
}

/// The terminal filter, and what stands before it.
fn network_filters(at: &At<'_>, filters: &[proto::Filter], direction: Direction) -> Option<NetworkFilter> {
    let Some((last, before)) = filters.split_last() else {
        return at.field("filters").none("the last filter must be terminal");
    };
    let mut reports_tcp = false;
    for (i, filter) in before.iter().enumerate() {
        let at = &at.item("filters", i);
        let Some(any) = filter_config(at, filter) else { continue };
        match typed_struct(&at.field("typed_config"), any) {
            Some(inner) if inner.type_name == istio_stats::PLUGIN_CONFIG => {
                istio_stats::check(&at.field("typed_config"), &inner.value);
                reports_tcp = true;
            }
            _ if is_terminal(any) => at.reject("a terminal filter must be the last one"),
            _ => drop(unknown::<()>(&at.field("typed_config"), &filter.name, any)),
        }
    }
    let at = &at.item("filters", filters.len() - 1);
    let any = filter_config(at, last)?;
    let at = &at.field("typed_config");
    if any.is::<HttpConnectionManager>() {
        let manager = connection_manager(at, &unpack(at, any)?, direction)?;
        return Some(NetworkFilter::Http(Arc::new(manager)));
    }
    if any.is::<TcpProxy>() {
        return Some(NetworkFilter::Tcp(Arc::new(tcp_proxy(at, &unpack(at, any)?, reports_tcp)?)));
    }
    unknown(at, &last.name, any)
}

fn is_terminal(any: &Any) -> bool {
    any.is::<HttpConnectionManager>() || any.is::<TcpProxy>()
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

fn listener_filter(at: &At<'_>, message: &proto::ListenerFilter) -> Option<ListenerFilter> {
    let proto::ListenerFilter { name, filter_disabled, config_type } = message;
    refuse!(at; filter_disabled);
    at.required("name", name);
    let any = match config_type {
        Some(proto::listener_filter::ConfigType::TypedConfig(any)) => any,
        Some(proto::listener_filter::ConfigType::ConfigDiscovery(_)) => {
            return at.field("config_discovery").none("not supported yet");
        }
        None => return at.field("typed_config").none("must be set"),
    };
    let at = &at.field("typed_config");
    if any.is::<OriginalDst>() {
        return Some(ListenerFilter::OriginalDst);
    }
    if any.is::<HttpInspector>() {
        return Some(ListenerFilter::HttpInspector);
    }
    if any.is::<TlsInspector>() {
        tls_inspector(at, &unpack(at, any)?);
        return Some(ListenerFilter::TlsInspector);
    }
    unknown(at, name, any)
}

fn tls_inspector(at: &At<'_>, message: &TlsInspector) {
    let TlsInspector {
        enable_ja3_fingerprinting,
        enable_ja4_fingerprinting,
        initial_read_buffer_size,
        close_connection_on_client_hello_parsing_errors,
        max_client_hello_size,
    } = message;
    refuse!(at; close_connection_on_client_hello_parsing_errors, max_client_hello_size);
    at.refuse_true("enable_ja3_fingerprinting", *enable_ja3_fingerprinting);
    at.refuse_true("enable_ja4_fingerprinting", *enable_ja4_fingerprinting);
    harmless!(ReadAhead; initial_read_buffer_size);
}
