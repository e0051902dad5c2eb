//! Commands that work on files and need no running mesh: [`validate`].
//!
//! Owns: arguments, output and exit codes. Must not know: what is wrong with an object; that is `api`'s and the
//! snapshot's to say. Entry point: [`validate()`].

mod report;
mod validate;

pub use validate::{Output, ValidateArgs, validate};
