//! A worker over real sockets: what clients and upstreams see.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod drain;
mod harness;
mod routing;
mod swap;
mod tcp;
mod upstream;
