//! What stands between a connection to a host and its bytes, and which of them a host gets.
//!
//! Pure; the bytes are the proxy's matter. Source: `envoy.config.core.v3.TransportSocket`,
//! `envoy.config.cluster.v3.Cluster.TransportSocketMatch` and Envoy's `TransportSocketMatcherImpl`.

use std::sync::Arc;

use bytes::Bytes;
use meltemi_envoy::Any;
use meltemi_envoy::config::core::v3::{Metadata, PerHostConfig, TlvEntry};
use prost_types::{Struct, Value};

use crate::listener::PassThrough;
use crate::program::Host;
use crate::tls::UpstreamTls;

pub(crate) mod build;

/// The namespace of `filter_metadata` that [`TransportSockets::of`] reads.
const MATCH_NAMESPACE: &str = "envoy.transport_socket_match";

/// The namespace of `typed_filter_metadata` in which a host names TLVs of its own.
const PROXY_PROTOCOL_NAMESPACE: &str = "envoy.transport_sockets.proxy_protocol";

/// The name under which the use of `transport_socket` itself is counted.
const DEFAULT: &str = "default";

/// A transport socket towards a host.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum TransportSocket {
    /// `envoy.transport_sockets.raw_buffer`: nothing.
    #[default]
    RawBuffer,
    /// `envoy.transport_sockets.upstream_proxy_protocol`.
    ProxyProtocol(ProxyProtocolSocket),
    /// `envoy.transport_sockets.tls`.
    Tls(Arc<UpstreamTls>),
}

impl TransportSocket {
    /// The TLS context, which may be behind other sockets.
    pub fn tls(&self) -> Option<&Arc<UpstreamTls>> {
        match self {
            TransportSocket::RawBuffer => None,
            TransportSocket::ProxyProtocol(socket) => socket.inner.tls(),
            TransportSocket::Tls(tls) => Some(tls),
        }
    }

    /// Whether connections may differ by whom they are made for, so that not all can serve everybody.
    pub fn depends_on_client(&self) -> bool {
        !matches!(self, TransportSocket::RawBuffer)
    }
}

/// `envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport`: a header of the PROXY protocol
/// comes before everything else.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyProtocolSocket {
    /// `config.version` is V2.
    pub is_v2: bool,
    /// `config.pass_through_tlvs`: of those that came from the client.
    pub pass_through: PassThrough,
    /// `config.added_tlvs`, and those of the host.
    pub added: Vec<AddedTlv>,
    /// `transport_socket`: what comes behind the header.
    pub inner: Box<TransportSocket>,
}

/// A TLV that is always the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedTlv {
    /// `type`.
    pub kind: u8,
    /// `value`.
    pub value: Bytes,
}

/// The transport sockets of a cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TransportSockets {
    /// `transport_socket`.
    pub default: Arc<TransportSocket>,
    /// `transport_socket_matches`, in order.
    pub matches: Vec<TransportSocketMatch>,
}

/// `envoy.config.cluster.v3.Cluster.TransportSocketMatch`.
#[derive(Debug, Clone, PartialEq)]
pub struct TransportSocketMatch {
    /// `name`, for statistics.
    pub name: Box<str>,
    /// `match`: what the metadata must hold.
    pub criteria: Vec<(String, Value)>,
    /// `transport_socket`.
    pub socket: Arc<TransportSocket>,
}

impl TransportSockets {
    /// The socket of a host, and the name under which that is counted: the first that the metadata of the endpoint
    /// matches, else the first that the metadata of its locality does, else the default.
    pub fn of(&self, host: &Host) -> (&str, Arc<TransportSocket>) {
        let own = host.metadata.as_deref().and_then(|metadata| metadata.filter_metadata.get(MATCH_NAMESPACE));
        let (name, socket) = self.choose(own, host);
        let added = host.metadata.as_deref().map(host_tlvs).unwrap_or_default();
        match &**socket {
            TransportSocket::ProxyProtocol(proxy) if !added.is_empty() => {
                let merged = TransportSocket::ProxyProtocol(proxy.with_host_tlvs(added));
                (name, Arc::new(merged))
            }
            _ => (name, Arc::clone(socket)),
        }
    }

    /// The socket of a health check that names criteria of its own, in place of the endpoint's metadata.
    pub fn of_check(&self, criteria: &Struct, host: &Host) -> (&str, Arc<TransportSocket>) {
        let (name, socket) = self.choose(Some(criteria), host);
        (name, Arc::clone(socket))
    }

    fn choose(&self, own: Option<&Struct>, host: &Host) -> (&str, &Arc<TransportSocket>) {
        let locality = host.locality_metadata.as_deref();
        let locality = locality.and_then(|metadata| metadata.filter_metadata.get(MATCH_NAMESPACE));
        let found = |metadata| self.matches.iter().find(|candidate| candidate.matches(metadata));
        match found(own).or_else(|| found(locality)) {
            Some(found) => (&found.name, &found.socket),
            None => (DEFAULT, &self.default),
        }
    }

    /// The names under which choices are counted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(DEFAULT).chain(self.matches.iter().map(|candidate| &*candidate.name))
    }

    /// Every socket, whoever gets it.
    pub fn all(&self) -> impl Iterator<Item = &Arc<TransportSocket>> {
        std::iter::once(&self.default).chain(self.matches.iter().map(|candidate| &candidate.socket))
    }
}

impl TransportSocketMatch {
    /// Without criteria it matches everything; without metadata nothing else does.
    fn matches(&self, metadata: Option<&Struct>) -> bool {
        self.criteria
            .iter()
            .all(|(key, value)| metadata.is_some_and(|metadata| metadata.fields.get(key) == Some(value)))
    }
}

impl ProxyProtocolSocket {
    /// What a host adds stands first and wins over what the socket adds.
    fn with_host_tlvs(&self, mut added: Vec<AddedTlv>) -> ProxyProtocolSocket {
        let is_own = |tlv: &&AddedTlv| added.iter().all(|own| own.kind != tlv.kind);
        let rest: Vec<AddedTlv> = self.added.iter().filter(is_own).cloned().collect();
        added.extend(rest);
        ProxyProtocolSocket { added, ..self.clone() }
    }
}

/// The TLVs of a host; what cannot be read counts as none, as in Envoy.
fn host_tlvs(metadata: &Metadata) -> Vec<AddedTlv> {
    let any: Option<&Any> = metadata.typed_filter_metadata.get(PROXY_PROTOCOL_NAMESPACE);
    let config =
        any.filter(|any| any.is::<PerHostConfig>()).and_then(|any| any.unpack::<PerHostConfig>().ok());
    let entries = config.map(|config| config.added_tlvs).unwrap_or_default();
    // As Envoy, which casts.
    let tlv = |entry: TlvEntry| AddedTlv { kind: (entry.r#type & 0xff) as u8, value: entry.value };
    entries.into_iter().map(tlv).collect()
}

#[cfg(test)]
mod tests;
