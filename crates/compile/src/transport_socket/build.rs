//! Compiling transport sockets.

use std::sync::Arc;

use meltemi_envoy::config::cluster::v3::Cluster;
use meltemi_envoy::config::cluster::v3::cluster::TransportSocketMatch as MatchMessage;
use meltemi_envoy::config::core::v3 as core;
use meltemi_envoy::config::core::v3::proxy_protocol_config::Version;
use meltemi_envoy::config::core::v3::{TransportSocket as SocketMessage, transport_socket};
use meltemi_envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use meltemi_envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use meltemi_envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;

use super::{AddedTlv, ProxyProtocolSocket, TransportSocket, TransportSocketMatch, TransportSockets};
use crate::extension::{unknown, unpack};
use crate::ledger::{At, refuse};
use crate::listener::{pass_through, tlv_kind};
use crate::tls;

/// Compiles the transport sockets of a cluster.
pub(crate) fn sockets(at: &At<'_>, message: &Cluster) -> TransportSockets {
    let default = message.transport_socket.as_ref();
    let default = default.and_then(|message| socket(&at.field("transport_socket"), message));
    let matches = at.each("transport_socket_matches", &message.transport_socket_matches, |at, message| {
        let MatchMessage { name, r#match, transport_socket } = message;
        at.required("name", name);
        let socket = match transport_socket {
            Some(message) => socket(&at.field("transport_socket"), message)?,
            None => return at.field("transport_socket").none("must be set"),
        };
        let criteria = r#match.iter().flat_map(|criteria| &criteria.fields);
        Some(TransportSocketMatch {
            name: name.as_str().into(),
            criteria: criteria.map(|(key, value)| (key.clone(), value.clone())).collect(),
            socket: Arc::new(socket),
        })
    });
    TransportSockets { default: Arc::new(default.unwrap_or_default()), matches }
}

/// Compiles a transport socket towards a host.
fn socket(at: &At<'_>, message: &SocketMessage) -> Option<TransportSocket> {
    let SocketMessage { name, config_type } = message;
    let Some(transport_socket::ConfigType::TypedConfig(any)) = config_type else {
        return match name.as_str() {
            "envoy.transport_sockets.raw_buffer" => Some(TransportSocket::RawBuffer),
            _ => at.field("typed_config").none("must be set"),
        };
    };
    let at = at.field("typed_config");
    if any.is::<RawBuffer>() {
        let RawBuffer {} = unpack(&at, any)?;
        return Some(TransportSocket::RawBuffer);
    }
    if any.is::<ProxyProtocolUpstreamTransport>() {
        return proxy_protocol(&at, unpack(&at, any)?).map(TransportSocket::ProxyProtocol);
    }
    if any.is::<UpstreamTlsContext>() {
        return tls::upstream::compile(&at, &unpack(&at, any)?).map(Arc::new).map(TransportSocket::Tls);
    }
    unknown(&at, name, any)
}

fn proxy_protocol(at: &At<'_>, message: ProxyProtocolUpstreamTransport) -> Option<ProxyProtocolSocket> {
    let ProxyProtocolUpstreamTransport {
        config,
        transport_socket,
        allow_unspecified_address,
        tlv_as_pool_key,
    } = &message;
    refuse!(at; allow_unspecified_address, tlv_as_pool_key);
    let inner = match transport_socket {
        Some(message) => socket(&at.field("transport_socket"), message)?,
        None => return at.field("transport_socket").none("must be set"),
    };
    let core::ProxyProtocolConfig { version, pass_through_tlvs, added_tlvs } =
        config.clone().unwrap_or_default();
    let at = at.field("config");
    let added = at.each("added_tlvs", &added_tlvs, added_tlv);
    Some(ProxyProtocolSocket {
        is_v2: at.choice::<Version>("version", version)? == Version::V2,
        pass_through: pass_through(&at.field("pass_through_tlvs"), pass_through_tlvs.as_ref()),
        added,
        inner: Box::new(inner),
    })
}

fn added_tlv(at: &At<'_>, message: &core::TlvEntry) -> Option<AddedTlv> {
    let core::TlvEntry { r#type, value, format_string } = message;
    refuse!(at; format_string);
    Some(AddedTlv { kind: tlv_kind(&at.field("type"), *r#type)?, value: value.clone() })
}
