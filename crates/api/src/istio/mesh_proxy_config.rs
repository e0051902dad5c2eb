//! ProxyConfig as it stands below `defaultConfig` of MeshConfig: how proxies run, where nothing nearer says it. Source:
//! Istio `mesh.v1alpha1.ProxyConfig`.

use crate::decode::{wire, wire_enum};

wire! {
    /// How proxies run.
    pub struct MeshProxyConfig {
        /// What stands before gateways.
        gateway_topology: Option<GatewayTopology>, "gatewayTopology";
    }
    later NO_EFFECT_YET "configPath", "binaryPath", "serviceCluster", "tracingServiceName", "drainDuration",
        "parentShutdownDuration", "discoveryAddress", "discoveryRefreshDelay", "zipkinAddress", "statsdUdpAddress",
        "envoyMetricsServiceAddress", "proxyAdminPort", "availabilityZone", "controlPlaneAuthPolicy", "customConfigFile",
        "statNameLength", "concurrency", "proxyBootstrapTemplatePath", "interceptionMode", "tracing", "sds",
        "envoyAccessLogService", "envoyMetricsService", "proxyMetadata", "runtimeValues", "statusPort", "extraStatTags",
        "terminationDrainDuration", "meshId", "readinessProbe", "proxyStatsMatcher", "image", "privateKeyProvider",
        "proxyHeaders", "caCertificatesPem", "holdApplicationUntilProxyStarts", "fileFlushInterval",
        "fileFlushMinSizeKb", "statsCompression";
}

wire! {
    /// What stands between clients and a gateway.
    pub struct GatewayTopology {
        /// How many proxies whose `x-forwarded-for` is believed; absent: none.
        num_trusted_proxies: Option<u32>, "numTrustedProxies";
        /// What becomes of `x-forwarded-client-cert`; absent: SANITIZE_SET.
        forward_client_cert_details: Option<ForwardClientCertDetails>, "forwardClientCertDetails";
        /// Connections begin with a PROXY header.
        proxy_protocol: Option<ProxyProtocolConfiguration>, "proxyProtocol";
    }
}

wire! {
    /// That there is a PROXY header; it has no settings.
    pub struct ProxyProtocolConfiguration {}
}

wire_enum! {
    /// What becomes of `x-forwarded-client-cert`.
    pub enum ForwardClientCertDetails {
        /// As if nothing were said.
        Undefined = "UNDEFINED",
        /// It is removed.
        Sanitize = "SANITIZE",
        /// It goes on where the client has a certificate.
        ForwardOnly = "FORWARD_ONLY",
        /// The client's certificate is added to it.
        AppendForward = "APPEND_FORWARD",
        /// The client's certificate takes its place.
        SanitizeSet = "SANITIZE_SET",
        /// It goes on as it came.
        AlwaysForwardOnly = "ALWAYS_FORWARD_ONLY",
    }
}
