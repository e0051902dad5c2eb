//! DestinationRule: subsets of a service and how traffic to it behaves. Leaves out merging and inheritance. Source:
//! Istio `networking.DestinationRule`.

use std::collections::BTreeMap;

use crate::check;
use crate::decode::{wire, wire_enum};
use crate::istio::{
    ClientTlsSettings, ConnectionPoolSettings, LoadBalancerSettings, OutlierDetection, PodSelector,
    PortSelector,
};
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
        /// The clients that it is for, of its own namespace; absent: all.
        workload_selector: Option<PodSelector>, "workloadSelector";
    }
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
        /// TCP in requests to an HTTP proxy, which the service is.
        tunnel: Option<TunnelSettings>, "tunnel";
        /// A PROXY header before every connection.
        proxy_protocol: Option<ProxyProtocol>, "proxyProtocol";
        /// Retries by share of the requests, instead of `maxRetries`.
        retry_budget: Option<RetryBudget>, "retryBudget";
    }
    rule check::traffic_policy;
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
    rule check::port_traffic_policy;
}

wire! {
    /// TCP in requests to an HTTP proxy.
    pub struct TunnelSettings {
        /// `CONNECT` or `POST`; absent: `CONNECT`.
        protocol: Option<String>, "protocol" => syntax::tunnel_protocol;
        /// Host that the proxy is asked for.
        target_host: String, "targetHost", required => syntax::tunnel_host;
        /// Port that the proxy is asked for.
        target_port: u32, "targetPort", required => syntax::port;
    }
}

wire! {
    /// A PROXY header before every connection.
    pub struct ProxyProtocol {
        /// Its version.
        version: Option<ProxyProtocolVersion>, "version";
    }
}

wire_enum! {
    /// Version of the PROXY protocol.
    pub enum ProxyProtocolVersion {
        /// Text.
        V1 = "V1",
        /// Binary.
        V2 = "V2",
    }
}

wire! {
    /// Retries by share of the requests.
    pub struct RetryBudget {
        /// Percent of the requests that may be retries at a time; absent: 20.
        percent: Option<f64>, "percent" => syntax::percent;
        /// Retries that are always allowed; absent or 0: 3.
        min_retry_concurrency: Option<u32>, "minRetryConcurrency";
    }
    later NO_EFFECT_YET "budgetInterval";
}
