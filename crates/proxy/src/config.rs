//! Configuration: from xDS and the bootstrap to the [`Program`](meltemi_compile::program::Program) that workers serve.
//!
//! Owns what was received, what is in force and what still warms ([`Store`], without IO), the ADS client's
//! owner and the order in which things come into force ([`Configurator`]), listening sockets and DNS.
//! A resource is used whole or refused whole; the last good one stays in force.
//! Leaves out: what a resource means (`meltemi-compile`), the protocol (`meltemi-xds`).
//! Source: Envoy's cluster manager, listener manager and init manager.

mod ads;
mod configurator;
mod dns;
mod references;
mod sockets;
mod store;
mod table;

pub use ads::{Ads, AdsOptions};
pub use configurator::{Configurator, Setup};
pub use store::{Store, TypeCounts};
pub use table::{Entry, Loaded, Refused};
