//! A change becomes a generation: batches of the sources are gathered, applied to the snapshot, and handed on.
//!
//! Source of the pacing: istiod's debounce (`PILOT_DEBOUNCE_AFTER`, `PILOT_DEBOUNCE_MAX`), shorter here because
//! applying is cheap.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use meltemi_api::{Change, Diagnostic, ObjectId};
use meltemi_runtime::task;
use meltemi_snapshot::Snapshot;
use meltemi_sources::files::Batch;
use tokio::sync::mpsc;

use crate::limits::{DEBOUNCE_MAX, DEBOUNCE_QUIET, TRANSITION};
use crate::metrics::Metrics;
use crate::proxies::Proxies;
use crate::reports::{Report, Reports};
use crate::trust::Trust;

/// The mesh at one moment, numbered.
#[derive(Debug)]
pub(crate) struct Generation {
    /// Counts from 1 in each life of the process.
    pub(crate) number: u64,
    pub(crate) snapshot: Snapshot,
    /// When the first change of it arrived.
    pub(crate) began: Instant,
}

impl Generation {
    /// What `control_plane.identifier` says.
    pub(crate) fn identifier(&self) -> String {
        format!("meltemi/{}", self.number)
    }
}

/// All that is wrong at the moment, with the texts to show it in.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// For each of the diagnostics the text that its location is a place in; absent where there is none.
    pub(crate) texts: Vec<Option<Arc<str>>>,
    /// Whether the current state is kept out of force because of an error (`--strict`).
    pub(crate) is_refused: bool,
}

/// Gathers changes and says what follows from them.
#[derive(Debug)]
pub(crate) struct Mesh {
    is_strict: bool,
    /// The trust domain that is in force; `None` without an authority, where it means nothing.
    trust: Option<Trust>,
    is_synced: bool,
    snapshot: Snapshot,
    /// What the last generation has, and what follows it when it is a step on the way.
    in_force: Snapshot,
    goal: Snapshot,
    /// When the next step is due.
    steps_at: Option<tokio::time::Instant>,
    number: u64,
    /// Whether the snapshot holds changes that no generation has.
    is_ahead: bool,
    /// What the sources say of single objects, and the snapshot of several.
    of_sources: Vec<Diagnostic>,
    of_snapshot: Vec<Diagnostic>,
    sources: BTreeMap<Arc<str>, Arc<str>>,
    outdated: BTreeMap<ObjectId, Arc<str>>,
}

/// What follows from a batch.
pub(crate) struct Turn {
    pub(crate) generation: Option<Generation>,
    pub(crate) findings: Findings,
}

impl Mesh {
    pub(crate) fn new(is_strict: bool, trust: Option<Trust>) -> Mesh {
        Mesh {
            is_strict,
            trust,
            is_synced: false,
            snapshot: Snapshot::default(),
            in_force: Snapshot::default(),
            goal: Snapshot::default(),
            steps_at: None,
            number: 0,
            is_ahead: true,
            of_sources: Vec::new(),
            of_snapshot: Vec::new(),
            sources: BTreeMap::new(),
            outdated: BTreeMap::new(),
        }
    }

    /// Applies a batch. Before the sources are synced there is no generation: half a mesh would take away
    /// what running proxies have.
    pub(crate) fn turn(&mut self, batch: Batch, began: Instant) -> Turn {
        self.is_synced |= batch.changes.iter().any(|change| matches!(change, Change::Synced(_)));
        let changes = batch.changes.iter().any(|change| matches!(change, Change::Put(_) | Change::Delete(_)));
        if changes {
            (self.snapshot, self.of_snapshot) = self.snapshot.apply(&batch.changes);
            let trust = self.trust.as_ref();
            let of_trust = trust.map_or_else(Vec::new, |t| t.findings(&self.snapshot.config.mesh));
            self.of_snapshot.extend(of_trust);
            self.is_ahead = true;
        }
        self.of_sources = batch.diagnostics;
        self.sources = batch.sources;
        self.outdated = batch.outdated;
        let findings = self.findings();
        let generation = (self.is_ahead && self.is_synced && !findings.is_refused).then(|| {
            self.is_ahead = false;
            // The first generation follows nothing: whoever is connected has it from an earlier life of this process.
            let is_first = self.number == 0;
            let step = (!is_first).then(|| self.snapshot.loosened_after(&self.in_force)).flatten();
            self.goal = self.snapshot.clone();
            let next = step.unwrap_or_else(|| self.snapshot.clone());
            self.steps_at = self.steps_at(&next);
            self.generation(next, began)
        });
        Turn { generation, findings }
    }

    /// Changes of other kinds do not make a transition longer.
    fn steps_at(&self, next: &Snapshot) -> Option<tokio::time::Instant> {
        let policies = &next.config.peer_authentications;
        if !policies.is_in_transition() {
            return None;
        }
        let goes_on = *policies == self.in_force.config.peer_authentications;
        self.steps_at.filter(|_| goes_on).or_else(|| Some(tokio::time::Instant::now() + TRANSITION))
    }

    /// The next step towards the goal. What is refused in the meantime is no part of it.
    pub(crate) fn step(&mut self, began: Instant) -> Turn {
        let next = self.goal.announced_after(&self.in_force).unwrap_or_else(|| self.goal.clone());
        self.steps_at = self.steps_at(&next);
        Turn { generation: Some(self.generation(next, began)), findings: self.findings() }
    }

    fn generation(&mut self, snapshot: Snapshot, began: Instant) -> Generation {
        self.number += 1;
        self.in_force = snapshot.clone();
        Generation { number: self.number, snapshot, began }
    }

    fn findings(&self) -> Findings {
        let diagnostics: Vec<_> = self.of_sources.iter().chain(&self.of_snapshot).cloned().collect();
        let now = |diagnostic: &Diagnostic| self.sources.get(&diagnostic.location.as_ref()?.file).cloned();
        // The snapshot speaks of versions in force, which a broken edit does not displace.
        let in_force = |diagnostic: &Diagnostic| {
            let outdated = diagnostic.object.as_ref().and_then(|id| self.outdated.get(id).cloned());
            outdated.or_else(|| now(diagnostic))
        };
        let texts = self.of_sources.iter().map(now).chain(self.of_snapshot.iter().map(in_force)).collect();
        let is_refused = self.is_strict && diagnostics.iter().any(Diagnostic::is_error);
        Findings { diagnostics, texts, is_refused }
    }
}

/// Where turns go.
#[derive(Clone)]
pub(crate) struct Outlets {
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) reports: Reports,
    pub(crate) metrics: Arc<Metrics>,
}

/// Runs the mesh until the source ends. Cancel safe between turns.
pub(crate) async fn run(mut batches: mpsc::Receiver<Batch>, mut mesh: Mesh, outlets: Outlets) {
    while let Some((event, began)) = next(&mut batches, mesh.steps_at).await {
        outlets.metrics.debounced(began.elapsed());
        let outlets = outlets.clone();
        let (before, taken) = (mesh.number, std::mem::replace(&mut mesh, Mesh::new(false, None)));
        let turn = task::blocking("generation", move || {
            let mut mesh = taken;
            let turn = match event {
                Event::Changed(batch) => mesh.turn(batch, began),
                Event::Due => mesh.step(began),
            };
            deliver(turn, &outlets);
            mesh
        });
        match turn.await {
            Ok(next) => mesh = next,
            Err(error) => {
                tracing::error!(%error, generation = before, "the mesh cannot be brought up to date");
                return;
            }
        }
    }
}

fn deliver(turn: Turn, outlets: &Outlets) {
    let findings = Arc::new(turn.findings);
    outlets.metrics.found(&findings.diagnostics);
    outlets.proxies.set_findings(Arc::clone(&findings));
    outlets.reports.tell(Report::Findings(findings));
    if let Some(generation) = turn.generation {
        let number = generation.number;
        let took = generation.began.elapsed();
        outlets.metrics.generation(&generation);
        outlets.proxies.publish(Arc::new(generation));
        tracing::info!(generation = number, ?took, "generation in force");
    }
}

/// What makes a generation.
enum Event {
    Changed(Batch),
    /// The next step of a transition.
    Due,
}

/// The next event and when it came; `None` when the source has ended.
async fn next(
    batches: &mut mpsc::Receiver<Batch>,
    steps_at: Option<tokio::time::Instant>,
) -> Option<(Event, Instant)> {
    let due = async {
        match steps_at {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    };
    let first = tokio::select! {
        first = batches.recv() => first?,
        () = due => return Some((Event::Due, Instant::now())),
    };
    let (gathered, began) = gather(first, batches).await;
    Some((Event::Changed(gathered), began))
}

/// A batch together with those that follow it closely, and when it came.
async fn gather(first: Batch, batches: &mut mpsc::Receiver<Batch>) -> (Batch, Instant) {
    let mut gathered = first;
    let began = tokio::time::Instant::now();
    let at_last = began + DEBOUNCE_MAX;
    loop {
        let quiet = (tokio::time::Instant::now() + DEBOUNCE_QUIET).min(at_last);
        match tokio::time::timeout_at(quiet, batches.recv()).await {
            Ok(Some(next)) => {
                gathered.changes.extend(next.changes);
                gathered.diagnostics = next.diagnostics;
                gathered.sources = next.sources;
                gathered.outdated = next.outdated;
            }
            Ok(None) | Err(_) => return (gathered, began.into_std()),
        }
    }
}

#[cfg(test)]
mod tests;
