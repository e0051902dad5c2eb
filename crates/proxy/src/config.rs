//! Configuration: from xDS and the bootstrap to the [`Program`](meltemi_compile::program::Program) that workers serve.
//!
//! Owns what was received, what is in force and what still warms ([`Store`], without IO), the xDS clients,
//! the files that are followed and the order in which things come into force ([`Configurator`]), listening sockets and DNS.
//! A resource is used whole or refused whole; the last good one stays in force.
//! Leaves out: what a resource means (`meltemi-compile`), the protocol (`meltemi-xds`).
//! Source: Envoy's cluster manager, listener manager and init manager.

mod configurator;
mod data_files;
mod dns;
mod dynamic;
mod files;
mod health;
mod references;
mod secrets;
mod server;
mod sockets;
mod store;
mod streams;
mod subscription;
mod table;

pub use configurator::{Configurator, Setup};
pub use dynamic::{Dynamic, Subscription};
pub use server::{Secured, Server};
pub use store::Store;
pub use subscription::TypeCounts;
pub use table::{Entry, Loaded, Refused};
