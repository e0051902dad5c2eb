//! The parser at its boundary: text in, objects and diagnostics out.

mod coverage;
mod docs;
mod golden;
mod objects;
mod property;
