//! Envoy resources as YAML, what becomes of them, and why some are refused.

mod arbitrary;
mod cluster;
mod listener;
mod peer_metadata;
mod yaml;
