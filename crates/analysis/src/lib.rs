//! What is doubtful or wrong across the objects of a mesh, with the codes of `istioctl analyze` where it has one.
//!
//! Owns: the analyzers, Istio's catalogue of codes ([`CATALOGUE`]) with what became of each, and suppression. Must not
//! know: where objects come from, and how findings are shown. What makes an object unsound by itself is `api`'s to say,
//! and what the control plane itself reports the snapshot's; both are among the findings here.
//!
//! Entry points: [`analyze`](fn@analyze), [`Suppression`]. Read next: `mesh.rs`, then any analyzer.
//!
//! Source: Istio `pkg/config/analysis`.

mod analyze;
mod annotation;
mod authorization;
mod catalogue;
mod deployment;
mod deprecation;
mod destination_rule;
mod envoy_filter;
mod finding;
mod gateway;
mod hosts;
mod injection;
mod mesh;
mod own;
mod selector;
mod service;
mod service_entry;
mod suppression;
mod telemetry;
mod unreachable;
mod virtual_service;

pub use analyze::{Subject, analyze};
pub use catalogue::{CATALOGUE, Entry, State};
pub use suppression::{BadSuppression, Suppression, suppressed};
