//! The control plane: files → snapshot → translate → xDS, with its admin interface.
//!
//! Owns: the wiring, generations and their pacing, which proxy gets which translation, what is told to the
//! operator. Must not know: how a proxy works, what a field of a resource means. It keeps no state of its
//! own but the certificate authority's and the last generations: started again it says the same.
//!
//! Entry points: [`ControlPlane`], and [`run`] for a whole process. Read next: `mesh.rs` (a change becomes a
//! generation), `generations.rs` (the last ones are kept), `proxies.rs` (a generation becomes pushes), `reports.rs` (what is printed),
//! `ca.rs` (who gets a certificate), `secure.rs` (the TLS port), `trust.rs` (the trust domain).

mod admin;
mod admission;
mod args;
mod ca;
mod certificates;
mod generations;
mod limits;
mod mesh;
mod metrics;
mod orders;
mod proxies;
mod reports;
mod run;
mod secure;
mod translations;
mod trust;

pub use args::{CaArgs, ControlPlaneArgs};
pub use ca::JwtRule;
pub use certificates::{IssueArgs, RotateRootArgs, issue, rotate_root};
pub use run::{ControlPlane, run};
