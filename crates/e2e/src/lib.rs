//! What the tests over real sockets and the benchmarks stand on: peers, processes, bootstraps, backends, clients, and the
//! differential harness. The tests themselves are in `tests/it`.
//!
//! Backends and clients are hyper's, not ours, so that a mistake of our codecs cannot hide behind itself.

pub mod backend;
pub mod bootstrap;
pub mod certificates;
pub mod client;
pub mod differential;
pub mod dns;
pub mod envoy_api;
pub mod mesh;
pub mod ocsp;
pub mod peers;
pub mod process;
pub mod sniffer;
pub mod tls_client;
