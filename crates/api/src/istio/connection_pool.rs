//! Limits of the connections to a service, and when an endpoint is taken out. Source: Istio
//! `networking.ConnectionPoolSettings`, `networking.OutlierDetection`.

use std::time::Duration;

use crate::check;
use crate::decode::{wire, wire_enum};
use crate::syntax;

wire! {
    /// Limits of the connections to a service.
    pub struct ConnectionPoolSettings {
        /// For both TCP and HTTP.
        tcp: Option<TcpSettings>, "tcp";
        /// For HTTP.
        http: Option<HttpSettings>, "http";
    }
    rule check::connection_pool;
}

wire! {
    /// Limits of TCP connections.
    pub struct TcpSettings {
        /// Most connections; absent: 2^32-1.
        max_connections: Option<i32>, "maxConnections" => syntax::not_negative;
        /// Longest time to connect; absent: the mesh's `connectTimeout`.
        connect_timeout: Option<Duration>, "connectTimeout" => syntax::duration;
        /// Probes of idle connections; absent: the mesh's `tcpKeepalive`.
        tcp_keepalive: Option<TcpKeepalive>, "tcpKeepalive";
        /// Longest life of a connection.
        max_connection_duration: Option<Duration>, "maxConnectionDuration" => syntax::duration;
        /// Longest idle time of a connection.
        idle_timeout: Option<Duration>, "idleTimeout" => syntax::duration_or_zero;
    }
}

wire! {
    /// Probes of idle connections by the system (`SO_KEEPALIVE`); what is absent is the system's.
    pub struct TcpKeepalive {
        /// Probes without an answer after which the connection is dead.
        probes: Option<u32>, "probes";
        /// Idle time before the first probe.
        time: Option<Duration>, "time" => syntax::duration;
        /// Time between probes.
        interval: Option<Duration>, "interval" => syntax::duration;
    }
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
        /// Longest time an upstream connection lies idle; absent: that of `tcp`, else 1h.
        idle_timeout: Option<Duration>, "idleTimeout" => syntax::duration_or_zero;
        /// Whether to speak HTTP/2 to a service that does not ask for it.
        h2_upgrade_policy: Option<H2UpgradePolicy>, "h2UpgradePolicy";
        /// Whether to keep the protocol of the caller.
        use_client_protocol: Option<bool>, "useClientProtocol";
        /// Most streams on one HTTP/2 connection.
        max_concurrent_streams: Option<i32>, "maxConcurrentStreams" => syntax::not_negative;
        /// PINGs on HTTP/2 connections.
        http2_keep_alive: Option<Http2KeepAlive>, "http2KeepAlive";
    }
    rule check::http_settings;
}

wire! {
    /// PINGs on HTTP/2 connections.
    pub struct Http2KeepAlive {
        /// Time between them.
        interval: Option<Duration>, "interval", required => syntax::duration;
        /// Time within which the answer has to come.
        timeout: Option<Duration>, "timeout", required => syntax::duration;
    }
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
        /// Nobody looks at it any more; kept to say so.
        consecutive_errors: Option<i32>, "consecutiveErrors";
        /// Whether failures to reach the endpoint are counted apart from its answers.
        split_external_local_origin_errors: Option<bool>, "splitExternalLocalOriginErrors";
        /// Consecutive failures to reach it, where they are counted apart; absent: 5.
        consecutive_local_origin_failures: Option<u32>, "consecutiveLocalOriginFailures";
        /// Consecutive 502, 503 and 504 answers; absent or 0: off.
        consecutive_gateway_errors: Option<u32>, "consecutiveGatewayErrors";
        /// Consecutive 5xx answers (and connect failures); absent: 5; 0: off.
        consecutive_5xx_errors: Option<u32>, "consecutive5xxErrors";
        /// Time between sweeps; absent: 10s.
        interval: Option<Duration>, "interval" => syntax::duration;
        /// First ejection time, multiplied by the number of ejections; absent: 30s.
        base_ejection_time: Option<Duration>, "baseEjectionTime" => syntax::duration;
        /// Most endpoints out at a time, in percent; absent: 10.
        max_ejection_percent: Option<i32>, "maxEjectionPercent" => syntax::whole_percent;
        /// Share of healthy endpoints below which nothing is ejected any more.
        min_health_percent: Option<i32>, "minHealthPercent" => syntax::whole_percent;
    }
    later UNSUPPORTED_FIELD "outlierDetectionHttpErrorCodes";
    rule check::outlier_detection;
}
