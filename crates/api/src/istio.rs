//! Istio's networking and security APIs (`networking.istio.io` and `security.istio.io`, all versions alike) and
//! MeshConfig, field for field. Leaves out defaults and meaning. Source: the published CRDs of Istio 1.30.

mod client_tls;
mod connection_pool;
mod destination_rule;
mod gateway;
mod load_balancer;
mod mesh_config;
mod peer_authentication;
mod server_tls;
mod service_entry;
mod sidecar;
mod string_match;
mod virtual_service;
mod workload_entry;

pub use client_tls::{ClientTlsMode, ClientTlsSettings};
pub use connection_pool::{
    ConnectionPoolSettings, H2UpgradePolicy, Http2KeepAlive, HttpSettings, OutlierDetection, TcpKeepalive,
    TcpSettings,
};
pub use destination_rule::{
    DestinationRule, PortTrafficPolicy, ProxyProtocol, ProxyProtocolVersion, RetryBudget, Subset,
    TrafficPolicy, TunnelSettings,
};
pub use gateway::{Gateway, Port, Server};
pub use load_balancer::{
    ConsistentHashLb, CookieAttribute, Distribute, Failover, HashCookie, LoadBalancerSettings,
    LocalityLbSetting, Maglev, RingHash, SimpleLb, Warmup, ZoneAwareLbSetting,
};
pub use mesh_config::{IstioOperator, MeshConfig, MeshH2UpgradePolicy, MinProtocolVersion, TlsConfig};
pub(crate) use mesh_config::{MESH, is_config_map};
pub use peer_authentication::{MutualTls, MutualTlsMode, PeerAuthentication, PodSelector};
pub use server_tls::{ServerTlsSettings, TlsCertificate, TlsMode, TlsProtocol};
pub use service_entry::{Location, Resolution, ServiceEntry, ServicePort};
pub use sidecar::{
    CaptureMode, IstioEgressListener, IstioIngressListener, OutboundTrafficPolicy, OutboundTrafficPolicyMode,
    Sidecar, SidecarPort, WorkloadSelector,
};
pub use string_match::StringMatch;
pub use virtual_service::{
    DerivePort, Destination, HeaderOperations, Headers, HttpBody, HttpDirectResponse, HttpMatchRequest,
    HttpMirrorPolicy, HttpRedirect, HttpRetry, HttpRewrite, HttpRoute, HttpRouteDestination,
    L4MatchAttributes, Percent, PortSelector, RegexRewrite, RouteDestination, TcpRoute, TlsMatchAttributes,
    TlsRoute, VirtualService,
};
pub use workload_entry::WorkloadEntry;
