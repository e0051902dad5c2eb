//! Both ends of test traffic: the echo server and the open-loop load generator.
//!
//! Owns `meltemi echo` ([`echo()`]) and `meltemi load` ([`load()`]) with their command lines. Both run on their own
//! single-threaded runtime and speak through `meltemi-http`, so they see the wire as the proxy does.
//!
//! Leaves out everything about the mesh: they are an ordinary server and an ordinary client.

mod dial;
mod duration;
mod echo;
mod load;
mod target;

pub use echo::{EchoArgs, echo};
pub use load::{LoadArgs, load};
