//! Everything a bootstrap depends on, as plain data, and the node identity made from it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// What a proxy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    /// Beside one workload instance.
    Sidecar,
    /// A gateway.
    Router,
}

impl ProxyKind {
    /// The first part of a node id.
    pub fn as_str(self) -> &'static str {
        match self {
            ProxyKind::Sidecar => "sidecar",
            ProxyKind::Router => "router",
        }
    }
}

/// How resources travel from the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Incremental aggregated xDS: only what changed.
    #[default]
    Delta,
    /// State of the world: every resource of a type in every answer.
    StateOfTheWorld,
}

impl Protocol {
    pub(crate) fn api_type(self) -> &'static str {
        match self {
            Protocol::Delta => "DELTA_GRPC",
            Protocol::StateOfTheWorld => "GRPC",
        }
    }
}

/// How a proxy reaches its control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum XdsServer {
    /// Directly and in plaintext.
    Plaintext(SocketAddr),
    /// Through the agent beside it, whose sockets are in this directory; the proxy gets its certificates there too.
    Agent(PathBuf),
}

/// One proxy: who it is, where it listens and who configures it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxySpec {
    /// Sidecar or gateway.
    pub kind: ProxyKind,
    /// The instance's name: of a pod, or of a replica.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The workload that it is an instance of, for metrics.
    pub workload: String,
    /// The service account it runs as.
    pub service_account: String,
    /// The instance's labels; policies and Sidecar or Gateway objects select by them.
    pub labels: BTreeMap<String, String>,
    /// The address of the instance; the admin interface and the static listeners bind it.
    pub address: IpAddr,
    /// Where its configuration comes from.
    pub xds: XdsServer,
    /// How resources travel.
    pub protocol: Protocol,
    /// Where gateway servers without `bind` listen; `None` leaves it to the control plane (`0.0.0.0`).
    pub gateway_bind: Option<IpAddr>,
}

/// `TYPE~IP~NAME.NAMESPACE~NAMESPACE.svc.cluster.local`, as Istio writes it.
pub fn node_id(spec: &ProxySpec) -> String {
    let ProxySpec { kind, name, namespace, address, .. } = spec;
    format!("{}~{address}~{name}.{namespace}~{namespace}.svc.cluster.local", kind.as_str())
}
