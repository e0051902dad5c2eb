//! What the files say, and what is therefore in force. Pure: texts in, a batch out.
//!
//! The rules: an object is in force in its last good version; a version with an error does not displace a good one;
//! a file that cannot be read as a whole keeps everything it said before; a document that is gone deletes its object;
//! of two documents for one object the one in the first file by name counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meltemi_api::{Change, Diagnostic, Location, Object, ObjectId, Span, codes, parse};

use super::scan::Texts;
use super::{Batch, SOURCE};

/// What one file said at the last look.
#[derive(Default)]
struct File {
    /// The text, or why there is none; unchanged text is not parsed again.
    text: Option<Result<Arc<str>, String>>,
    /// The objects the file speaks of; those without a sound version are `None`.
    claims: BTreeMap<ObjectId, Option<Arc<Object>>>,
    diagnostics: Vec<Diagnostic>,
}

/// The version of an object that counts.
#[derive(Clone)]
struct Version {
    object: Arc<Object>,
    /// What it was parsed from.
    text: Arc<str>,
    /// Whether its file says something else by now.
    is_outdated: bool,
}

/// Everything the files said, and what is in force.
#[derive(Default)]
pub(super) struct State {
    files: BTreeMap<Arc<str>, File>,
    in_force: BTreeMap<ObjectId, Version>,
    diagnostics: Vec<Diagnostic>,
    /// Whether the last batch left the reader with a complete picture.
    synced: bool,
    lost: bool,
}

impl State {
    /// Takes a look at all files and tells what is new; `None` when nothing is.
    pub(super) fn update(&mut self, texts: Texts) -> Option<Batch> {
        let mut before = std::mem::take(&mut self.files);
        for (name, text) in texts {
            let old = before.remove(&name).unwrap_or_default();
            let file = if old.text.as_ref() == Some(&text) { old } else { File::read(&name, text, old) };
            self.files.insert(name, file);
        }
        let (in_force, duplicates) = self.resolve();
        let mut changes = self.changes(&in_force);
        self.in_force = in_force;

        let mut diagnostics: Vec<Diagnostic> =
            self.files.values().flat_map(|file| file.diagnostics.iter().cloned()).collect();
        diagnostics.extend(duplicates);
        let news = !self.synced || !changes.is_empty() || diagnostics != self.diagnostics;
        if !self.synced {
            changes.push(Change::Synced(SOURCE.into()));
        }
        self.synced = true;
        self.lost = false;
        self.diagnostics.clone_from(&diagnostics);
        news.then(|| Batch { changes, diagnostics, sources: self.sources(), outdated: self.outdated() })
    }

    /// Tells that the files cannot be looked at; what is in force stays. The next update is a first one again.
    pub(super) fn lose(&mut self, reason: String) -> Option<Batch> {
        let news = !std::mem::replace(&mut self.lost, true);
        self.synced = false;
        news.then(|| Batch {
            changes: vec![Change::Lost(SOURCE.into(), reason)],
            diagnostics: self.diagnostics.clone(),
            sources: self.sources(),
            outdated: self.outdated(),
        })
    }

    /// Whether the last thing told was that the files are out of sight.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Which version of each object is in force, and which documents are shadowed by another file.
    fn resolve(&self) -> (BTreeMap<ObjectId, Version>, Vec<Diagnostic>) {
        let mut owners: BTreeMap<&ObjectId, &Arc<str>> = BTreeMap::new();
        let mut in_force = BTreeMap::new();
        let mut duplicates = Vec::new();
        for (name, file) in &self.files {
            for (id, version) in &file.claims {
                if let Some(first) = owners.get(id) {
                    duplicates.extend(version.as_ref().map(|object| duplicate(object, first)));
                    continue;
                }
                owners.insert(id, name);
                if let Some(version) = file.version(id).or_else(|| self.last_good(id)) {
                    in_force.insert(id.clone(), version);
                }
            }
        }
        (in_force, duplicates)
    }

    fn last_good(&self, id: &ObjectId) -> Option<Version> {
        self.in_force.get(id).map(|version| Version { is_outdated: true, ..version.clone() })
    }

    fn changes(&self, now: &BTreeMap<ObjectId, Version>) -> Vec<Change> {
        let gone = self.in_force.keys().filter(|id| !now.contains_key(*id));
        let is_known = |version: &Version| {
            self.in_force.get(&version.object.id).is_some_and(|last| last.object == version.object)
        };
        let put = now.values().filter(|version| !is_known(version));
        let put = put.map(|version| Change::Put(Arc::clone(&version.object)));
        gone.cloned().map(Change::Delete).chain(put).collect()
    }

    fn sources(&self) -> BTreeMap<Arc<str>, Arc<str>> {
        let text = |file: &File| file.text.as_ref()?.as_ref().ok().cloned();
        self.files.iter().filter_map(|(name, file)| Some((Arc::clone(name), text(file)?))).collect()
    }

    fn outdated(&self) -> BTreeMap<ObjectId, Arc<str>> {
        let outdated = self.in_force.iter().filter(|(_, version)| version.is_outdated);
        outdated.map(|(id, version)| (id.clone(), Arc::clone(&version.text))).collect()
    }
}

impl File {
    /// The version of an object that the file has now, if it is a sound one.
    fn version(&self, id: &ObjectId) -> Option<Version> {
        let object = self.claims.get(id)?.clone()?;
        let text = self.text.as_ref()?.as_ref().ok()?.clone();
        Some(Version { object, text, is_outdated: false })
    }

    /// Parses the new text of a file; `old` is what the file said before.
    fn read(name: &Arc<str>, text: Result<Arc<str>, String>, old: File) -> File {
        let (objects, diagnostics) = match &text {
            Ok(text) => parse(text, name),
            Err(reason) => (Vec::new(), vec![unreadable(name, reason)]),
        };
        let mut file = File { text: Some(text), claims: BTreeMap::new(), diagnostics };
        for object in objects.into_iter().map(Arc::new) {
            if let Some(Some(first)) = file.claims.get(&object.id) {
                file.diagnostics
                    .push(duplicate(&object, &format!("line {} of the same file", first.origin.line)));
                continue;
            }
            file.claims.insert(object.id.clone(), Some(object));
        }
        let errors = file.diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
        let broken: BTreeSet<Option<ObjectId>> = errors.map(|diagnostic| diagnostic.object.clone()).collect();
        for id in broken.iter().flatten() {
            file.claims.entry(id.clone()).or_default();
        }
        // An error that is about no object may be about any: whatever the file said before may still be in it.
        if broken.contains(&None) {
            for (id, _) in old.claims {
                file.claims.entry(id).or_default();
            }
        }
        file
    }
}

fn duplicate(object: &Object, first: &str) -> Diagnostic {
    let message = format!("{} is already defined in {first}", object.id);
    Diagnostic::new(&codes::DUPLICATE_OBJECT, message)
        .at(object, "metadata.name")
        .help("remove one of the two")
}

fn unreadable(name: &Arc<str>, reason: &str) -> Diagnostic {
    let location = Location { file: Arc::clone(name), span: Span::default() };
    let diagnostic = Diagnostic::new(&codes::UNREADABLE, format!("the file cannot be read: {reason}"));
    Diagnostic { location: Some(location), ..diagnostic }
}
