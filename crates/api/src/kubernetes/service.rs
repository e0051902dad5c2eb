//! Service: a name, ports, and the pods behind it. Leaves out how endpoints follow from the selector. Source:
//! Kubernetes core/v1 `Service`.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::check;
use crate::codes;
use crate::decode::{Decoder, Leaf, Wire, wire, wire_enum};
use crate::node::{Node, Value};
use crate::syntax;

wire! {
    /// A service.
    pub struct Service {
        /// Its ports.
        ports: Vec<ServicePort>, "ports";
        /// Labels of its pods; empty: endpoints come from elsewhere.
        selector: BTreeMap<String, String>, "selector" => syntax::label_value;
        /// `None` for a headless service, an address, or absent.
        cluster_ip: Option<String>, "clusterIP" => syntax::cluster_ip;
        /// All of its addresses, the first of them the same as `clusterIP`.
        cluster_ips: Vec<String>, "clusterIPs" => syntax::cluster_ip;
        /// How it is reached; absent: ClusterIP.
        service_type: Option<ServiceType>, "type";
        /// DNS name it stands for, when its type is ExternalName.
        external_name: Option<String>, "externalName";
        /// Its pods get traffic before they are ready; absent: no.
        publish_not_ready_addresses: Option<bool>, "publishNotReadyAddresses";
        /// Which pods callers inside the cluster reach; absent: all.
        internal_traffic_policy: Option<InternalTrafficPolicy>, "internalTrafficPolicy";
        /// Which pods callers reach first: `PreferSameZone` (also `PreferClose`) or `PreferSameNode`; absent: any.
        traffic_distribution: Option<TrafficDistribution>, "trafficDistribution";
        /// Addresses outside the cluster that lead to it.
        external_ips: Vec<String>, "externalIPs" => syntax::ip;
        /// `ClientIP` or `None`; kube-proxy's affair.
        session_affinity: Option<SessionAffinity>, "sessionAffinity";
    }
    ignored "ipFamilies", "ipFamilyPolicy", "sessionAffinityConfig", "loadBalancerIP",
        "loadBalancerSourceRanges", "loadBalancerClass", "externalTrafficPolicy", "healthCheckNodePort",
        "allocateLoadBalancerNodePorts";
    rule check::service;
}

wire! {
    /// A port of a service.
    pub struct ServicePort {
        /// Name; may be absent when it is the only one. Its prefix up to `-` may name the protocol.
        name: Option<String>, "name" => syntax::port_name;
        /// The number.
        port: u32, "port", required => syntax::port;
        /// Port of the pods, by number or by name; absent: the same number.
        target_port: Option<PortRef>, "targetPort";
        /// TCP, UDP or SCTP; absent: TCP.
        protocol: Option<String>, "protocol" => syntax::transport_protocol;
        /// What is spoken on it (`http`, `grpc`, `kubernetes.io/h2c`, `tcp`, …).
        app_protocol: Option<String>, "appProtocol";
    }
    ignored "nodePort";
}

wire_enum! {
    /// How a service is reached.
    pub enum ServiceType {
        /// Inside the cluster.
        ClusterIp = "ClusterIP",
        /// On a port of every node.
        NodePort = "NodePort",
        /// Through a load balancer.
        LoadBalancer = "LoadBalancer",
        /// It only stands for another name.
        ExternalName = "ExternalName",
    }
}

wire_enum! {
    /// Which pods callers inside the cluster reach.
    pub enum InternalTrafficPolicy {
        /// All.
        Cluster = "Cluster",
        /// Those of the caller's node.
        Local = "Local",
    }
}

wire_enum! {
    /// Which pods callers reach first.
    pub enum TrafficDistribution {
        /// Those of the caller's zone.
        PreferSameZone = "PreferSameZone",
        /// The older name of `PreferSameZone`.
        PreferClose = "PreferClose",
        /// Those of the caller's node.
        PreferSameNode = "PreferSameNode",
    }
}

wire_enum! {
    /// Whether kube-proxy sends a client to the same pod each time.
    pub enum SessionAffinity {
        /// No.
        None = "None",
        /// By the client's address.
        ClientIp = "ClientIP",
    }
}

/// A port by number or by name (Kubernetes `IntOrString`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PortRef {
    /// By number.
    Number(u32),
    /// By the name of a container's port.
    Name(String),
}

impl Default for PortRef {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl Wire for PortRef {
    const EXPECTED: &'static str = "a port number or the name of a port";

    fn decode(node: &Node, decoder: &mut Decoder, _: Option<Leaf>) -> Option<Self> {
        if node.whole_number().is_some() {
            return u32::decode(node, decoder, Some(syntax::port)).map(Self::Number);
        }
        let Value::String = node.value else {
            decoder.wrong_type(node, Self::EXPECTED);
            return None;
        };
        if let Err(flaw) = syntax::container_port_name(&node.text) {
            decoder.report(node, flaw.code, flaw.message, flaw.help);
        }
        if node.text.parse::<u32>().is_ok() {
            let message = format!("\"{}\" is the name of a port, not its number", node.text);
            decoder.report(node, &codes::WRONG_TYPE, message, "write the number without quotes".to_owned());
        }
        Some(Self::Name(node.text.clone()))
    }

    fn encode(&self) -> Option<Json> {
        Some(match self {
            Self::Number(number) => Json::Number((*number).into()),
            Self::Name(name) => Json::String(name.clone()),
        })
    }
}
