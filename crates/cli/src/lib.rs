//! Commands that need no running mesh: [`validate()`] and [`inspect()`].
//!
//! Owns: arguments, output and exit codes. Must not know: what is wrong with an object; that is `api`'s and the
//! snapshot's to say. Entry points: [`validate()`], [`inspect()`].

mod inspect;
mod report;
mod validate;

pub use inspect::{InspectArgs, inspect};
pub use validate::{Output, ValidateArgs, validate};
