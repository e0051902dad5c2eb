//! DestinationRule: subsets of a service and how traffic to it behaves. Leaves out merging and inheritance. Source:
//! Istio `networking.DestinationRule`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::check;
use crate::decode::{wire, wire_enum};
use crate::istio::{ClientTlsSettings, PortSelector};
use crate::syntax;

wire! {
    /// What happens after routing has chosen a host.
    pub struct DestinationRule {
        /// The service; short names resolve in the object's namespace; may be a wildcard.
        host: String, "host", required => syntax::host;
        /// Policy for all subsets and ports.
        traffic_policy: Option<TrafficPolicy>, "trafficPolicy";
        /// Named versions of the service.
        subsets: Vec<Subset>, "subsets";
        /// Namespaces that may see it (`.`, `*`, or names); empty means the mesh default.
        export_to: Vec<String>, "exportTo" => syntax::export_to;
    }
    later UNSUPPORTED_FIELD "workloadSelector";
    rule check::destination_rule;
}

wire! {
    /// A named version of a service.
    pub struct Subset {
        /// Name, used by routes.
        name: String, "name", required => syntax::subset_name;
        /// Labels its endpoints carry.
        labels: BTreeMap<String, String>, "labels" => syntax::label_value;
        /// Policy that overrides the rule's.
        traffic_policy: Option<TrafficPolicy>, "trafficPolicy";
    }
}

wire! {
    /// How traffic behaves.
    pub struct TrafficPolicy {
        /// How an endpoint is chosen.
        load_balancer: Option<LoadBalancerSettings>, "loadBalancer";
        /// Limits of the connections.
        connection_pool: Option<ConnectionPoolSettings>, "connectionPool";
        /// When an endpoint is taken out.
        outlier_detection: Option<OutlierDetection>, "outlierDetection";
        /// TLS towards the endpoints; absent: mutual TLS wherever both sides can.
        tls: Option<ClientTlsSettings>, "tls";
        /// Policy by port; replaces the above for that port, field by field.
        port_level_settings: Vec<PortTrafficPolicy>, "portLevelSettings";
    }
    later UNSUPPORTED_FIELD "tunnel", "proxyProtocol", "retryBudget";
}

wire! {
    /// How traffic to one port behaves.
    pub struct PortTrafficPolicy {
        /// The service port.
        port: PortSelector, "port", required;
        /// How an endpoint is chosen.
        load_balancer: Option<LoadBalancerSettings>, "loadBalancer";
        /// Limits of the connections.
        connection_pool: Option<ConnectionPoolSettings>, "connectionPool";
        /// When an endpoint is taken out.
        outlier_detection: Option<OutlierDetection>, "outlierDetection";
        /// TLS towards the endpoints.
        tls: Option<ClientTlsSettings>, "tls";
    }
}

wire! {
    /// How an endpoint is chosen.
    pub struct LoadBalancerSettings {
        /// One of the standard algorithms.
        simple: Option<SimpleLb>, "simple";
    }
    later UNSUPPORTED_FIELD "consistentHash", "localityLbSetting", "zoneAwareLbSetting", "warmupDurationSecs", "warmup";
}

wire_enum! {
    /// The standard algorithms.
    pub enum SimpleLb {
        /// The mesh decides: least request.
        Unspecified = "UNSPECIFIED",
        /// Old name of least request.
        LeastConn = "LEAST_CONN",
        /// Any healthy endpoint.
        Random = "RANDOM",
        /// The address the caller asked for.
        Passthrough = "PASSTHROUGH",
        /// One after the other.
        RoundRobin = "ROUND_ROBIN",
        /// The less busy of two.
        LeastRequest = "LEAST_REQUEST",
    }
}

wire! {
    /// Limits of the connections to a service.
    pub struct ConnectionPoolSettings {
        /// For both TCP and HTTP.
        tcp: Option<TcpSettings>, "tcp";
        /// For HTTP.
        http: Option<HttpSettings>, "http";
    }
}

wire! {
    /// Limits of TCP connections.
    pub struct TcpSettings {
        /// Most connections; absent: 2^32-1.
        max_connections: Option<i32>, "maxConnections" => syntax::not_negative;
        /// Longest time to connect; absent: 10s.
        connect_timeout: Option<Duration>, "connectTimeout" => syntax::duration;
        /// Longest idle time of a TCP connection.
        idle_timeout: Option<Duration>, "idleTimeout" => syntax::duration_or_zero;
    }
    later UNSUPPORTED_FIELD "tcpKeepalive", "maxConnectionDuration";
}

wire! {
    /// Limits of HTTP connections and requests.
    pub struct HttpSettings {
        /// Most requests waiting for a connection; absent: 2^32-1.
        http1_max_pending_requests: Option<i32>, "http1MaxPendingRequests" => syntax::not_negative;
        /// Most active requests; absent: 2^32-1.
        http2_max_requests: Option<i32>, "http2MaxRequests" => syntax::not_negative;
        /// Most requests over one connection; absent or 0: no bound.
        max_requests_per_connection: Option<i32>, "maxRequestsPerConnection" => syntax::not_negative;
        /// Most retries at a time; absent: 2^32-1.
        max_retries: Option<i32>, "maxRetries" => syntax::not_negative;
        /// Longest time an upstream connection lies idle; absent: 1h.
        idle_timeout: Option<Duration>, "idleTimeout" => syntax::duration_or_zero;
        /// Whether to speak HTTP/2 to a service that does not ask for it.
        h2_upgrade_policy: Option<H2UpgradePolicy>, "h2UpgradePolicy";
        /// Whether to keep the protocol of the caller.
        use_client_protocol: Option<bool>, "useClientProtocol";
        /// Most streams on one HTTP/2 connection.
        max_concurrent_streams: Option<i32>, "maxConcurrentStreams" => syntax::not_negative;
    }
    later UNSUPPORTED_FIELD "http2KeepAlive";
}

wire_enum! {
    /// Whether to upgrade HTTP/1 to HTTP/2 towards a service.
    pub enum H2UpgradePolicy {
        /// As the mesh says: no.
        Default = "DEFAULT",
        /// No.
        DoNotUpgrade = "DO_NOT_UPGRADE",
        /// Yes.
        Upgrade = "UPGRADE",
    }
}

wire! {
    /// When an endpoint is taken out of the rotation.
    pub struct OutlierDetection {
        /// Consecutive 5xx answers (and connect failures); 0: off.
        consecutive_5xx_errors: Option<u32>, "consecutive5xxErrors";
        /// Consecutive 502, 503 and 504 answers; absent or 0: off.
        consecutive_gateway_errors: Option<u32>, "consecutiveGatewayErrors";
        /// Time between sweeps; absent: 10s.
        interval: Option<Duration>, "interval" => syntax::duration;
        /// First ejection time, multiplied by the number of ejections; absent: 30s.
        base_ejection_time: Option<Duration>, "baseEjectionTime" => syntax::duration;
        /// Most endpoints out at a time, in percent; absent: 10.
        max_ejection_percent: Option<i32>, "maxEjectionPercent" => syntax::whole_percent;
        /// Share of healthy endpoints below which nothing is ejected any more.
        min_health_percent: Option<i32>, "minHealthPercent" => syntax::whole_percent;
    }
    later UNSUPPORTED_FIELD "splitExternalLocalOriginErrors", "consecutiveLocalOriginFailures", "consecutiveErrors",
        "outlierDetectionHttpErrorCodes";
}
