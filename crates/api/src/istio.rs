//! Istio's networking and security APIs (`networking.istio.io`, `security.istio.io`, `telemetry.istio.io`, `extensions.istio.io`, all versions alike) and
//! MeshConfig, field for field. Leaves out defaults and meaning. Source: the published CRDs of Istio 1.30.

mod authorization_policy;
mod claim;
mod client_tls;
mod connection_pool;
mod cors;
mod destination_rule;
mod envoy_filter;
mod extension;
mod fault;
mod gateway;
mod load_balancer;
mod mesh_config;
mod peer_authentication;
mod policy_target;
mod proxy_config;
mod request_authentication;
mod server_tls;
mod service_entry;
mod sidecar;
mod string_match;
mod telemetry;
mod virtual_service;
mod workload_entry;

pub use authorization_policy::{
    AuthorizationAction, AuthorizationPolicy, AuthorizationRule, Condition, ExtensionProviderRef, Operation,
    RuleFrom, RuleTo, Source,
};
pub use claim::claim_of_header;
pub use client_tls::{ClientTlsMode, ClientTlsSettings};
pub use connection_pool::{
    ConnectionPoolSettings, H2UpgradePolicy, Http2KeepAlive, HttpSettings, OutlierDetection, TcpKeepalive,
    TcpSettings,
};
pub use cors::{CorsPolicy, UnmatchedPreflights};
pub use destination_rule::{
    DestinationRule, PortTrafficPolicy, ProxyProtocol, ProxyProtocolVersion, RetryBudget, Subset,
    TrafficPolicy, TunnelSettings,
};
pub use envoy_filter::{
    ApplyTo, ClusterMatch, EnvoyConfigObjectMatch, EnvoyConfigObjectPatch, EnvoyFilter, FilterChainMatch,
    FilterMatch, ListenerMatch, Patch, PatchContext, PatchOperation, ProxyMatch, RouteConfigurationMatch,
    RouteMatch, RouteMatchAction, SubFilterMatch, VirtualHostMatch,
};
pub use extension::{
    EnvValueSource, ExtensionPhase, FailStrategy, ImagePullPolicy, LuaConfig, PluginPhase, PluginType,
    Struct, TrafficExtension, TrafficMode, TrafficPort, TrafficSelector, VmConfig, VmEnvVar, WasmConfig,
    WasmPlugin,
};
pub use fault::{GrpcStatus, HttpFaultAbort, HttpFaultDelay, HttpFaultInjection};
pub use gateway::{Gateway, Port, Server};
pub use load_balancer::{
    ConsistentHashLb, CookieAttribute, Distribute, Failover, HashCookie, LoadBalancerSettings,
    LocalityLbSetting, Maglev, RingHash, SimpleLb, Warmup, ZoneAwareLbSetting,
};
pub use mesh_config::{
    AccessLogEncoding, DefaultTrafficPolicy, InboundTrafficPolicy, InboundTrafficPolicyMode, IstioOperator,
    LabelOperator, LabelRequirement, MeshConfig, MeshH2UpgradePolicy, MinProtocolVersion, NamespaceSelector,
    NormalizationType, ProxyPathNormalization, TlsConfig,
};
pub(crate) use mesh_config::{MESH, is_config_map};
pub use peer_authentication::{MutualTls, MutualTlsMode, PeerAuthentication, PodSelector};
pub use policy_target::PolicyTargetReference;
pub use proxy_config::{
    CurrentClientCertDetails, Disabled, Enabled, ForwardClientCertDetails, GatewayTopology, MeshProxyConfig,
    MetadataExchangeHeaders, MetadataExchangeMode, ProxyConfig, ProxyHeaders, ProxyImage,
    ProxyProtocolConfiguration, ServerHeader,
};
pub use request_authentication::{ClaimToHeader, JwtHeader, JwtRule, RequestAuthentication};
pub use server_tls::{ServerTlsSettings, TlsCertificate, TlsMode, TlsProtocol};
pub use service_entry::{Location, Resolution, ServiceEntry, ServicePort};
pub use sidecar::{
    CaptureMode, IstioEgressListener, IstioIngressListener, OutboundTrafficPolicy, OutboundTrafficPolicyMode,
    Sidecar, SidecarPort, WorkloadSelector,
};
pub use string_match::StringMatch;
pub use telemetry::{
    AccessLogging, CustomTag, IstioMetric, LogFilter, MetricSelector, Metrics, MetricsOverrides,
    ModeSelector, ProviderRef, TagOperation, TagOverride, TagSource, TagValue, Telemetry, Tracing,
    WorkloadMode,
};
pub use virtual_service::{
    Delegate, DerivePort, Destination, HeaderOperations, Headers, HttpBody, HttpDirectResponse,
    HttpMatchRequest, HttpMirrorPolicy, HttpRedirect, HttpRetry, HttpRewrite, HttpRoute,
    HttpRouteDestination, L4MatchAttributes, Percent, PortSelector, RegexRewrite, RouteDestination, TcpRoute,
    TlsMatchAttributes, TlsRoute, VirtualService,
};
pub use workload_entry::{
    ExecHealthCheck, GrpcHealthCheck, HttpHealthCheck, ReadinessProbe, TcpHealthCheck, WorkloadEntry,
    WorkloadGroup, WorkloadGroupMeta, WorkloadTemplate,
};
