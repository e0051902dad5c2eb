//! Commands that look: at files ([`validate()`], [`analyze()`]), at certificates ([`inspect()`]), at one proxy ([`proxy_config()`]).
//!
//! Owns: arguments, output and exit codes. Must not know: what is wrong with an object, which is `api`'s and the
//! snapshot's to say, nor how a mesh is run; where the proxies of a running one are, `local` tells.
//! Entry points: [`validate()`], [`inspect()`], [`proxy_config()`].

mod analyze;
mod ask;
mod control_plane;
mod explain;
mod inspect;
mod output;
mod proxy_config;
mod report;
mod rollback;
mod validate;

pub use analyze::{AnalyzeArgs, analyze};
pub use control_plane::MeshArgs;
pub use explain::{ExplainArgs, explain};
pub use inspect::{InspectArgs, inspect};
pub use output::Format;
pub use proxy_config::{
    AllArgs, BootstrapArgs, ClusterArgs, ClusterFilter, EndpointArgs, EndpointFilter, ListenerArgs,
    ListenerFilter, ProxyConfigCommand, RouteArgs, SecretArgs, SourceArgs, proxy_config,
};
pub use rollback::{RollbackArgs, rollback};
pub use validate::{Output, ValidateArgs, validate};
