//! Commands that look: at files ([`validate()`], [`analyze()`]), at certificates ([`inspect()`]), at one proxy ([`proxy_config()`]).
//!
//! Owns: arguments, output and exit codes. Must not know: what is wrong with an object, which is `api`'s and the
//! snapshot's to say, nor how a mesh is run; where the proxies of a running one are, `local` tells.
//! Entry points: [`validate()`], [`inspect()`], [`proxy_config()`].

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
    ListenerFilter, ProxyConfigCommand, RouteArgs, SecretArgs, SourceArgs, proxy_config,
};
pub use proxy_status::{ProxyStatusArgs, proxy_status};
pub use rollback::{RollbackArgs, rollback};
pub use validate::{Output, ValidateArgs, validate};
