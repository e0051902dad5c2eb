//! ServiceEntry: a service that no registry knows. Leaves out how its endpoints are found. Source: Istio
//! `networking.ServiceEntry`.

use crate::check;
use crate::decode::{wire, wire_enum};
use crate::istio::{WorkloadEntry, WorkloadSelector};
use crate::syntax;

wire! {
    /// A service outside the registries.
    pub struct ServiceEntry {
        /// Its hosts; wildcards only where nobody has to resolve them beforehand.
        hosts: Vec<String>, "hosts" => syntax::host;
        /// Its virtual addresses, IP or CIDR.
        addresses: Vec<String>, "addresses" => syntax::ip_or_cidr;
        /// Its ports.
        ports: Vec<ServicePort>, "ports";
        /// Inside the mesh or outside.
        location: Option<Location>, "location";
        /// How its endpoints are found.
        resolution: Option<Resolution>, "resolution";
        /// Its endpoints.
        endpoints: Vec<WorkloadEntry>, "endpoints";
        /// Labels of workloads of its namespace that are its endpoints.
        workload_selector: Option<WorkloadSelector>, "workloadSelector";
        /// Namespaces that may see it (`.`, `*`, or names); empty means the mesh default.
        export_to: Vec<String>, "exportTo" => syntax::export_to;
        /// Names of which the certificates of its endpoints carry one.
        subject_alt_names: Vec<String>, "subjectAltNames" => syntax::not_empty;
    }
    rule check::service_entry;
}

wire! {
    /// A port of the service.
    pub struct ServicePort {
        /// The number.
        number: u32, "number", required => syntax::port;
        /// Protocol, in any case; absent: TCP.
        protocol: Option<String>, "protocol" => syntax::protocol;
        /// Name, unique in the object.
        name: String, "name", required => syntax::port_name;
        /// Port of the endpoints; absent: the same number.
        target_port: Option<u32>, "targetPort" => syntax::port;
    }
}

wire_enum! {
    /// Where a service is.
    pub enum Location {
        /// Outside: no mutual TLS, no policy at the far end.
        MeshExternal = "MESH_EXTERNAL",
        /// Inside.
        MeshInternal = "MESH_INTERNAL",
    }
}

wire_enum! {
    /// How endpoints are found.
    pub enum Resolution {
        /// Not at all: forward to the address that was asked for.
        None = "NONE",
        /// From `endpoints` or `workloadSelector`.
        Static = "STATIC",
        /// By DNS, all addresses of the answer.
        Dns = "DNS",
        /// By DNS, one address of the answer at a time.
        DnsRoundRobin = "DNS_ROUND_ROBIN",
        /// By DNS, from the name in each request.
        DynamicDns = "DYNAMIC_DNS",
    }
}
