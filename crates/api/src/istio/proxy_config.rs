//! How proxies are to be set up: for the whole mesh ([`MeshProxyConfig`]), and as an object of its own
//! ([`ProxyConfig`]). Leaves out defaults. Source: Istio `mesh.v1alpha1.ProxyConfig`, `networking.v1beta1.ProxyConfig`.

use std::collections::BTreeMap;

use crate::decode::{wire, wire_enum};
use crate::istio::PodSelector;
use crate::syntax;

wire! {
    /// How proxies are to be set up, as an object for some workloads, a namespace, or the mesh.
    pub struct ProxyConfig {
        /// Workloads it applies to; absent: all of the namespace, or of the mesh in the root namespace.
        selector: Option<PodSelector>, "selector";
        /// Worker threads; 0 for one per core.
        concurrency: Option<i32>, "concurrency" => syntax::not_negative;
        /// Variables of the proxy's environment.
        environment_variables: BTreeMap<String, String>, "environmentVariables";
        /// The image of the proxy.
        image: Option<ProxyImage>, "image";
    }
}

wire! {
    /// The image of a proxy.
    pub struct ProxyImage {
        /// `default`, `debug` or `distroless`.
        image_type: Option<String>, "imageType";
    }
}

wire! {
    /// How proxies are to be set up, in MeshConfig. What starts a proxy looks at the rest.
    pub struct MeshProxyConfig {
        /// Who stands before gateways.
        gateway_topology: Option<GatewayTopology>, "gatewayTopology";
        /// Headers that proxies add or leave alone.
        proxy_headers: Option<ProxyHeaders>, "proxyHeaders";
    }
    later NO_EFFECT_YET "configPath", "binaryPath", "serviceCluster", "tracingServiceName", "drainDuration",
        "discoveryAddress", "discoveryRefreshDelay", "zipkinAddress", "statsdUdpAddress", "envoyMetricsServiceAddress",
        "proxyAdminPort", "availabilityZone", "controlPlaneAuthPolicy", "customConfigFile", "statNameLength",
        "concurrency", "proxyBootstrapTemplatePath", "interceptionMode", "tracing", "sds", "envoyAccessLogService",
        "envoyMetricsService", "proxyMetadata", "runtimeValues", "statusPort", "extraStatTags",
        "terminationDrainDuration", "meshId", "readinessProbe", "proxyStatsMatcher", "holdApplicationUntilProxyStarts",
        "caCertificatesPem", "image", "privateKeyProvider", "fileFlushInterval", "fileFlushMinSizeKb",
        "statsCompression", "connectionSettings";
}

wire! {
    /// Who stands before gateways.
    pub struct GatewayTopology {
        /// Proxies that a request has come through, whose `x-forwarded-for` is believed.
        num_trusted_proxies: Option<u32>, "numTrustedProxies";
        /// What becomes of `x-forwarded-client-cert`; absent: `SANITIZE_SET`.
        forward_client_cert_details: Option<ForwardClientCertDetails>, "forwardClientCertDetails";
        /// Connections begin with a PROXY header.
        proxy_protocol: Option<ProxyProtocolConfiguration>, "proxyProtocol";
    }
}

wire! {
    /// Nothing more than that it is there.
    pub struct ProxyProtocolConfiguration {}
}

wire_enum! {
    /// What becomes of `x-forwarded-client-cert`.
    pub enum ForwardClientCertDetails {
        /// The default.
        Undefined = "UNDEFINED",
        /// It is removed.
        Sanitize = "SANITIZE",
        /// It goes on where the connection is mutual TLS.
        ForwardOnly = "FORWARD_ONLY",
        /// The client's certificate is added to it where the connection is mutual TLS.
        AppendForward = "APPEND_FORWARD",
        /// The client's certificate takes its place.
        SanitizeSet = "SANITIZE_SET",
        /// It goes on whatever the connection is.
        AlwaysForwardOnly = "ALWAYS_FORWARD_ONLY",
    }
}

wire! {
    /// Headers that proxies add or leave alone.
    pub struct ProxyHeaders {
        /// What becomes of `x-forwarded-client-cert` before workloads; absent: `APPEND_FORWARD`.
        forwarded_client_cert: Option<ForwardClientCertDetails>, "forwardedClientCert";
        /// Which parts of the client's certificate go into it.
        set_current_client_cert_details: Option<CurrentClientCertDetails>, "setCurrentClientCertDetails";
        /// `x-request-id`.
        request_id: Option<Disabled>, "requestId";
        /// `server`.
        server: Option<ServerHeader>, "server";
        /// `x-envoy-attempt-count`.
        attempt_count: Option<Disabled>, "attemptCount";
        /// The other `x-envoy-…` headers.
        envoy_debug_headers: Option<Disabled>, "envoyDebugHeaders";
        /// Headers by which peers tell who they are.
        metadata_exchange_headers: Option<MetadataExchangeHeaders>, "metadataExchangeHeaders";
        /// HTTP/1 header names keep their case.
        preserve_http1_header_case: Option<bool>, "preserveHttp1HeaderCase";
        /// `x-forwarded-port`.
        x_forwarded_port: Option<Enabled>, "xForwardedPort";
    }
    later NO_EFFECT_YET "xForwardedHost";
}

wire! {
    /// Which parts of the client's certificate are told.
    pub struct CurrentClientCertDetails {
        /// Its subject; absent: yes.
        subject: Option<bool>, "subject";
        /// All of it; absent: no.
        cert: Option<bool>, "cert";
        /// All of its chain; absent: no.
        chain: Option<bool>, "chain";
        /// Its DNS names; absent: yes.
        dns: Option<bool>, "dns";
        /// Its URIs; absent: yes.
        uri: Option<bool>, "uri";
    }
}

wire! {
    /// A header that is there unless somebody says otherwise.
    pub struct Disabled {
        /// It is left out.
        disabled: Option<bool>, "disabled";
    }
}

wire! {
    /// A header that is not there unless somebody says otherwise.
    pub struct Enabled {
        /// It is added.
        enabled: Option<bool>, "enabled";
    }
}

wire! {
    /// `server`.
    pub struct ServerHeader {
        /// The workload's own goes on.
        disabled: Option<bool>, "disabled";
        /// Its value; absent: `istio-envoy`.
        value: Option<String>, "value" => syntax::header_text;
    }
}

wire! {
    /// Headers by which peers tell who they are.
    pub struct MetadataExchangeHeaders {
        /// Whom they are for.
        mode: Option<MetadataExchangeMode>, "mode";
    }
}

wire_enum! {
    /// Whom the headers of peers are for.
    pub enum MetadataExchangeMode {
        /// Everybody.
        Undefined = "UNDEFINED",
        /// Services of the mesh.
        InMesh = "IN_MESH",
    }
}
