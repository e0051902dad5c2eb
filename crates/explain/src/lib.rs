//! What happens to a call, without sending it: the same translation and the same decisions as the real thing, no
//! sockets.
//!
//! Owns: how a call meets a proxy's listeners, chains, virtual hosts and routes ([`Proxy::explain`]), why it took
//! none of the others, and the batch form for tests ([`batch::answer`]). Must not know: files, sockets, time.
//! Entry points: [`Mesh::of_text`] or [`Mesh::new`], then [`Mesh::proxy`], then [`Proxy::explain`].
//! Read next: `call.rs`, then `verdict.rs`, then `decide.rs`.

pub mod batch;
mod call;
mod chance;
mod connection;
mod decide;
pub mod diff;
mod effects;
mod explanation;
mod journey;
mod listener;
mod mesh;
mod proxy;
mod request;
mod routing;
mod verdict;
mod workload;

pub use call::{Call, HeaderValues, Mode, Protocol, Security};
pub use chance::Chance;
pub use explanation::{Explanation, NearMiss};
pub use journey::{Destination, Hop, Journey, Request};
pub use mesh::Mesh;
pub use proxy::{Kind, Proxy, ProxySpec};
pub use verdict::{Decision, Failure, Share, Verdict};
pub use workload::Workload;
