//! Istio and Kubernetes objects as their authors write them: parsed with source positions, checked field by field,
//! and diagnosed. No IO, no clock, no environment.
//!
//! Owns: the wire types ([`istio`], [`kubernetes`]), [`parse`](fn@parse), the [`Diagnostic`] and its catalogue of
//! codes, the feed vocabulary ([`Change`]). Must not know: defaults that give a field meaning, references between
//! objects, or anything of xDS; those belong to the snapshot and to translation.
//!
//! Entry points: [`parse`](fn@parse) for text, [`render`] for a diagnostic, [`Object`] for everything downstream.
//! Where to read next: `decode.rs` for how a struct table becomes a decoder, `istio/virtual_service.rs` for a table.

mod change;
mod check;
mod decode;
mod diagnostic;
pub mod istio;
pub mod kubernetes;
mod limits;
mod node;
mod object;
mod parse;
mod span;
mod syntax;

pub use change::Change;
pub use diagnostic::codes;
pub use diagnostic::codes::Code;
pub use diagnostic::render::render;
pub use diagnostic::{Diagnostic, Location, Severity};
pub use object::{Kind, Meta, Object, ObjectId, Origin, Spec};
pub use parse::{parse, parse_unsound};
pub use span::{Span, Spans};
pub use syntax::decode_base64;
