//! Where objects come from. Today: files, in [`files`].
//!
//! Owns: reading, watching, and the rule that a broken version does not displace a good one. Must not know: what the
//! objects mean together, or who reads the feed. A source never reads the mesh; it only says what has changed.
//!
//! Entry points: [`files::watch`] for daemons, [`files::load`] for commands. Read next: `files/state.rs`.

pub mod files;
mod limits;
