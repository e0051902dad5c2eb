//! The snapshot as its users see it: selection and merge rules, and the law of `apply`.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod apply;
mod destination_rule;
mod mesh;
mod registry;
mod scope;
