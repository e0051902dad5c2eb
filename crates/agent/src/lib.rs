//! What stands beside a proxy. Today: [`bootstrap()`], the file a proxy starts from, and [`node_id`], what a
//! proxy calls itself.
//!
//! Owns the shape of the bootstrap and of the node metadata. Must not know what a mesh looks like (no Istio
//! object, no snapshot) nor start a process: the caller says everything in a [`ProxySpec`] and writes the file.
//! A bootstrap is plain Envoy v3: a stock Envoy 1.40 starts from it as well as `meltemi proxy` does.
//!
//! Source of names, ports and metadata keys: Istio's `envoy_bootstrap.json` and `pkg/bootstrap`.

mod bootstrap;
mod spec;

pub use bootstrap::bootstrap;
pub use spec::{Protocol, ProxyKind, ProxySpec, node_id};

/// The proxy's admin interface.
pub const ADMIN_PORT: u16 = 15000;
/// The listener for outgoing HTTP of a workload that names its proxy (`HTTP_PROXY`).
pub const HTTP_PROXY_PORT: u16 = 15002;
/// The control plane's plaintext xDS.
pub const XDS_PORT: u16 = 15010;
/// The control plane's metrics and debug interface.
pub const CONTROL_ADMIN_PORT: u16 = 15014;
/// The readiness listener: `/healthz/ready`.
pub const READINESS_PORT: u16 = 15021;
/// The metrics listener: `/stats/prometheus`.
pub const PROMETHEUS_PORT: u16 = 15090;
