//! The control plane: files → snapshot → translate → xDS, with its admin interface.
//!
//! Owns: the wiring, generations and their pacing, which proxy gets which translation, what is told to the
//! operator. Must not know: how a proxy works, what a field of a resource means. It keeps no state of its
//! own: started again it says the same.
//!
//! Entry points: [`ControlPlane`], and [`run`] for a whole process. Read next: `mesh.rs` (a change becomes a
//! generation), `proxies.rs` (a generation becomes pushes), `reports.rs` (what is printed).

mod admin;
mod args;
mod limits;
mod mesh;
mod metrics;
mod proxies;
mod reports;
mod run;

pub use args::ControlPlaneArgs;
pub use run::{ControlPlane, run};
