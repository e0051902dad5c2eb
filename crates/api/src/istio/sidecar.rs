//! Sidecar: what one sidecar listens on and which hosts it may see. Leaves out which Sidecar applies to a workload.
//! Source: Istio `networking.Sidecar`.

use std::collections::BTreeMap;

use crate::check;
use crate::decode::{wire, wire_enum};
use crate::istio::{ConnectionPoolSettings, Destination, ServerTlsSettings};
use crate::syntax;

wire! {
    /// Configuration of the sidecars of a selector, or of a namespace.
    pub struct Sidecar {
        /// Workloads it applies to; absent: all of the namespace.
        workload_selector: Option<WorkloadSelector>, "workloadSelector";
        /// Inbound listeners; empty: derived from the services.
        ingress: Vec<IstioIngressListener>, "ingress";
        /// Outbound listeners and visible hosts; empty: inherited.
        egress: Vec<IstioEgressListener>, "egress";
        /// What happens to traffic for unknown hosts.
        outbound_traffic_policy: Option<OutboundTrafficPolicy>, "outboundTrafficPolicy";
        /// Limits of the connections to the workload itself.
        inbound_connection_pool: Option<ConnectionPoolSettings>, "inboundConnectionPool";
    }
    rule check::sidecar;
}

wire! {
    /// Workloads by label.
    pub struct WorkloadSelector {
        /// Labels they carry; all of them.
        labels: BTreeMap<String, String>, "labels" => syntax::label_value;
    }
    rule check::workload_selector;
}

wire! {
    /// An inbound listener.
    pub struct IstioIngressListener {
        /// The port.
        port: SidecarPort, "port", required;
        /// Address; absent: the address of the workload.
        bind: Option<String>, "bind" => syntax::sidecar_bind;
        /// Whether traffic is captured.
        capture_mode: Option<CaptureMode>, "captureMode";
        /// Where to forward: `127.0.0.1:PORT`, `[::1]:PORT`, `0.0.0.0:PORT` (the workload's address), `unix:///path`.
        default_endpoint: Option<String>, "defaultEndpoint" => syntax::default_endpoint;
        /// TLS that is terminated here; only where mutual TLS is off for the port.
        tls: Option<ServerTlsSettings>, "tls";
        /// Limits of the connections to the workload on this port; absent: those of the Sidecar.
        connection_pool: Option<ConnectionPoolSettings>, "connectionPool";
    }
    rule check::ingress_listener;
}

wire! {
    /// An outbound listener.
    pub struct IstioEgressListener {
        /// The port; absent: every service port of the hosts.
        port: Option<SidecarPort>, "port";
        /// Address; absent: what the capture mode implies.
        bind: Option<String>, "bind" => syntax::sidecar_bind;
        /// Whether traffic is captured.
        capture_mode: Option<CaptureMode>, "captureMode";
        /// Hosts visible here, as `namespace/host`.
        hosts: Vec<String>, "hosts" => syntax::egress_host;
    }
}

wire! {
    /// A port of a listener.
    pub struct SidecarPort {
        /// The number; zero for a Unix socket.
        number: u32, "number", required => syntax::port_or_zero;
        /// Protocol, in any case.
        protocol: Option<String>, "protocol" => syntax::protocol;
        /// Name.
        name: Option<String>, "name" => syntax::port_name;
    }
    ignored "targetPort";
}

wire_enum! {
    /// How traffic reaches a listener.
    pub enum CaptureMode {
        /// As the proxy is set up.
        Default = "DEFAULT",
        /// By iptables.
        Iptables = "IPTABLES",
        /// The caller connects to the listener itself.
        None = "NONE",
    }
}

wire! {
    /// What happens to traffic for hosts nobody knows.
    pub struct OutboundTrafficPolicy {
        /// Forward or refuse.
        mode: Option<OutboundTrafficPolicyMode>, "mode";
        /// Where to forward, in place of the address that was asked for.
        egress_proxy: Option<Destination>, "egressProxy";
    }
    rule check::outbound_traffic_policy;
}

wire_enum! {
    /// Forward or refuse.
    pub enum OutboundTrafficPolicyMode {
        /// Refuse.
        RegistryOnly = "REGISTRY_ONLY",
        /// Forward to the address that was asked for.
        AllowAny = "ALLOW_ANY",
        /// Forward requests to what their host resolves to, all else as it came; of the mesh only.
        AllowAnyDynamicDns = "ALLOW_ANY_DYNAMIC_DNS",
    }
}
