//! Wire-level conversations over in-memory pipes and loopback sockets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod client_h1;
mod fuzz;
mod h2;
mod server_h1;
mod service;
