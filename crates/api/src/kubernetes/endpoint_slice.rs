//! EndpointSlice and its older form Endpoints: the addresses behind a Service. Leaves out whose pods they are.
//! Source: Kubernetes discovery/v1 `EndpointSlice`, core/v1 `Endpoints`.

use std::collections::BTreeMap;

use crate::decode::{wire, wire_enum};
use crate::syntax;

wire! {
    /// A part of the addresses behind the Service that the label `kubernetes.io/service-name` names.
    pub struct EndpointSlice {
        /// What the addresses are; absent: as they look.
        address_type: Option<AddressType>, "addressType";
        /// The addresses.
        endpoints: Vec<SliceEndpoint>, "endpoints";
        /// The ports that each of them has.
        ports: Vec<SlicePort>, "ports";
    }
    ignored "apiVersion", "kind", "metadata";
}

wire_enum! {
    /// What the addresses of a slice are.
    pub enum AddressType {
        /// IPv4 addresses.
        Ipv4 = "IPv4",
        /// IPv6 addresses.
        Ipv6 = "IPv6",
        /// Names; nothing reads them.
        Fqdn = "FQDN",
    }
}

wire! {
    /// One pod, or something like it.
    pub struct SliceEndpoint {
        /// Its addresses; they stand for the same.
        addresses: Vec<String>, "addresses", required;
        /// Whether it gets traffic.
        conditions: EndpointConditions, "conditions";
        /// Its host name.
        hostname: Option<String>, "hostname" => syntax::dns_label;
        /// The node that it is on.
        node_name: Option<String>, "nodeName";
        /// The zone that it is in.
        zone: Option<String>, "zone";
        /// The pod.
        target_ref: Option<ObjectReference>, "targetRef";
    }
    ignored "deprecatedTopology", "hints";
}

wire! {
    /// Whether an endpoint gets traffic.
    pub struct EndpointConditions {
        /// It does; absent: yes.
        ready: Option<bool>, "ready";
        /// It would if it were not terminating.
        serving: Option<bool>, "serving";
        /// It is about to end.
        terminating: Option<bool>, "terminating";
    }
}

wire! {
    /// Another object.
    pub struct ObjectReference {
        /// Its kind.
        kind: Option<String>, "kind";
        /// Its name.
        name: Option<String>, "name";
        /// Its namespace.
        namespace: Option<String>, "namespace";
    }
    ignored "apiVersion", "fieldPath", "resourceVersion", "uid";
}

wire! {
    /// A port of the endpoints.
    pub struct SlicePort {
        /// The name of the service port; absent for the one without.
        name: Option<String>, "name";
        /// The number.
        port: Option<u32>, "port" => syntax::port;
        /// TCP, UDP or SCTP; absent: TCP.
        protocol: Option<String>, "protocol" => syntax::transport_protocol;
        /// What is spoken on it; the Service says it.
        app_protocol: Option<String>, "appProtocol";
    }
}

wire! {
    /// The addresses behind the Service of the same name.
    pub struct Endpoints {
        /// Groups of addresses with the same ports.
        subsets: Vec<EndpointSubset>, "subsets";
    }
    ignored "apiVersion", "kind", "metadata";
}

wire! {
    /// Addresses with the same ports.
    pub struct EndpointSubset {
        /// Those that get traffic.
        addresses: Vec<EndpointAddress>, "addresses";
        /// Those that do not.
        not_ready_addresses: Vec<EndpointAddress>, "notReadyAddresses";
        /// The ports that each of them has.
        ports: Vec<SlicePort>, "ports";
    }
}

wire! {
    /// One address.
    pub struct EndpointAddress {
        /// The address.
        ip: String, "ip", required => syntax::ip;
        /// Its host name.
        hostname: Option<String>, "hostname" => syntax::dns_label;
        /// The node that it is on.
        node_name: Option<String>, "nodeName";
        /// The pod.
        target_ref: Option<ObjectReference>, "targetRef";
    }
}

impl EndpointSlice {
    /// The label with the name of the Service.
    pub const SERVICE_NAME: &'static str = "kubernetes.io/service-name";

    /// The Service of its namespace that it belongs to.
    pub fn service_name(labels: &BTreeMap<String, String>) -> Option<&str> {
        labels.get(Self::SERVICE_NAME).map(String::as_str).filter(|name| !name.is_empty())
    }
}

impl Endpoints {
    /// The same as slices.
    pub fn slices(&self) -> Vec<EndpointSlice> {
        let slice = |subset: &EndpointSubset| {
            let of = |list: &[EndpointAddress], ready| -> Vec<SliceEndpoint> {
                list.iter().map(|address| address.endpoint(ready)).collect()
            };
            let ready = of(&subset.addresses, true);
            let endpoints = ready.into_iter().chain(of(&subset.not_ready_addresses, false)).collect();
            EndpointSlice { address_type: None, endpoints, ports: subset.ports.clone() }
        };
        self.subsets.iter().map(slice).collect()
    }
}

impl EndpointAddress {
    fn endpoint(&self, ready: bool) -> SliceEndpoint {
        SliceEndpoint {
            addresses: vec![self.ip.clone()],
            conditions: EndpointConditions { ready: Some(ready), serving: None, terminating: None },
            hostname: self.hostname.clone(),
            node_name: self.node_name.clone(),
            zone: None,
            target_ref: self.target_ref.clone(),
        }
    }
}
