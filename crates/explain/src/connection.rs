//! What listener filters see of a connection, and whether it fits the chain that takes it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use meltemi_compile::program::{ConnectionFacts, FilterChain, Listener, ListenerFilter, ListenerFilterKind};

use crate::call::{Call, Completed, Mode, Security};
use crate::verdict::Failure;

/// The name of the certificate that a workload has from the mesh.
const WORKLOAD_CERTIFICATE: &str = "default";

/// Whom a call is taken to come from: nobody that a chain could ask for.
const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 50_000);

/// What the listener filters saw.
pub(crate) struct Seen<'c> {
    server_name: String,
    transport_protocol: &'static str,
    application_protocols: Vec<&'c str>,
}

impl<'c> Seen<'c> {
    /// Looks at the first bytes of a call, as far as the listener has filters that do.
    pub(crate) fn by(listener: &Listener, completed: &'c Completed) -> Seen<'c> {
        let call = &completed.call;
        let looks = |wanted: fn(&ListenerFilterKind) -> bool| {
            listener
                .listener_filters
                .iter()
                .any(|filter| wanted(&filter.kind) && is_enabled(filter, call.port))
        };
        let is_tls = call.tls != Security::Plaintext;
        let sees_tls = looks(|kind| matches!(kind, ListenerFilterKind::TlsInspector(_))) && is_tls;
        let sees_http = looks(|kind| matches!(kind, ListenerFilterKind::HttpInspector)) && !is_tls;
        let offered = call.alpn.split(',').map(str::trim).filter(|name| !name.is_empty());
        Seen {
            server_name: if sees_tls { call.sni.to_ascii_lowercase() } else { String::new() },
            // What nobody recognised counts as plain bytes.
            transport_protocol: if sees_tls { "tls" } else { "raw_buffer" },
            application_protocols: match (sees_tls, sees_http) {
                (true, _) => offered.collect(),
                (_, true) => call.protocol.inspected().into_iter().collect(),
                _ => Vec::new(),
            },
        }
    }

    /// The same, as chains are matched by it.
    pub(crate) fn facts<'s>(&'s self, completed: &Completed) -> ConnectionFacts<'s> {
        ConnectionFacts {
            destination: SocketAddr::new(completed.address, completed.call.port),
            source: CLIENT,
            direct_source: CLIENT.ip(),
            server_name: &self.server_name,
            transport_protocol: self.transport_protocol,
            application_protocols: &self.application_protocols,
        }
    }
}

fn is_enabled(filter: &ListenerFilter, port: u16) -> bool {
    filter.disabled.as_ref().is_none_or(|disabled| !disabled.holds(port))
}

/// Whether a client can shake hands with a chain. A workload that demands certificates of its own choice is taken to
/// believe its callers.
pub(crate) fn handshake(chain: &FilterChain, call: &Call) -> Result<(), (Failure, &'static str)> {
    let Some(tls) = &chain.tls else { return Ok(()) };
    if call.tls == Security::Plaintext {
        return Err((Failure::TlsError, "the chain demands TLS, and the client speaks plaintext"));
    }
    let is_of_mesh = tls.requires_client_certificate
        && (call.mode == Mode::Inbound
            || tls.common.secrets().next().is_some_and(|secret| &*secret.name == WORKLOAD_CERTIFICATE));
    match (is_of_mesh, call.tls) {
        (true, Security::Tls) => {
            Err((Failure::MtlsError, "the chain demands a certificate of the mesh, and the client has none"))
        }
        (false, Security::Mtls) => Err((
            Failure::MtlsError,
            "the chain's certificate is not one of the mesh, so the client refuses it",
        )),
        _ => Ok(()),
    }
}
