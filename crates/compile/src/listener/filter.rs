//! Listener filters: what looks at the first bytes of a connection, before a chain is chosen.
//!
//! Source: `envoy.config.listener.v3.{ListenerFilter, ListenerFilterChainMatchPredicate}` and
//! `envoy.extensions.filters.listener.*`.

use std::sync::Arc;

use meltemi_envoy::config::core::v3::proxy_protocol_pass_through_tl_vs::PassTlVsMatchType;
use meltemi_envoy::config::core::v3::{ProxyProtocolPassThroughTlVs, proxy_protocol_config};
use meltemi_envoy::config::listener::v3 as proto;
use meltemi_envoy::config::listener::v3::listener_filter_chain_match_predicate::{MatchSet, Rule};
use meltemi_envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use meltemi_envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use meltemi_envoy::extensions::filters::listener::proxy_protocol::v3 as proxy;
use meltemi_envoy::extensions::filters::listener::proxy_protocol::v3::proxy_protocol::key_value_pair::ValueStringEncoding;
use meltemi_envoy::extensions::filters::listener::tls_inspector::v3 as tls;
use meltemi_envoy::r#type::v3::Int32Range;

use crate::extension::{unknown, unpack};
use crate::ledger::{At, harmless, refuse};
use crate::program::Name;

/// The longest ClientHello that is read, when `max_client_hello_size` is not set.
const MAX_CLIENT_HELLO_BYTES: u32 = 16 << 10;

/// The least `max_client_hello_size`.
const MIN_CLIENT_HELLO_BYTES: u32 = 256;

/// Where TLVs go when a rule names no `metadata_namespace`.
const PROXY_PROTOCOL_NAMESPACE: &str = "envoy.filters.listener.proxy_protocol";

/// A listener filter.
#[derive(Debug)]
pub struct ListenerFilter {
    /// `filter_disabled`: connections for which the filter does nothing.
    pub disabled: Option<ListenerPredicate>,
    /// What it does.
    pub kind: ListenerFilterKind,
}

/// The listener filters that there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerFilterKind {
    /// `envoy.filters.listener.original_dst`.
    OriginalDst,
    /// `envoy.filters.listener.tls_inspector`.
    TlsInspector(TlsInspector),
    /// `envoy.filters.listener.http_inspector`.
    HttpInspector,
    /// `envoy.filters.listener.proxy_protocol`.
    ProxyProtocol(Arc<ProxyProtocol>),
}

/// `envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsInspector {
    /// `max_client_hello_size`, default 16 KiB.
    pub max_client_hello_bytes: u32,
    /// `close_connection_on_client_hello_parsing_errors`.
    pub closes_on_errors: bool,
}

/// `envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// `rules`.
    pub rules: Vec<TlvRule>,
    /// `allow_requests_without_proxy_protocol`.
    pub allows_absent: bool,
    /// Version 1 is in `disallowed_versions`.
    pub refuses_v1: bool,
    /// Version 2 is in `disallowed_versions`.
    pub refuses_v2: bool,
    /// `pass_through_tlvs`.
    pub pass_through: PassThrough,
    /// `stat_prefix`, may be empty.
    pub stat_prefix: Name,
}

/// Which TLVs an upstream connection gets too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PassThrough {
    /// These types; none by default.
    Include(Vec<u8>),
    /// `INCLUDE_ALL`.
    All,
}

impl PassThrough {
    /// Whether TLVs of a type are passed.
    pub fn includes(&self, kind: u8) -> bool {
        match self {
            PassThrough::Include(kinds) => kinds.contains(&kind),
            PassThrough::All => true,
        }
    }
}

/// A TLV that becomes dynamic metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlvRule {
    /// `tlv_type`.
    pub kind: u8,
    /// `metadata_namespace`, else the filter's own.
    pub namespace: Box<str>,
    /// `key`.
    pub key: Box<str>,
    /// `value_string_encoding` is `BASE64`; else what is no UTF-8 becomes `!`.
    pub is_base64: bool,
}

/// `envoy.config.listener.v3.ListenerFilterChainMatchPredicate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerPredicate {
    /// `any_match`.
    Any(bool),
    /// `not_match`.
    Not(Box<ListenerPredicate>),
    /// `and_match`.
    All(Vec<ListenerPredicate>),
    /// `or_match`.
    AnyOf(Vec<ListenerPredicate>),
    /// `destination_port_range`: from the first on, without the last.
    DestinationPort(i32, i32),
}

impl ListenerPredicate {
    /// Whether it holds for a connection to this port.
    pub fn holds(&self, port: u16) -> bool {
        match self {
            ListenerPredicate::Any(holds) => *holds,
            ListenerPredicate::Not(inner) => !inner.holds(port),
            ListenerPredicate::All(all) => all.iter().all(|one| one.holds(port)),
            ListenerPredicate::AnyOf(any) => any.iter().any(|one| one.holds(port)),
            ListenerPredicate::DestinationPort(start, end) => (*start..*end).contains(&i32::from(port)),
        }
    }
}

/// Compiles a listener filter.
pub(super) fn listener_filter(at: &At<'_>, message: &proto::ListenerFilter) -> Option<ListenerFilter> {
    let proto::ListenerFilter { name, filter_disabled, config_type } = message;
    at.required("name", name);
    let disabled = match filter_disabled {
        Some(message) => Some(predicate(&at.field("filter_disabled"), message)?),
        None => None,
    };
    let any = match config_type {
        Some(proto::listener_filter::ConfigType::TypedConfig(any)) => any,
        Some(proto::listener_filter::ConfigType::ConfigDiscovery(_)) => {
            return at.field("config_discovery").none("not supported yet");
        }
        None => return at.field("typed_config").none("must be set"),
    };
    let at = &at.field("typed_config");
    let kind = if any.is::<OriginalDst>() {
        let OriginalDst {} = unpack(at, any)?;
        ListenerFilterKind::OriginalDst
    } else if any.is::<HttpInspector>() {
        let HttpInspector {} = unpack(at, any)?;
        ListenerFilterKind::HttpInspector
    } else if any.is::<tls::TlsInspector>() {
        ListenerFilterKind::TlsInspector(tls_inspector(at, &unpack(at, any)?))
    } else if any.is::<proxy::ProxyProtocol>() {
        ListenerFilterKind::ProxyProtocol(Arc::new(proxy_protocol(at, &unpack(at, any)?)))
    } else {
        return unknown(at, name, any);
    };
    Some(ListenerFilter { disabled, kind })
}

fn predicate(at: &At<'_>, message: &proto::ListenerFilterChainMatchPredicate) -> Option<ListenerPredicate> {
    let proto::ListenerFilterChainMatchPredicate { rule } = message;
    let all = |name, set: &MatchSet| {
        let at = &at.field(name);
        let MatchSet { rules } = set;
        if rules.len() < 2 {
            at.field("rules").reject("must have at least two");
        }
        at.each("rules", rules, predicate)
    };
    match rule {
        Some(Rule::OrMatch(set)) => Some(ListenerPredicate::AnyOf(all("or_match", set))),
        Some(Rule::AndMatch(set)) => Some(ListenerPredicate::All(all("and_match", set))),
        Some(Rule::NotMatch(inner)) => {
            Some(ListenerPredicate::Not(Box::new(predicate(&at.field("not_match"), inner)?)))
        }
        Some(Rule::AnyMatch(any)) => Some(ListenerPredicate::Any(*any)),
        Some(Rule::DestinationPortRange(Int32Range { start, end })) => {
            Some(ListenerPredicate::DestinationPort(*start, *end))
        }
        None => at.none("a rule must be set"),
    }
}

fn tls_inspector(at: &At<'_>, message: &tls::TlsInspector) -> TlsInspector {
    let tls::TlsInspector {
        enable_ja3_fingerprinting,
        enable_ja4_fingerprinting,
        initial_read_buffer_size,
        close_connection_on_client_hello_parsing_errors,
        max_client_hello_size,
    } = message;
    at.refuse_true("enable_ja3_fingerprinting", *enable_ja3_fingerprinting);
    at.refuse_true("enable_ja4_fingerprinting", *enable_ja4_fingerprinting);
    harmless!(ReadAhead; initial_read_buffer_size);
    TlsInspector {
        max_client_hello_bytes: at.bounded(
            "max_client_hello_size",
            *max_client_hello_size,
            MAX_CLIENT_HELLO_BYTES,
            (MIN_CLIENT_HELLO_BYTES, MAX_CLIENT_HELLO_BYTES),
        ),
        closes_on_errors: *close_connection_on_client_hello_parsing_errors,
    }
}

fn proxy_protocol(at: &At<'_>, message: &proxy::ProxyProtocol) -> ProxyProtocol {
    let proxy::ProxyProtocol {
        rules,
        allow_requests_without_proxy_protocol,
        pass_through_tlvs,
        disallowed_versions,
        stat_prefix,
        tlv_location,
    } = message;
    refuse!(at; tlv_location);
    let refuses = |version: proxy_protocol_config::Version| disallowed_versions.contains(&version.into());
    ProxyProtocol {
        rules: at.each("rules", rules, tlv_rule),
        allows_absent: *allow_requests_without_proxy_protocol,
        refuses_v1: refuses(proxy_protocol_config::Version::V1),
        refuses_v2: refuses(proxy_protocol_config::Version::V2),
        pass_through: pass_through(&at.field("pass_through_tlvs"), pass_through_tlvs.as_ref()),
        stat_prefix: stat_prefix.as_str().into(),
    }
}

fn tlv_rule(at: &At<'_>, message: &proxy::proxy_protocol::Rule) -> Option<TlvRule> {
    let proxy::proxy_protocol::Rule { tlv_type, on_tlv_present } = message;
    let kind = tlv_kind(&at.field("tlv_type"), *tlv_type)?;
    let at = &at.field("on_tlv_present");
    let Some(proxy::proxy_protocol::KeyValuePair { metadata_namespace, key, value_string_encoding }) =
        on_tlv_present
    else {
        return at.none("must be set");
    };
    at.required("key", key);
    let namespace = match metadata_namespace.as_str() {
        "" => PROXY_PROTOCOL_NAMESPACE,
        namespace => namespace,
    };
    let encoding = at.choice::<ValueStringEncoding>("value_string_encoding", *value_string_encoding)?;
    Some(TlvRule {
        kind,
        namespace: namespace.into(),
        key: key.as_str().into(),
        is_base64: encoding == ValueStringEncoding::Base64,
    })
}

pub(crate) fn pass_through(at: &At<'_>, message: Option<&ProxyProtocolPassThroughTlVs>) -> PassThrough {
    let Some(ProxyProtocolPassThroughTlVs { match_type, tlv_type }) = message else {
        return PassThrough::Include(Vec::new());
    };
    match at.choice("match_type", *match_type) {
        Some(PassTlVsMatchType::IncludeAll) | None => PassThrough::All,
        Some(PassTlVsMatchType::Include) => {
            PassThrough::Include(at.each("tlv_type", tlv_type, |at, kind| tlv_kind(at, *kind)))
        }
    }
}

pub(crate) fn tlv_kind(at: &At<'_>, kind: u32) -> Option<u8> {
    match u8::try_from(kind) {
        Ok(kind) => Some(kind),
        Err(_) => at.none(format_args!("{kind} is not below 256")),
    }
}
