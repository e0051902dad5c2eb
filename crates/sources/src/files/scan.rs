//! Finding and reading the files. Leaves out what is in them.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::limits::{MAX_DEPTH, MAX_FILE_BYTES, MAX_FILES};

/// Files by name, each with its text or the reason it has none.
pub(super) type Texts = BTreeMap<Arc<str>, Result<Arc<str>, String>>;

/// Reads all files at and below the paths. A path that is not there has no files.
pub(super) fn read(paths: &[PathBuf]) -> Texts {
    let mut texts = Texts::new();
    for path in paths {
        match path.is_dir() {
            true => directory(path, 0, &mut texts),
            false => file(path, &mut texts),
        }
    }
    texts
}

/// Reads standard input.
///
/// # Errors
/// When it cannot be read.
pub(super) fn stdin() -> io::Result<Result<Arc<str>, String>> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Ok(Err(io::Error::from(ErrorKind::FileTooLarge).to_string()));
    }
    Ok(text(bytes))
}

fn text(bytes: Vec<u8>) -> Result<Arc<str>, String> {
    String::from_utf8(bytes).map(Arc::from).map_err(|_| "the text is not UTF-8".to_owned())
}

fn directory(path: &Path, depth: usize, texts: &mut Texts) {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => return note(path, &error, texts),
    };
    if depth > MAX_DEPTH {
        let reason = format!("more than {MAX_DEPTH} directories deep; what is below is not read");
        texts.insert(name(path), Err(reason));
        return;
    }
    let mut entries: Vec<DirEntry> = entries.filter_map(Result::ok).collect();
    entries.sort_by_key(DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // Follows symbolic links; loops of them end at the depth limit.
        match path.is_dir() {
            true => directory(&path, depth + 1, texts),
            false if is_manifest(&path) => file(&path, texts),
            false => {}
        }
    }
}

/// Whether a file in a directory is one to read.
pub(super) fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}

fn file(path: &Path, texts: &mut Texts) {
    if texts.len() >= MAX_FILES {
        texts.insert(name(path), Err(format!("more than {MAX_FILES} files; this one is not read")));
        return;
    }
    let read = fs::metadata(path).and_then(|metadata| match metadata {
        metadata if !metadata.is_file() => Err(io::Error::other("not a regular file")),
        metadata if metadata.len() > MAX_FILE_BYTES => Err(ErrorKind::FileTooLarge.into()),
        _ => fs::read(path),
    });
    match read {
        Ok(bytes) => _ = texts.insert(name(path), text(bytes)),
        Err(error) => note(path, &error, texts),
    }
}

/// Notes why something cannot be read. What is gone has been deleted, which is no error.
fn note(path: &Path, error: &io::Error, texts: &mut Texts) {
    if error.kind() != ErrorKind::NotFound {
        texts.insert(name(path), Err(error.to_string()));
    }
}

fn name(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}
