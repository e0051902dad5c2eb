//! The data plane: what the `meltemi proxy` process does.
//!
//! A main thread (boot, configuration, admin, logs) feeds immutable [`Program`](meltemi_compile::program::Program)s
//! to worker threads ([`worker`]); a worker accepts connections and moves requests, with its own sockets, pools and
//! counters. Everything that needs no socket is decided by `meltemi-compile`; bytes are parsed by `meltemi-http`.
//! Must not know: Istio objects, the snapshot, how Envoy resources are translated.
//!
//! Layers: boot > admin > bootstrap > config > command_line > worker > listener > http, tcp > router,
//! filter > upstream > access_log > istio_stats > record > peer > stats > lifecycle; a module may name only modules to its right.

pub mod access_log;
pub mod admin;
pub mod admission;
pub mod boot;
mod bootstrap;
mod codec;
pub mod command_line;
pub mod config;
pub mod departure;
mod filter;
mod generation;
mod health;
mod http;
pub mod istio_stats;
pub mod lifecycle;
mod listener;
mod peer;
mod random;
pub mod record;
mod relay;
mod router;
mod shared;
pub mod stats;
mod stream;
mod tcp;
mod timer;
pub mod tls;
pub mod upstream;
pub mod worker;

pub use boot::run;
pub use bootstrap::check as check_bootstrap;
pub use command_line::ProxyArgs;
