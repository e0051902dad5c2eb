//! What is subscribed by name, and what happened to each subscription, for statistics.
//!
//! Source: Envoy's `SubscriptionStats`, and the scopes under which it keeps them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use meltemi_compile::Origin;
use meltemi_compile::program::Name;
use meltemi_envoy::type_url;
use tokio::time::Instant;

use super::files::FileKey;
use super::references::Need;
use super::store::Store;
use super::table::Entry;

/// What happened to a type, or to one name of it, since the start.
#[derive(Debug, Clone, Default)]
pub struct TypeCounts {
    /// Updates that came, and the first request of a stream.
    pub attempts: u64,
    /// Updates taken whole.
    pub successes: u64,
    /// Updates refused in whole or in part.
    pub rejections: u64,
    /// Files that could not be read.
    pub failures: u64,
    /// Times that nothing came within `initial_fetch_timeout`.
    pub timeouts: u64,
    /// Listeners that do not allow the type of what is there, when they came.
    pub conflicts: u64,
    /// Times that the files of a secret held nothing that can be used.
    pub unreadable: u64,
    /// `version_info` of the last update taken whole.
    pub version: String,
    /// When that was.
    pub updated: Option<SystemTime>,
    /// Resources that were new.
    pub added: u64,
    /// Resources that replaced one.
    pub modified: u64,
    /// Resources that went.
    pub removed: u64,
}

impl TypeCounts {
    /// Whether anything came, be it what had to be refused.
    pub fn is_answered(&self) -> bool {
        self.successes + self.rejections + self.failures > 0
    }

    /// An update was taken whole.
    pub(super) fn taken(&mut self, version: &str) {
        self.attempts += 1;
        self.successes += 1;
        version.clone_into(&mut self.version);
        self.updated = Some(SystemTime::now());
    }

    /// An update was refused.
    pub(super) fn refused(&mut self) {
        self.attempts += 1;
        self.rejections += 1;
    }
}

/// What went wrong with a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileProblem {
    /// It cannot be read, or not as a response.
    #[error("{0}")]
    Unreadable(String),
    /// It holds something else than what was asked for.
    #[error("{0}")]
    Unexpected(String),
}

/// Counts by type and name.
#[derive(Debug, Default)]
pub(super) struct ByName(BTreeMap<(&'static str, Name), TypeCounts>);

impl ByName {
    pub(super) fn of(&mut self, kind: &'static str, name: &str) -> &mut TypeCounts {
        self.0.entry((kind, name.into())).or_default()
    }

    fn get(&self, kind: &'static str, name: &Name) -> Option<&TypeCounts> {
        self.0.get(&(kind, Name::clone(name)))
    }

    /// Whether what came was refused or late, the last time too.
    pub(super) fn is_given_up(&self, kind: &'static str, name: &Name) -> bool {
        self.get(kind, name).is_some_and(|counts| counts.failures + counts.rejections + counts.timeouts > 0)
    }

    /// Forgets names of a type that nothing refers to any more.
    pub(super) fn retain(&mut self, kind: &'static str, wanted: &BTreeSet<Name>) {
        self.0.retain(|(of, name), _| *of != kind || wanted.contains(name));
    }
}

impl Store {
    /// What of a type clusters and listeners refer to, and where it comes from.
    pub(super) fn wanted(&self, kind: &'static str) -> BTreeSet<(Name, Origin)> {
        let needs = self.needs().filter(|need| need.kind == kind);
        needs.map(|need| (need.name.clone(), need.origin.clone())).collect()
    }

    /// The same without the sources.
    pub(super) fn wanted_names(&self, kind: &'static str) -> BTreeSet<Name> {
        self.needs().filter(|need| need.kind == kind).map(|need| need.name.clone()).collect()
    }

    fn needs(&self) -> impl Iterator<Item = &Need> {
        let of_clusters = self.clusters.entries.values().flat_map(Entry::both).flat_map(|l| &l.needs);
        let of_listeners = self.listeners.entries.values().flat_map(Entry::both).flat_map(|l| &l.needs);
        of_clusters.chain(of_listeners)
    }

    /// A stream was asked for a type, or for names of it, the first time.
    pub(super) fn asked<'n>(&mut self, kind: &'static str, names: impl Iterator<Item = &'n str>) {
        for name in names {
            self.by_name.of(kind, name).attempts += 1;
        }
    }

    /// A stream was asked for all of a type.
    pub(super) fn asked_all(&mut self, kind: &'static str) {
        self.counts.entry(kind).or_default().attempts += 1;
    }

    /// A file could not be taken.
    pub(super) fn failed(&mut self, FileKey { kind, name, .. }: &FileKey, problem: &FileProblem) {
        let count = |counts: &mut TypeCounts| match problem {
            FileProblem::Unreadable(_) => {
                counts.attempts += 1;
                counts.failures += 1;
            }
            FileProblem::Unexpected(_) => counts.refused(),
        };
        count(self.counts.entry(kind).or_default());
        if let Some(name) = name {
            count(self.by_name.of(kind, name));
        }
    }

    /// Whether there is nothing to wait for: it is there, or what came was refused or late.
    pub(super) fn is_over(&self, need: &Need) -> bool {
        if need.kind == type_url::SECRET {
            return self.has_secret(need);
        }
        let counts = self.by_name.get(need.kind, &need.name);
        counts.is_some_and(|counts| counts.is_answered() || counts.timeouts > 0)
    }

    /// Counts what did not come in time.
    pub(super) fn count_late(&mut self, now: Instant) {
        let listeners = self.listeners.entries.values().filter_map(|entry| entry.warming.as_ref());
        let clusters = self.clusters.entries.values().filter_map(|entry| entry.warming.as_ref());
        let needs = listeners.flat_map(|loaded| &loaded.needs);
        let needs = needs.chain(clusters.flat_map(|loaded| &loaded.needs));
        let late = needs.filter(|need| need.until.is_some_and(|until| until <= now));
        let late: Vec<_> = late.map(|need| (need.kind, need.name.clone())).collect();
        for (kind, name) in late {
            let counts = self.by_name.of(kind, &name);
            if !counts.is_answered() && counts.timeouts == 0 {
                counts.timeouts += 1;
                // Who asks again counts as another attempt, as in Envoy.
                counts.attempts += 1;
            }
        }
    }

    /// What happened to the subscriptions of a type, by name.
    pub fn subscriptions(&self, kind: &'static str) -> impl Iterator<Item = (&Name, &TypeCounts)> {
        self.by_name
            .0
            .iter()
            .filter(move |((of, _), _)| *of == kind)
            .map(|((_, name), counts)| (name, counts))
    }
}
