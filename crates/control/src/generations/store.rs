//! The directory of generations. Each file is replaced whole, and a generation is there when its record is: a crash
//! between two writes leaves the ones before as they were. Only its owner reads the directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, bail, ensure};
use meltemi_api::{Object, parse};
use serde::{Deserialize, Serialize};

use super::record::{Change, Record, digest, digests};
use super::{author, is_of_now};
use crate::limits::{MAX_GENERATION_BYTES, MAX_GENERATIONS_BYTES};

/// The file that says which generation is served instead of the files.
const MARKER: &str = "serving.json";

/// The generations of one mesh.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    keep: usize,
    /// By number.
    records: BTreeMap<u64, Record>,
}

/// A generation to serve again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kept {
    pub(crate) generation: u64,
    /// All but those of now.
    pub(crate) objects: Vec<Arc<Object>>,
    /// The text that they stand in, for findings about them.
    pub(crate) file: Arc<str>,
}

/// What is served instead of the files, and the files as they were then: another text of theirs ends it.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    generation: u64,
    files: String,
}

impl Store {
    /// Opens or makes the directory. A record that cannot be read is left alone and not counted.
    ///
    /// # Errors
    /// If the directory cannot be made or read.
    pub(crate) fn open(directory: &Path, keep: usize) -> anyhow::Result<Store> {
        let shown = directory.display();
        let make = || -> io::Result<()> {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            fs::set_permissions(directory, Permissions::from_mode(0o700))
        };
        make().with_context(|| format!("make the directory of generations {shown}"))?;
        let entries = fs::read_dir(directory).with_context(|| format!("read {shown}"))?;
        let records = entries.filter_map(Result::ok).filter_map(|entry| record(&entry.path()));
        let records = records.map(|record| (record.generation, record)).collect();
        Ok(Store { directory: directory.to_owned(), keep, records })
    }

    /// The generations, oldest first.
    pub(crate) fn records(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.records.values()
    }

    /// The highest number there is.
    pub(crate) fn last(&self) -> Option<&Record> {
        self.records.values().next_back()
    }

    /// Keeps the objects as a generation, unless they say the same as the last one that is kept.
    ///
    /// # Errors
    /// If it is larger than what is kept, or cannot be written.
    pub(crate) fn save(
        &mut self,
        generation: u64,
        objects: &[Arc<Object>],
        now: SystemTime,
    ) -> anyhow::Result<()> {
        if self.keep == 0 {
            return Ok(());
        }
        let digests = digests(objects);
        let last = self.last();
        let before = last.map(|record| &record.objects);
        let change = Change::between(before.unwrap_or(&BTreeMap::new()), &digests);
        if last.is_some() && change.is_empty() {
            return Ok(());
        }
        let text = text(objects);
        let size = text.len();
        ensure!(
            size <= MAX_GENERATION_BYTES,
            "its objects are {size} bytes, more than {MAX_GENERATION_BYTES}"
        );
        let record = Record {
            generation,
            time: jiff::Timestamp::try_from(now)
                .map(|time| time.strftime("%FT%TZ").to_string())
                .unwrap_or_default(),
            author: author::of(&files(objects, &change)),
            change,
            text_digest: digest(text.as_bytes()),
            text_bytes: size as u64,
            objects: digests,
        };
        self.write(&format!("{generation}.yaml"), &text)?;
        self.write(&format!("{generation}.json"), &(serde_json::to_string_pretty(&record)? + "\n"))?;
        self.records.insert(generation, record);
        self.prune();
        Ok(())
    }

    /// The objects of a generation.
    ///
    /// # Errors
    /// With what there is, if there is no such generation; or if its file is not what was written.
    pub(crate) fn load(&self, generation: u64) -> anyhow::Result<Kept> {
        let Some(record) = self.records.get(&generation) else {
            let numbers: Vec<String> = self.records.keys().map(u64::to_string).collect();
            bail!("generation {generation} is not kept; kept are {}", numbers.join(", "));
        };
        let path = self.directory.join(format!("{generation}.yaml"));
        let shown = path.display();
        let text = fs::read_to_string(&path).with_context(|| format!("read {shown}"))?;
        ensure!(digest(text.as_bytes()) == record.text_digest, "{shown} is not as it was written");
        let file: Arc<str> = shown.to_string().into();
        let (objects, diagnostics) = parse(&text, &file);
        let error = diagnostics.iter().find(|diagnostic| diagnostic.is_error());
        if let Some(error) = error {
            bail!("this version does not read generation {generation} any more: {}", error.message);
        }
        Ok(Kept { generation, objects: objects.into_iter().map(Arc::new).collect(), file })
    }

    /// Remembers over a restart which generation is served instead of these objects.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn mark(&self, generation: u64, files: &[Arc<Object>]) -> anyhow::Result<()> {
        let marker = Marker { generation, files: fingerprint(files) };
        self.write(MARKER, &serde_json::to_string(&marker)?)
    }

    /// The files are served again.
    pub(crate) fn unmark(&self) {
        // It may not be there; one that stays is told apart by the files, which are others by now.
        let _ = fs::remove_file(self.directory.join(MARKER));
    }

    /// The generation that was served instead of these objects, if they are still the same.
    pub(crate) fn marked(&self, files: &[Arc<Object>]) -> Option<u64> {
        let text = fs::read(self.directory.join(MARKER)).ok()?;
        let marker: Marker = serde_json::from_slice(&text).ok()?;
        (marker.files == fingerprint(files)).then_some(marker.generation)
    }

    /// Lets go of the oldest ones beyond the bounds; the newest stays.
    fn prune(&mut self) {
        let bytes =
            |records: &BTreeMap<u64, Record>| records.values().map(|record| record.text_bytes).sum::<u64>();
        while self.records.len() > self.keep
            || (self.records.len() > 1 && bytes(&self.records) > MAX_GENERATIONS_BYTES)
        {
            let Some((oldest, _)) = self.records.pop_first() else { return };
            for extension in ["json", "yaml"] {
                let path = self.directory.join(format!("{oldest}.{extension}"));
                if let Err(error) = fs::remove_file(&path) {
                    tracing::warn!(%error, path = %path.display(), "cannot remove an old generation");
                }
            }
        }
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.directory.join(name);
        let scratch = self.directory.join(format!("{name}.tmp"));
        let write = || -> io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&scratch)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&scratch, &path)
        };
        write().with_context(|| format!("write {}", path.display()))
    }
}

/// The record in a file `N.json`.
fn record(path: &Path) -> Option<Record> {
    let number: u64 = path.file_name()?.to_str()?.strip_suffix(".json")?.parse().ok()?;
    let read = || -> anyhow::Result<Record> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    match read() {
        Ok(record) if record.generation == number => Some(record),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "cannot read a kept generation");
            None
        }
    }
}

/// A manifest: JSON documents, which are YAML.
fn text(objects: &[Arc<Object>]) -> String {
    let kept = objects.iter().filter(|object| !is_of_now(object.kind()));
    kept.map(|object| format!("---\n{:#}\n", object.to_json())).collect()
}

/// The files that what was added or changed stands in.
fn files(objects: &[Arc<Object>], change: &Change) -> BTreeSet<Arc<str>> {
    let names: BTreeSet<&String> = change.added.iter().chain(&change.changed).collect();
    let touched = objects.iter().filter(|object| names.contains(&object.id.to_string()));
    let all = objects.iter().filter(|_| names.is_empty());
    touched.chain(all).map(|object| Arc::clone(&object.origin.file)).collect()
}

fn fingerprint(objects: &[Arc<Object>]) -> String {
    let whole: String =
        digests(objects).into_iter().map(|(name, digest)| format!("{name}={digest}\n")).collect();
    digest(whole.as_bytes())
}

#[cfg(test)]
mod tests;
