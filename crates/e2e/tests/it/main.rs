//! Tests over real sockets with real peers.

mod agreement;
mod architecture;
mod churn;
mod differential;
mod drain;
mod dynamic;
mod encrypted;
mod endurance;
mod envoy_api;
mod foreign;
mod hashing;
mod hostile;
mod hostile_http2;
mod identity;
mod listener_update;
mod manifests;
mod mesh_config;
mod mutual_tls;
mod proxyless;
mod redirected;
mod secrets;
mod shop;
mod static_proxy;
mod stock_envoy;
mod tcp;
mod xds_server;
