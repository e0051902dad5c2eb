//! The parser at its boundary: text in, objects and diagnostics out.

mod docs;
mod golden;
mod ledger;
mod objects;
mod property;
