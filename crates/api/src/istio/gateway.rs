//! Gateway: what a gateway workload listens on. Leaves out the merging of Gateways on one workload. Source: Istio
//! `networking.Gateway`.

use std::collections::BTreeMap;

use crate::check;
use crate::decode::wire;
use crate::istio::ServerTlsSettings;
use crate::syntax;

wire! {
    /// Servers on the workloads of a selector.
    pub struct Gateway {
        /// The servers.
        servers: Vec<Server>, "servers";
        /// Labels of the workloads; empty: all.
        selector: BTreeMap<String, String>, "selector" => syntax::label_value;
    }
    rule check::gateway;
}

wire! {
    /// One port and the hosts it serves.
    pub struct Server {
        /// The port.
        port: Port, "port", required;
        /// Address to listen on; absent: all addresses.
        bind: Option<String>, "bind" => syntax::bind;
        /// Hosts, `*` wildcards allowed, optionally `namespace/` in front.
        hosts: Vec<String>, "hosts" => syntax::namespaced_host;
        /// TLS.
        tls: Option<ServerTlsSettings>, "tls";
        /// Name, unique among the servers of the object.
        name: Option<String>, "name";
    }
    later NO_EFFECT_YET "defaultEndpoint";
    rule check::server;
}

wire! {
    /// A port.
    pub struct Port {
        /// The number.
        number: u32, "number", required => syntax::port;
        /// HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP or TLS, in any case.
        protocol: String, "protocol", required => syntax::protocol;
        /// Name.
        name: String, "name", required => syntax::port_name;
        /// Not for Gateways.
        target_port: Option<u32>, "targetPort";
    }
    rule check::gateway_port;
}
