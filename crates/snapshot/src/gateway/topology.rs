//! What stands between clients and a gateway.
//!
//! Source: Istio `mesh.v1alpha1.Topology`.

use meltemi_api::istio::{self, ForwardClientCertDetails};

/// What stands between clients and a gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayTopology {
    /// How many proxies whose `x-forwarded-for` is believed.
    pub trusted_proxies: u32,
    /// What becomes of `x-forwarded-client-cert`.
    pub client_certificates: ForwardClientCertDetails,
    /// Connections begin with a PROXY header.
    pub has_proxy_protocol: bool,
}

impl GatewayTopology {
    /// What the user wrote, with Istio's defaults.
    pub fn new(wire: &istio::GatewayTopology) -> GatewayTopology {
        GatewayTopology {
            trusted_proxies: wire.num_trusted_proxies.unwrap_or_default(),
            client_certificates: wire.forward_client_cert_details.unwrap_or_default(),
            has_proxy_protocol: wire.proxy_protocol.is_some(),
        }
    }
}
