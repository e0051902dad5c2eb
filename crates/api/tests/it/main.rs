//! The parser at its boundary: text in, objects and diagnostics out.

mod docs;
mod fuzz;
mod golden;
mod invalid;
mod ledger;
mod objects;
mod property;
