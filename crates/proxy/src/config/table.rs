//! The resources of one type: for each name what is in force, what warms and what was refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use meltemi_compile::program::Name;
use meltemi_envoy::Any;
use tokio::time::Instant;

use super::references::Need;

/// A compiled resource and the message it was made of.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The message.
    pub message: Any,
    /// The version under which the server sent it; empty for the bootstrap.
    pub version: String,
    /// When it was taken.
    pub updated: SystemTime,
    /// What workers use.
    pub value: Arc<T>,
    /// What it refers to.
    pub needs: Vec<Need>,
    /// Until when it waits for the hosts of a cluster; `None` waits for ever.
    pub deadline: Option<Instant>,
}

/// The last message of a name that was refused, after the one in force.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The message.
    pub message: Any,
    /// Its version.
    pub version: String,
    /// When it came.
    pub at: SystemTime,
    /// Why it was refused.
    pub details: String,
}

/// All that is known of one name.
#[derive(Debug)]
pub struct Entry<T> {
    /// It came with the bootstrap; xDS cannot change it.
    pub is_static: bool,
    /// In force.
    pub active: Option<Loaded<T>>,
    /// Waits for what it refers to.
    pub warming: Option<Loaded<T>>,
    /// Refused since.
    pub refused: Option<Refused>,
}

impl<T> Default for Entry<T> {
    fn default() -> Entry<T> {
        Entry { is_static: false, active: None, warming: None, refused: None }
    }
}

impl<T> Entry<T> {
    /// What was taken last: warming, else in force.
    pub fn latest(&self) -> Option<&Loaded<T>> {
        self.warming.as_ref().or(self.active.as_ref())
    }

    /// Warming and in force.
    pub fn both(&self) -> impl Iterator<Item = &Loaded<T>> {
        self.warming.iter().chain(&self.active)
    }
}

/// The resources of one type by name.
#[derive(Debug)]
pub(super) struct Table<T> {
    pub(super) entries: BTreeMap<Name, Entry<T>>,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table { entries: BTreeMap::new() }
    }
}

impl<T> Table<T> {
    /// What is in force under a name.
    pub(super) fn active(&self, name: &str) -> Option<&Arc<T>> {
        self.entries.get(name)?.active.as_ref().map(|loaded| &loaded.value)
    }

    /// Whether the name came with the bootstrap.
    pub(super) fn is_static(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.is_static)
    }

    /// Takes a resource in; it warms until [`Table::settle`] finds it ready. Says whether the name is new.
    pub(super) fn insert(&mut self, name: Name, loaded: Loaded<T>) -> bool {
        let entry = self.entries.entry(name).or_default();
        let is_new = entry.latest().is_none();
        entry.warming = Some(loaded);
        entry.refused = None;
        is_new
    }

    /// The same message came again: only the version moves. Says whether it was the same.
    pub(super) fn touch(&mut self, name: &str, message: &Any, version: &str) -> bool {
        let Some(entry) = self.entries.get_mut(name) else { return false };
        let latest = entry.warming.as_mut().or(entry.active.as_mut());
        let Some(latest) = latest.filter(|latest| latest.message == *message) else { return false };
        version.clone_into(&mut latest.version);
        entry.refused = None;
        true
    }

    /// Remembers a refusal; what is in force stays.
    pub(super) fn refuse(&mut self, name: Name, refused: Refused) {
        self.entries.entry(name).or_default().refused = Some(refused);
    }

    /// Forgets a name; static ones stay. Says whether there was something in force or warming.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        if self.is_static(name) {
            return false;
        }
        self.entries.remove(name).is_some_and(|entry| entry.latest().is_some())
    }

    /// Puts in force what is ready. Says whether anything changed.
    pub(super) fn settle(&mut self, is_ready: impl Fn(&Loaded<T>) -> bool) -> bool {
        let mut changed = false;
        for entry in self.entries.values_mut() {
            if let Some(ready) = entry.warming.take_if(|loaded| is_ready(loaded)) {
                entry.active = Some(ready);
                changed = true;
            }
        }
        changed
    }

    /// The earliest moment at which something that warms waits no longer.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let warming = self.entries.values().filter_map(|entry| entry.warming.as_ref());
        let ends = |loaded: &Loaded<T>| {
            let needs = loaded.needs.iter().filter_map(|need| need.until);
            needs.chain(loaded.deadline).filter(|until| *until > now).min()
        };
        warming.filter_map(ends).min()
    }

    /// How many are in force, and how many warm.
    pub(super) fn counts(&self) -> (u64, u64) {
        let active = self.entries.values().filter(|entry| entry.active.is_some()).count();
        let warming = self.entries.values().filter(|entry| entry.warming.is_some()).count();
        (active as u64, warming as u64)
    }
}
