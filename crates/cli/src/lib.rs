//! Commands that look: at files ([`validate()`], [`analyze()`], [`explain()`], [`diff()`]), at certificates ([`inspect()`]),
//! at one proxy ([`proxy_config()`]), and at a running mesh ([`get()`], [`describe()`], [`proxy_status()`], [`rollback()`]).
//!
//! Owns: arguments, output and exit codes (`output.rs`). Must not know: what is wrong with an object, which is `api`'s and the
//! snapshot's to say, nor how a mesh is run; where the proxies and the control plane of a running one are, `local` tells.
//! Read next: `control_plane.rs` and `ask.rs` (how they are asked), `mesh.rs` (a folder or what runs as one thing).

mod analyze;
mod ask;
mod control_plane;
mod describe;
mod diff;
mod explain;
mod get;
mod inspect;
mod mesh;
mod output;
mod proxy_config;
mod proxy_status;
mod report;
mod rollback;
mod test;
mod validate;

pub use analyze::{AnalyzeArgs, analyze};
pub use control_plane::MeshArgs;
pub use describe::{DescribeArgs, describe};
pub use diff::{DiffArgs, diff};
pub use explain::{ExplainArgs, explain};
pub use get::{GetArgs, get};
pub use inspect::{InspectArgs, inspect};
pub use output::Format;
pub use proxy_config::{
    AllArgs, BootstrapArgs, ClusterArgs, ClusterFilter, EndpointArgs, EndpointFilter, ListenerArgs,
    ListenerFilter, LogArgs, ProxyConfigCommand, RouteArgs, SecretArgs, SourceArgs, proxy_config,
};
pub use proxy_status::{ProxyStatusArgs, proxy_status};
pub use rollback::{RollbackArgs, rollback};
pub use test::{TestArgs, test};
pub use validate::{Output, ValidateArgs, validate};
