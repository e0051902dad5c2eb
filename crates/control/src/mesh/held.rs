//! What is in force when it is not what the files say: an earlier generation that somebody asked for, or the last good one
//! while `--strict` refuses the files. What is there (the state file, Secrets, Deployments) is always that of now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Context, bail, ensure};
use meltemi_api::{Change, Object};
use meltemi_snapshot::{Inputs, Snapshot};
use serde_json::{Value, json};

use super::{Mesh, Outlets, Turn, deliver};
use crate::generations::{self, Kept, Record, Store, digests, is_of_now};
use crate::orders::{Order, Request};

impl Mesh {
    /// What should be in force after a batch; `None` if it is in force already.
    pub(super) fn next(&mut self, is_refused: bool, of_machine: &[Change]) -> Option<Snapshot> {
        if !self.is_synced {
            return None;
        }
        if !self.has_begun
            && let Some(kept) = self.remembered(is_refused)
        {
            self.is_ahead = is_refused;
            return Some(self.earlier(kept));
        }
        if self.is_ahead && !is_refused {
            return Some(self.of_files());
        }
        if of_machine.is_empty() || !self.has_begun {
            return None;
        }
        let is_held = self.is_ahead || self.serves.is_some();
        Some(if is_held { self.goal.apply(of_machine).0 } else { self.snapshot.clone() })
    }

    /// The generation that an earlier life of this process served and this one goes on with: the one that somebody asked
    /// for, if the files are the same; the last good one, if the files are refused.
    fn remembered(&self, is_refused: bool) -> Option<Kept> {
        let store = self.settings.generations.as_ref()?;
        let last = || store.last().filter(|_| is_refused).map(|record| record.generation);
        let number = store.marked(&self.of_user()).or_else(last)?;
        let kept = store.load(number);
        kept.inspect_err(
            |error| tracing::warn!(%error, generation = number, "cannot go on with a kept generation"),
        )
        .ok()
    }

    /// The files are in force from now on.
    fn of_files(&mut self) -> Snapshot {
        self.is_ahead = false;
        self.is_kept = false;
        if self.serves.take().is_some()
            && let Some(store) = &self.settings.generations
        {
            store.unmark();
        }
        self.snapshot.clone()
    }

    /// The mesh of an earlier generation, with what is there now.
    fn earlier(&mut self, kept: Kept) -> Snapshot {
        self.serves = Some(kept.generation);
        let is_there = |object: &&Arc<Object>| self.is_of_machine(object) || is_of_now(object.kind());
        let there = self.snapshot.objects().filter(is_there).cloned();
        Snapshot::build(&Inputs { objects: kept.objects.into_iter().chain(there).collect() }).0
    }

    /// Whether another process maintains the object.
    fn is_of_machine(&self, object: &Object) -> bool {
        let file = &*object.origin.file;
        self.settings.machine.iter().any(|path| path.as_os_str() == file)
    }

    pub(super) fn is_change_of_machine(&self, change: &Change) -> bool {
        match change {
            Change::Put(object) => self.is_of_machine(object),
            Change::Delete(id) => self.snapshot.object(id).is_some_and(|object| self.is_of_machine(object)),
            Change::Synced(_) | Change::Lost(..) => false,
        }
    }

    /// What the user's files say.
    fn of_user(&self) -> Vec<Arc<Object>> {
        self.snapshot.objects().filter(|object| !self.is_of_machine(object)).cloned().collect()
    }

    /// Keeps what the files say, if that is what is in force.
    pub(super) fn keep(&mut self) {
        if self.is_kept || self.is_ahead || self.serves.is_some() || self.settings.generations.is_none() {
            return;
        }
        self.is_kept = true;
        let objects = self.of_user();
        let Some(store) = &mut self.settings.generations else { return };
        if let Err(error) = store.save(self.number, &objects, SystemTime::now()) {
            tracing::warn!(%error, generation = self.number, "this generation is not kept");
        }
    }

    /// Does what somebody asks for, and answers when it is in force.
    pub(super) fn obey(&mut self, request: Request, began: Instant, outlets: &Outlets) {
        let answer = match request.order {
            Order::List => self.overview(),
            Order::Show(number) => self.show(number),
            Order::Serve(number) => self.rollback(number, began).map(|turn| self.answer(turn, outlets)),
            Order::ServeFiles => self.resume(began).map(|turn| self.answer(turn, outlets)),
        };
        // Who asked may be gone.
        let _ = request.answer.send(answer);
    }

    fn answer(&self, turn: Turn, outlets: &Outlets) -> Value {
        deliver(turn, outlets);
        json!({ "inForce": self.number, "serves": self.serves })
    }

    /// Serves an earlier generation until the user's files change.
    ///
    /// # Errors
    /// If it is not kept, or cannot be read.
    pub(crate) fn rollback(&mut self, number: u64, began: Instant) -> anyhow::Result<Turn> {
        let kept = self.store()?.load(number)?;
        ensure!(self.has_begun, "the mesh is not loaded yet");
        let next = self.earlier(kept);
        let files = self.of_user();
        if let Err(error) = self.store()?.mark(number, &files) {
            tracing::warn!(%error, generation = number, "a restart will serve the files again");
        }
        let generation = Some(self.follow(next, began));
        Ok(Turn { generation, findings: self.findings(), serves: self.serves })
    }

    /// Serves the files again.
    ///
    /// # Errors
    /// If they are served already, or refused.
    pub(crate) fn resume(&mut self, began: Instant) -> anyhow::Result<Turn> {
        ensure!(self.serves.is_some(), "the files are served already");
        let findings = self.findings();
        ensure!(!findings.is_refused, "the files have errors, and --strict refuses them: mend them first");
        let next = self.of_files();
        let generation = Some(self.follow(next, began));
        Ok(Turn { generation, findings, serves: self.serves })
    }

    fn store(&self) -> anyhow::Result<&Store> {
        let store = self.settings.generations.as_ref();
        store.context("this control plane keeps no generations: start it with --generations-directory")
    }

    fn overview(&self) -> anyhow::Result<Value> {
        let records: Vec<Value> = self.store()?.records().map(about).collect();
        Ok(json!({
            "inForce": self.number,
            "serves": self.serves,
            "isRefused": self.is_ahead && self.has_begun,
            "generations": records,
        }))
    }

    fn show(&self, number: u64) -> anyhow::Result<Value> {
        let store = self.store()?;
        let kept = store.load(number)?;
        let Some(record) = store.records().find(|record| record.generation == number) else {
            bail!("generation {number} is not kept");
        };
        let mut value = about(record);
        value["file"] = json!(kept.file);
        value["objects"] = kept.objects.iter().map(|object| object.to_json()).collect();
        value["sinceThen"] = json!(self.since(&record.objects));
        Ok(value)
    }

    /// What is other in the files than in these digests.
    fn since(&self, then: &BTreeMap<String, String>) -> generations::Change {
        generations::Change::between(then, &digests(&self.of_user()))
    }
}

/// What is told of a generation: all but its digests.
fn about(record: &Record) -> Value {
    json!({
        "generation": record.generation,
        "time": record.time,
        "author": record.author,
        "added": record.change.added,
        "changed": record.change.changed,
        "removed": record.change.removed,
    })
}
