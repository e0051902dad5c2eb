//! Objects from files and directories of YAML and JSON.
//!
//! A directory is read recursively (`*.yaml`, `*.yml`, `*.json`; entries whose names begin with a dot are left out,
//! which is also how a Kubernetes ConfigMap volume hides its revisions). Every look reads everything and compares
//! texts, so that no kind of edit (rename and replace, symlink swap, delete and write) needs a case of its own.

mod scan;
mod state;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use meltemi_api::{Change, Diagnostic, ObjectId};

pub use watch::{Watch, watch};

use self::state::State;

/// Name of this source in [`Change::Synced`] and [`Change::Lost`].
pub const SOURCE: &str = "files";

/// What is new since the last batch.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Changes to the objects in force, in the order of their identities. The first batch ends with
    /// [`Change::Synced`], and so does the first one after [`Change::Lost`].
    pub changes: Vec<Change>,
    /// All findings about the files as they are now, not only the new ones.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts as they are now, by the names that locations use, for rendering.
    pub sources: BTreeMap<Arc<str>, Arc<str>>,
    /// Objects in force in a version that their file no longer has, with the text of that version: findings about
    /// objects in force are places in it.
    pub outdated: BTreeMap<ObjectId, Arc<str>>,
}

/// Stands for standard input among the paths of [`load`].
const STDIN: &str = "-";

/// Reads files and directories once; `-` is standard input.
///
/// # Errors
/// When one of the paths does not exist or cannot be opened. What cannot be read below a directory is a diagnostic.
pub fn load(paths: &[PathBuf]) -> io::Result<Batch> {
    let (stdin, files): (Vec<PathBuf>, Vec<PathBuf>) =
        paths.iter().cloned().partition(|path| path.as_os_str() == STDIN);
    for path in &files {
        let opened =
            if path.is_dir() { path.read_dir().map(drop) } else { std::fs::File::open(path).map(drop) };
        opened.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    }
    let mut texts = scan::read(&files);
    if !stdin.is_empty() {
        texts.insert(STDIN.into(), scan::stdin()?);
    }
    let batch = State::default().update(texts);
    Ok(batch.expect("invariant: the first update has a batch"))
}

#[cfg(test)]
mod tests;
