//! The parser at its boundary: text in, objects and diagnostics out.

mod docs;
mod fuzz;
mod golden;
mod ledger;
mod objects;
mod property;
