//! `meltemi up`: a whole mesh on one machine, as processes.
//!
//! Owns what runs and keeps running: the plan (`plan`), addresses (`block`), processes (`unit`, `reaper`), probes
//! (`probe`), the state directory (`state`), what people see (`terminal`). Must not know what a request or an Envoy
//! resource is: it starts the control plane and the proxies as processes of its own executable and talks to them by
//! file and by probe.
//!
//! Entry points: [`up`] and [`reap`]; [`running_proxies`] for commands that look at what runs. Where to read next: `mesh.rs`, the loop that owns all state.

mod args;
mod block;
mod credentials;
mod imagine;
mod instance;
mod limits;
mod logs;
mod manifests;
mod mark;
mod mesh;
mod plan;
mod preflight;
mod probe;
mod programs;
mod reaper;
mod running;
mod security;
mod state;
mod terminal;
mod unit;
mod up;

pub use args::{OutputFormat, ReaperArgs, UpArgs};
pub use imagine::{Imagination, Imagined, ImaginedProxy};
pub use reaper::reap;
pub use running::{RunningMesh, RunningProxy, running_meshes, running_proxies};
pub use up::up;
