//! From the user's YAML to Envoy resources, through production parsers.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod fuzz;
mod golden;
mod laws;
mod mesh;
mod shop;
mod translator;
