//! The shell that every daemon of the mesh lives in: [`logging`], named tasks ([`task`]), [`drain`],
//! process [`signal`]s, retry pacing ([`backoff`]) and [`memory`] given back.
//!
//! Knows no noun of a mesh, opens no socket and reads no environment. Needs a tokio runtime, of any flavour.

pub mod backoff;
pub mod drain;
pub mod logging;
pub mod memory;
pub mod signal;
pub mod task;
