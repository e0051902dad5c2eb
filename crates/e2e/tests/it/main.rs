//! Tests over real sockets with real peers.

mod architecture;
mod differential;
mod shop;
mod static_proxy;
