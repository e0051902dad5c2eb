//! The differential harness: one Envoy bootstrap, the same calls, through Envoy and through our proxy.
//!
//! Cases are folders of `testdata/differential` ([`Case`] says how they are written, [`Call`] what a call can be);
//! `expected.yaml` is recorded from Envoy by `DIFFERENTIAL=record cargo test -p meltemi-e2e --test it differential`.
//! Listeners and admin use port 0.

mod calls;
mod case;
mod mask;
mod observed;
mod proxy;
mod run;

pub use calls::{Call, Calls, Differs};
pub use case::Case;
pub use observed::{Answer, Observed, Outcome};
pub use proxy::{Proxy, Running, start, start_with};
