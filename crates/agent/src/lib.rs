//! What stands beside a proxy: [`bootstrap()`], the file a proxy starts from, and [`Agent`], which gets the workload's
//! certificates and serves them.
//!
//! Owns the shape of the bootstrap and of the node metadata, keys and certificates of one workload, the SDS server, the
//! SPIFFE Workload API and the proxy's way to the control plane. The private key is made here and leaves only through the
//! socket. Must not know what a mesh looks like (no Istio object, no snapshot) nor start a process: the caller says
//! everything in a [`ProxySpec`] and an [`AgentSpec`].
//! A bootstrap is plain Envoy v3: a stock Envoy 1.40 starts from it as well as `meltemi proxy` does.
//!
//! Source of names, ports and metadata keys: Istio's `envoy_bootstrap.json` and `pkg/bootstrap`.

mod agent;
mod args;
mod authority;
mod bootstrap;
mod certificate_client;
mod command;
mod drain;
mod files;
mod limits;
mod proof;
mod relay;
mod renewal;
mod secrets;
mod spec;
mod svid;
mod thread;
mod tls;
mod workload_api;

pub use agent::{Agent, AgentSpec, SDS_SOCKET, XDS_SOCKET};
pub use args::AgentArgs;
pub use command::{AgentCommand, run};
pub use drain::DrainArgs;
pub use proof::Proof;
pub use svid::{Current, Svid};
pub use thread::beside;
pub use tls::ControlPlane;

pub use bootstrap::bootstrap;
pub use spec::{Protocol, ProxyKind, ProxySpec, XdsServer, node_id};

/// The proxy's admin interface.
pub const ADMIN_PORT: u16 = 15000;
/// The listener for outgoing HTTP of a workload that names its proxy (`HTTP_PROXY`).
pub const HTTP_PROXY_PORT: u16 = 15002;
/// The control plane's plaintext xDS.
pub const XDS_PORT: u16 = 15010;
/// The control plane's certificates and xDS over TLS.
pub const SECURE_PORT: u16 = 15012;
/// The control plane's metrics and debug interface.
pub const CONTROL_ADMIN_PORT: u16 = 15014;
/// The readiness listener: `/healthz/ready`.
pub const READINESS_PORT: u16 = 15021;
/// The metrics listener: `/stats/prometheus`.
pub const PROMETHEUS_PORT: u16 = 15090;
