//! The objects of a directory as `up` needs them: read again when a file changes, the last good version of each kept.
//! Leaves out telling people what is wrong in the files: the control plane reads the same ones and does.
//!
//! Changes are found by looking (names, sizes and times of a few files twice a second): this follows every way of
//! saving, links included, and the control plane's own watch is the one that must be fast.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meltemi_api::{Diagnostic, Object, ObjectId, parse};

use crate::limits::{MAX_DIRECTORY_DEPTH, MAX_FILE_BYTES, MAX_FILES};

/// The files of one directory, as last read.
#[derive(Debug)]
pub(crate) struct Manifests {
    root: PathBuf,
    files: BTreeMap<PathBuf, Manifest>,
}

#[derive(Debug, Clone)]
struct Manifest {
    stamp: Stamp,
    /// Each with the text that it was parsed from, which is not the file's any more when a later version is broken.
    objects: Vec<(Arc<Object>, Arc<str>)>,
}

/// Changes when the file does. The inode catches a replacement of the same size within a clock tick.
type Stamp = (u64, u64, i64, i64);

impl Manifests {
    /// Nothing read yet. `root` is a directory or one file.
    pub(crate) fn new(root: PathBuf) -> Manifests {
        Manifests { root, files: BTreeMap::new() }
    }

    /// Reads what has changed since the last look; whether anything had.
    ///
    /// # Errors
    /// If the directory cannot be listed or has too many files. A single unreadable file keeps its last version.
    pub(crate) fn refresh(&mut self) -> io::Result<bool> {
        let mut found = BTreeMap::new();
        list(&self.root, MAX_DIRECTORY_DEPTH, &mut found)?;
        let before = self.files.len();
        self.files.retain(|path, _| found.contains_key(path));
        let mut changed = self.files.len() != before;
        for (path, stamp) in found {
            let known = self.files.get(&path);
            if known.is_some_and(|known| known.stamp == stamp) {
                continue;
            }
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let manifest = read(&path, stamp, text, known);
            self.files.insert(path, manifest);
            changed = true;
        }
        Ok(changed)
    }

    /// Whether there is no file at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Every object; of two with the same identity, the one in the first file by name.
    pub(crate) fn objects(&self) -> Vec<Arc<Object>> {
        let mut by_id: BTreeMap<&ObjectId, &Arc<Object>> = BTreeMap::new();
        for (object, _) in self.files.values().flat_map(|file| &file.objects) {
            by_id.entry(&object.id).or_insert(object);
        }
        by_id.into_values().cloned().collect()
    }

    /// The finding about an object as people read it, with an excerpt of what the object was read from.
    pub(crate) fn render(&self, diagnostic: &Diagnostic, color: bool) -> String {
        let file = diagnostic.location.as_ref().map(|location| PathBuf::from(&*location.file));
        let objects = file.and_then(|file| self.files.get(&file)).map_or(&[][..], |file| &file.objects);
        let text = objects.iter().find(|(object, _)| Some(&object.id) == diagnostic.object.as_ref());
        meltemi_api::render(diagnostic, text.map_or("", |(_, text)| text), color)
    }
}

/// Parses one file. An object that is broken now, and everything in a file that is not YAML any more, keeps its last
/// good version.
fn read(path: &Path, stamp: Stamp, text: String, known: Option<&Manifest>) -> Manifest {
    let (objects, diagnostics) = parse(&text, &Arc::from(&*path.to_string_lossy()));
    let text: Arc<str> = text.into();
    let mut objects: Vec<_> =
        objects.into_iter().map(|object| (Arc::new(object), Arc::clone(&text))).collect();
    let is_unreadable = diagnostics.iter().any(|finding| finding.is_error() && finding.object.is_none());
    let is_broken = |id: &ObjectId| {
        diagnostics.iter().any(|finding| finding.is_error() && finding.object.as_ref() == Some(id))
    };
    for last in known.map_or(&[][..], |known| &known.objects) {
        let is_present = objects.iter().any(|(object, _)| object.id == last.0.id);
        if !is_present && (is_unreadable || is_broken(&last.0.id)) {
            objects.push(last.clone());
        }
    }
    Manifest { stamp, objects }
}

fn list(path: &Path, depth: usize, found: &mut BTreeMap<PathBuf, Stamp>) -> io::Result<()> {
    // Follows links: a Kubernetes ConfigMap volume is made of them.
    let metadata = fs::metadata(path)?;
    if !metadata.is_dir() {
        found.insert(path.to_owned(), stamp(&metadata));
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if is_hidden(&path) || !(path.is_dir() || is_manifest(&path)) {
            continue;
        }
        match list(&path, depth - 1, found) {
            // Deleted or made unreadable between listing and looking.
            Err(error) if error.kind() != io::ErrorKind::QuotaExceeded => {}
            other => other?,
        }
        if found.len() > MAX_FILES {
            let message = format!("{} holds more than {MAX_FILES} manifests", path.display());
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, message));
        }
    }
    Ok(())
}

/// Editors' scratch files and the `..data` directories of Kubernetes volumes, whose files are linked beside them.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn is_manifest(path: &Path) -> bool {
    let is_known =
        path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|e| extension == *e));
    is_known && path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MAX_FILE_BYTES)
}

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str =
        "apiVersion: v1\nkind: Service\nmetadata: {name: NAME}\nspec: {ports: [{port: 80}]}\n";

    fn names(manifests: &Manifests) -> Vec<String> {
        manifests.objects().iter().map(|object| object.id.name.to_string()).collect()
    }

    #[test]
    fn a_broken_file_keeps_its_last_good_objects_and_a_deleted_one_does_not() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("shop").join("a.yaml");
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, SERVICE.replace("NAME", "a")).unwrap();
        fs::write(scratch.path().join("b.yml"), SERVICE.replace("NAME", "b")).unwrap();
        fs::write(scratch.path().join(".c.yaml"), SERVICE.replace("NAME", "c")).unwrap();
        fs::write(scratch.path().join("notes.txt"), "not a manifest").unwrap();
        let mut manifests = Manifests::new(scratch.path().to_owned());
        assert!(manifests.refresh().unwrap());
        assert_eq!(names(&manifests), ["a", "b"]);
        assert!(!manifests.refresh().unwrap(), "nothing changed");

        fs::write(&path, "kind: [").unwrap();
        assert!(manifests.refresh().unwrap());
        assert_eq!(names(&manifests), ["a", "b"]);

        fs::remove_file(&path).unwrap();
        assert!(manifests.refresh().unwrap());
        assert_eq!(names(&manifests), ["b"]);
    }

    #[test]
    fn an_object_that_is_broken_alone_keeps_its_last_version_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a.yaml");
        let both = format!("{}---\n{}", SERVICE.replace("NAME", "a"), SERVICE.replace("NAME", "b"));
        fs::write(&path, &both).unwrap();
        let mut manifests = Manifests::new(path.clone());
        manifests.refresh().unwrap();
        fs::write(&path, both.replacen("port: 80", "port: 99999", 1)).unwrap();
        assert!(manifests.refresh().unwrap());
        assert_eq!(names(&manifests), ["a", "b"]);
    }

    #[test]
    fn a_finding_is_shown_in_the_text_that_its_object_was_read_from() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a.yaml");
        fs::write(&path, SERVICE.replace("NAME", "a")).unwrap();
        let mut manifests = Manifests::new(path.clone());
        manifests.refresh().unwrap();
        fs::write(
            &path,
            format!("# shifts everything\n{}", SERVICE.replace("NAME", "a").replace("80", "99999")),
        )
        .unwrap();
        manifests.refresh().unwrap();
        let finding = Diagnostic::new(&meltemi_api::codes::NO_COMMAND, "wrong")
            .at(&manifests.objects()[0], "spec.ports[0].port");
        let text = manifests.render(&finding, false);
        assert!(text.contains("port: 80") && !text.contains("99999"), "{text}");
    }
}
