//! Listeners: where they listen, what looks at a connection first, and which chains it may take.
//!
//! Source: `envoy.config.listener.v3`. Leaves out: UDP and QUIC, API listeners, internal listeners, chains by FCDS.

use std::sync::Arc;
use std::time::Duration;

use meltemi_envoy::config::core::v3::TrafficDirection;
use meltemi_envoy::config::listener::v3 as proto;
use meltemi_envoy::config::listener::v3::listener::connection_balance_config::{BalanceType, ExactBalance};
use meltemi_envoy::config::listener::v3::listener::{ConnectionBalanceConfig, DeprecatedV1, DrainType};

use crate::access_log::access_logs;
use crate::chain::ChainIndex;
use crate::ledger::{At, harmless, refuse};
use crate::program::{AccessLog, Direction, FilterChain, Name};
use crate::scalar::digest;

mod chains;
mod filter;
mod socket;

pub use filter::{
    ListenerFilter, ListenerFilterKind, ListenerPredicate, PassThrough, ProxyProtocol, TlsInspector, TlvRule,
};
pub(crate) use filter::{pass_through, tlv_kind};
pub use socket::{Keepalive, ListenAddress, SocketSettings};

/// `listener_filters_timeout` when it is not set.
const LISTENER_FILTERS_TIMEOUT: Duration = Duration::from_secs(15);
/// `per_connection_buffer_limit_bytes` when it is not set.
const CONNECTION_BUFFER_LIMIT_BYTES: u32 = 1 << 20;

/// Addresses and the filter chains behind them (`envoy.config.listener.v3.Listener`).
#[derive(Debug)]
pub struct Listener {
    /// `name`, or the address when the message has none.
    pub name: Name,
    /// Where to listen first. Port 0 asks the kernel for one.
    pub address: std::net::SocketAddr,
    /// `stat_prefix`: the part of statistics' names in place of the address.
    pub stat_prefix: Option<Box<str>>,
    /// The first address and `additional_addresses`.
    pub addresses: Vec<ListenAddress>,
    /// How sockets are set up.
    pub sockets: SocketSettings,
    /// `traffic_direction`, as Istio labels it.
    pub direction: Direction,
    /// `use_original_dst`: a connection whose destination was restored goes to the listener of that address.
    pub hands_on: bool,
    /// `filter_chains` in order, then `default_filter_chain`; choosing among them is [`Listener::choose`].
    pub chains: Vec<Arc<FilterChain>>,
    /// Chains by what they match.
    pub index: ChainIndex,
    /// Index in `chains` of `default_filter_chain`.
    pub default_chain: Option<usize>,
    /// `listener_filters` in order.
    pub listener_filters: Vec<ListenerFilter>,
    /// `listener_filters_timeout`; `None` waits for ever (Envoy: 0). Default 15 s.
    pub listener_filters_timeout: Option<Duration>,
    /// `continue_on_listener_filters_timeout`.
    pub continue_on_listener_filters_timeout: bool,
    /// `per_connection_buffer_limit_bytes`, default 1 MiB.
    pub per_connection_buffer_limit_bytes: u32,
    /// Listener-level `access_log`: one line for every connection.
    pub access_log: Vec<Arc<AccessLog>>,
    /// `ignore_global_conn_limit`, which `bypass_overload_manager` implies: its connections do not count towards the
    /// limit of the process.
    pub ignore_global_conn_limit: bool,
    /// `drain_type: DEFAULT`: clients are asked to go while health checks fail, too.
    pub heeds_health: bool,
    /// Digest of the encoded message: equal digests need no update.
    pub digest: u64,
    /// The same without its chains: when only these differ, connections of chains that stay go on.
    pub frame_digest: u64,
}

/// Compiles a listener.
pub(crate) fn compile(at: &At<'_>, message: &proto::Listener) -> Option<Listener> {
    refuse_unsupported(at, message);
    let addresses = socket::addresses(at, message);
    let direction = match at.choice("traffic_direction", message.traffic_direction)? {
        TrafficDirection::Unspecified => Direction::Unspecified,
        TrafficDirection::Inbound => Direction::Inbound,
        TrafficDirection::Outbound => Direction::Outbound,
    };
    let (chains, default_chain, index) =
        chains::chains(at, &message.filter_chains, message.default_filter_chain.as_ref(), direction);
    let hands_on = message.use_original_dst == Some(true);
    let mut filters = at.each("listener_filters", &message.listener_filters, filter::listener_filter);
    if hands_on {
        // As in Envoy the flag brings the filter with it, which Istio relies on.
        filters.push(ListenerFilter { disabled: None, kind: ListenerFilterKind::OriginalDst });
    }
    let access_log = access_logs(at, &message.access_log);
    let (first, additional) = addresses?;
    let address = first.address;
    Some(Listener {
        name: if message.name.is_empty() { address.to_string().into() } else { message.name.as_str().into() },
        address,
        stat_prefix: (!message.stat_prefix.is_empty()).then(|| message.stat_prefix.as_str().into()),
        addresses: std::iter::once(first).chain(additional).collect(),
        sockets: socket::settings(message),
        direction,
        hands_on,
        chains,
        index,
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
        ignore_global_conn_limit: message.ignore_global_conn_limit || message.bypass_overload_manager,
        heeds_health: at.choice("drain_type", message.drain_type) != Some(DrainType::ModifyOnly),
        digest: digest(message),
        frame_digest: frame_digest(message),
    })
}

fn frame_digest(message: &proto::Listener) -> u64 {
    let mut frame = message.clone();
    frame.filter_chains.clear();
    frame.default_filter_chain = None;
    frame.filter_chain_matcher = None;
    digest(&frame)
}

/// Every field that the parts do not read.
fn refuse_unsupported(at: &At<'_>, message: &proto::Listener) {
    let proto::Listener {
        name: _,
        address: _,
        additional_addresses: _,
        stat_prefix: _,
        stats_matcher,
        filter_chains: _,
        fcds_config,
        filter_chain_matcher,
        use_original_dst: _,
        default_filter_chain: _,
        per_connection_buffer_limit_bytes: _,
        per_connection_buffer_high_watermark_timeout,
        metadata,
        deprecated_v1,
        drain_type: _,
        listener_filters: _,
        listener_filters_timeout: _,
        continue_on_listener_filters_timeout: _,
        transparent: _,
        freebind: _,
        socket_options,
        tcp_fast_open_queue_length,
        traffic_direction: _,
        udp_listener_config,
        api_listener,
        connection_balance_config,
        reuse_port,
        enable_reuse_port,
        access_log: _,
        tcp_backlog_size: _,
        max_connections_to_accept_per_socket_event,
        bind_to_port: _,
        enable_mptcp,
        ignore_global_conn_limit: _,
        bypass_overload_manager: _,
        tcp_keepalive: _,
        listener_specifier,
    } = message;
    refuse!(at; stats_matcher, fcds_config, filter_chain_matcher, socket_options);
    refuse!(at; per_connection_buffer_high_watermark_timeout, tcp_fast_open_queue_length);
    refuse!(at; udp_listener_config, api_listener, enable_mptcp, listener_specifier);
    if let Some(DeprecatedV1 { bind_to_port: _ }) = deprecated_v1 {
        // Read with the other socket settings.
    }
    if let Some(ConnectionBalanceConfig { balance_type }) = connection_balance_config {
        match balance_type {
            // The kernel spreads connections over the sockets of the workers.
            Some(BalanceType::ExactBalance(ExactBalance {})) => {}
            _ => at.field("connection_balance_config").reject("not supported yet: only exact_balance"),
        }
    }
    harmless!(Metadata; metadata);
    if *max_connections_to_accept_per_socket_event == Some(0) {
        at.field("max_connections_to_accept_per_socket_event").reject("must be at least 1");
    }
    harmless!(AcceptPacing; reuse_port, enable_reuse_port, max_connections_to_accept_per_socket_event);
}
