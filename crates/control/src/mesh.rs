//! A change becomes a generation: batches of the sources are gathered, applied to the snapshot, and handed on. What the
//! files say is held back while it is refused (`--strict`) and while an earlier generation is served; what another process
//! tells of (`--state`) goes on in both cases, because it says what is there and not what somebody wants.
//!
//! Source of the pacing: istiod's debounce (`PILOT_DEBOUNCE_AFTER`, `PILOT_DEBOUNCE_MAX`), shorter here because
//! applying is cheap.

mod held;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use meltemi_api::{Change, Diagnostic, ObjectId};
use meltemi_runtime::task;
use meltemi_snapshot::Snapshot;
use meltemi_sources::files::Batch;
use meltemi_translate::check_patches;
use tokio::sync::mpsc;

use crate::generations::Store;
use crate::limits::{DEBOUNCE_MAX, DEBOUNCE_QUIET, TRANSITION};
use crate::metrics::Metrics;
use crate::orders::Request;
use crate::proxies::Proxies;
use crate::reports::{Report, Reports};
use crate::trust::Trust;

/// The mesh at one moment, numbered.
#[derive(Debug)]
pub(crate) struct Generation {
    /// Counts on from the last one that is kept, else from 1 in each life of the process.
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

/// What a mesh is run with.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// Whether an error keeps the whole state of the files out of force.
    pub(crate) is_strict: bool,
    /// The trust domain that is in force; `None` without an authority, where it means nothing.
    pub(crate) trust: Option<Trust>,
    /// The files of objects that another process maintains.
    pub(crate) machine: Vec<PathBuf>,
    /// Where generations are kept; `None` for nowhere.
    pub(crate) generations: Option<Store>,
}

/// Gathers changes and says what follows from them.
#[derive(Debug)]
pub(crate) struct Mesh {
    settings: Settings,
    is_synced: bool,
    /// What the files say.
    snapshot: Snapshot,
    /// What the last generation has, and what follows it when it is a step on the way.
    in_force: Snapshot,
    goal: Snapshot,
    /// When the next step is due.
    steps_at: Option<tokio::time::Instant>,
    number: u64,
    /// Whether there has been a generation in this life of the process.
    has_begun: bool,
    /// Whether the user's files hold changes that no generation has.
    is_ahead: bool,
    /// The kept generation that is served instead of the files.
    serves: Option<u64>,
    /// Whether what the files say has been given to the store.
    is_kept: bool,
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
    /// The kept generation that is served instead of the files.
    pub(crate) serves: Option<u64>,
}

impl Mesh {
    pub(crate) fn new(settings: Settings) -> Mesh {
        let last = settings.generations.as_ref().and_then(Store::last);
        Mesh {
            number: last.map_or(0, |record| record.generation),
            settings,
            is_synced: false,
            snapshot: Snapshot::default(),
            in_force: Snapshot::default(),
            goal: Snapshot::default(),
            steps_at: None,
            has_begun: false,
            is_ahead: true,
            serves: None,
            is_kept: true,
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
        let of_machine = self.take_in(&batch.changes);
        self.of_sources = batch.diagnostics;
        self.sources = batch.sources;
        self.outdated = batch.outdated;
        let findings = self.findings();
        let next = self.next(findings.is_refused, &of_machine);
        let generation = next.map(|next| self.follow(next, began));
        Turn { generation, findings, serves: self.serves }
    }

    /// Takes changes into what the files say, and gives back those that are not the user's.
    fn take_in(&mut self, changes: &[Change]) -> Vec<Change> {
        let objects = changes.iter().filter(|change| matches!(change, Change::Put(_) | Change::Delete(_)));
        let (of_machine, of_user): (Vec<_>, Vec<_>) =
            objects.cloned().partition(|change| self.is_change_of_machine(change));
        if of_machine.is_empty() && of_user.is_empty() {
            return of_machine;
        }
        (self.snapshot, self.of_snapshot) = self.snapshot.apply(changes);
        let trust = self.settings.trust.as_ref();
        let of_trust = trust.map_or_else(Vec::new, |t| t.findings(&self.snapshot.config.mesh));
        self.of_snapshot.extend(of_trust);
        self.of_snapshot.extend(check_patches(&self.snapshot));
        self.is_ahead |= !of_user.is_empty();
        of_machine
    }

    /// Makes a generation of what should be in force now, or of the first step towards it.
    fn follow(&mut self, next: Snapshot, began: Instant) -> Generation {
        // The first generation follows nothing: whoever is connected has it from an earlier life of this process.
        let step = self.has_begun.then(|| next.loosened_after(&self.in_force)).flatten();
        self.goal = next;
        let next = step.unwrap_or_else(|| self.goal.clone());
        self.steps_at = self.steps_at(&next);
        self.generation(next, began)
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
        let generation = Some(self.generation(next, began));
        Turn { generation, findings: self.findings(), serves: self.serves }
    }

    fn generation(&mut self, snapshot: Snapshot, began: Instant) -> Generation {
        self.number += 1;
        self.has_begun = true;
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
        let is_refused = self.settings.is_strict && diagnostics.iter().any(Diagnostic::is_error);
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

/// What a mesh hears.
pub(crate) struct Inlets {
    pub(crate) batches: mpsc::Receiver<Batch>,
    pub(crate) orders: mpsc::Receiver<Request>,
}

/// Runs the mesh until the source ends. Cancel safe between turns.
pub(crate) async fn run(mut inlets: Inlets, mut mesh: Mesh, outlets: Outlets) {
    while let Some((event, began)) = next(&mut inlets, mesh.steps_at).await {
        outlets.metrics.debounced(began.elapsed());
        let outlets = outlets.clone();
        let (before, taken) = (mesh.number, std::mem::replace(&mut mesh, Mesh::new(Settings::default())));
        let turn = task::blocking("generation", move || {
            let mut mesh = taken;
            mesh.on(event, began, &outlets);
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

impl Mesh {
    fn on(&mut self, event: Event, began: Instant, outlets: &Outlets) {
        let turn = match event {
            Event::Changed(batch) => self.turn(batch, began),
            Event::Due => self.step(began),
            Event::Ordered(request) => return self.obey(request, began, outlets),
        };
        let is_new = turn.generation.is_some();
        deliver(turn, outlets);
        if is_new {
            // After the push: proxies do not wait for the disk.
            self.keep();
        }
    }
}

fn deliver(turn: Turn, outlets: &Outlets) {
    let findings = Arc::new(turn.findings);
    outlets.metrics.found(&findings.diagnostics);
    outlets.proxies.set_findings(Arc::clone(&findings));
    outlets.reports.tell(Report::Findings(findings));
    outlets.reports.tell(Report::Serves(turn.serves));
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
    /// Somebody asks for something.
    Ordered(Request),
}

/// The next event and when it came; `None` when the source has ended.
async fn next(inlets: &mut Inlets, steps_at: Option<tokio::time::Instant>) -> Option<(Event, Instant)> {
    let due = async {
        match steps_at {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    };
    let first = tokio::select! {
        first = inlets.batches.recv() => first?,
        () = due => return Some((Event::Due, Instant::now())),
        Some(request) = inlets.orders.recv() => return Some((Event::Ordered(request), Instant::now())),
    };
    let (gathered, began) = gather(first, &mut inlets.batches).await;
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
