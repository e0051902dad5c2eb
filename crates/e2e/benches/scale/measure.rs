//! One control plane, its clients, and the changes.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use meltemi_e2e::backend::free_port;
use meltemi_e2e::peers;
use meltemi_e2e::process::{Process, until};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{self, Identity, Seen};
use crate::machine;
use crate::world::World;

/// The longest time until everybody has everything at the start.
const LONGEST_START: Duration = Duration::from_secs(300);
/// The longest time until everybody has a change.
const LONGEST_CHANGE: Duration = Duration::from_secs(120);
/// How long nothing may come before everything has come.
const QUIET: Duration = Duration::from_millis(500);

/// What is measured.
pub(crate) struct Setup {
    pub(crate) services: usize,
    pub(crate) clients: usize,
    pub(crate) is_delta: bool,
    pub(crate) rounds: usize,
}

/// The figures of one setup.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) services: usize,
    pub(crate) clients: usize,
    pub(crate) mode: &'static str,
    /// Until every client has everything.
    pub(crate) start_ms: f64,
    pub(crate) start_bytes: u64,
    pub(crate) start_cpu_ms: f64,
    pub(crate) changes: Vec<Change>,
    pub(crate) rss_kib: f64,
    pub(crate) peak_kib: f64,
}

/// The figures of one kind of change.
#[derive(Debug, Serialize)]
pub(crate) struct Change {
    pub(crate) name: &'static str,
    /// From the edit to the ACK of a client, over all clients and rounds.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Bytes pushed to all clients, by change.
    pub(crate) bytes: u64,
    /// CPU time of the control plane, by change.
    pub(crate) cpu_ms: f64,
}

/// The kinds of changes, each with the type whose update ends it.
const CHANGES: [(&str, usize); 3] = [("endpoint", 1), ("route", 3), ("service", 3)];

pub(crate) async fn run(setup: &Setup) -> anyhow::Result<Outcome> {
    let folder = tempfile::tempdir()?;
    let mesh = folder.path().join("mesh");
    std::fs::create_dir(&mesh)?;
    let world = World::write(&mesh, setup.services)?;
    let port = || free_port().map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let (address, admin) = (port()?, port()?);
    let mut command = Command::new(peers::meltemi());
    command.args(["control-plane", "--log-level", "warning", "--config"]).arg(&mesh);
    command.args([format!("--xds-address={address}"), format!("--admin-address={admin}")]);
    let control_plane = Process::spawn(&mut command, &folder.path().join("log"))?;
    until("the control plane is ready", LONGEST_START, async || is_ready(admin).await.then_some(()))
        .await
        .with_context(|| control_plane.output())?;
    let pid = control_plane.pid();

    let began = Instant::now();
    let fleet = Fleet::start(address, setup, began);
    let cpu = machine::process_seconds(pid)?;
    fleet.settle().await.with_context(|| control_plane.output())?;
    let start_ms = ms(began.elapsed().saturating_sub(QUIET));
    let start_cpu_ms = (machine::process_seconds(pid)? - cpu) * 1e3;
    let start_bytes = fleet.bytes();
    let mut changes = Vec::new();
    for (name, kind) in CHANGES {
        let change = fleet.change(&world, pid, (name, kind), setup.rounds);
        changes.push(change.await.with_context(|| control_plane.output())?);
    }
    Ok(Outcome {
        services: setup.services,
        clients: setup.clients,
        mode: if setup.is_delta { "delta" } else { "sotw" },
        start_ms,
        start_bytes,
        start_cpu_ms,
        changes,
        rss_kib: machine::memory_kib(pid, "VmRSS:")?,
        peak_kib: machine::memory_kib(pid, "VmHWM:")?,
    })
}

/// Whether the mesh is loaded.
async fn is_ready(admin: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(admin).await else { return false };
    let request = b"GET /ready HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n";
    let mut answer = String::new();
    stream.write_all(request).await.is_ok()
        && stream.read_to_string(&mut answer).await.is_ok()
        && answer.starts_with("HTTP/1.1 200")
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The clients.
struct Fleet {
    began: Instant,
    seen: Vec<Arc<Seen>>,
    tasks: Vec<tokio::task::JoinHandle<anyhow::Result<()>>>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Fleet {
    fn start(address: SocketAddr, setup: &Setup, began: Instant) -> Fleet {
        let seen: Vec<Arc<Seen>> = (0..setup.clients).map(|_| Arc::default()).collect();
        let tasks = seen.iter().enumerate().map(|(index, seen)| {
            let service = index * 13 % setup.services;
            let identity = Identity { index, is_delta: setup.is_delta, service, began };
            tokio::spawn(client::run(address, identity, Arc::clone(seen)))
        });
        Fleet { began, tasks: tasks.collect(), seen }
    }

    fn bytes(&self) -> u64 {
        self.seen.iter().map(|seen| seen.bytes()).sum()
    }

    fn total(&self) -> u64 {
        (0..client::TYPES.len()).flat_map(|kind| self.seen.iter().map(move |seen| seen.updates(kind))).sum()
    }

    /// Waits until every client has updates of all types and none comes any more.
    async fn settle(&self) -> anyhow::Result<()> {
        let mut last = (self.total(), Instant::now());
        until("every client has everything", LONGEST_START, async || {
            let total = self.total();
            if total != last.0 {
                last = (total, Instant::now());
            }
            let all =
                self.seen.iter().all(|seen| (0..client::TYPES.len()).all(|kind| seen.updates(kind) > 0));
            (all && last.1.elapsed() >= QUIET).then_some(())
        })
        .await?;
        anyhow::ensure!(!self.tasks.iter().any(tokio::task::JoinHandle::is_finished), "a stream has ended");
        Ok(())
    }

    /// Makes a change again and again.
    async fn change(
        &self,
        world: &World,
        pid: u32,
        (name, kind): (&'static str, usize),
        rounds: usize,
    ) -> anyhow::Result<Change> {
        let (mut times, mut bytes, mut cpu) = (Vec::new(), 0, 0.0);
        for round in 0..rounds {
            let before: Vec<u64> = self.seen.iter().map(|seen| seen.updates(kind)).collect();
            let (bytes_before, cpu_before) = (self.bytes(), machine::process_seconds(pid)?);
            let edited_at = u64::try_from(self.began.elapsed().as_micros())?;
            match name {
                "endpoint" => world.move_endpoint(round)?,
                "route" => world.change_route(round)?,
                _ => world.add_service(round)?,
            }
            until("every client has the change", LONGEST_CHANGE, async || {
                self.seen.iter().zip(&before).all(|(seen, before)| seen.updates(kind) > *before).then_some(())
            })
            .await?;
            times.extend(self.seen.iter().map(|seen| seen.acked_at(kind).saturating_sub(edited_at)));
            self.settle().await?;
            bytes += self.bytes() - bytes_before;
            cpu += machine::process_seconds(pid)? - cpu_before;
        }
        times.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "minutes in microseconds")]
        let quantile = |per_mille: usize| times[(times.len() - 1) * per_mille / 1_000] as f64 / 1e3;
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let cpu_ms = cpu * 1e3 / rounds as f64;
        let bytes = bytes / u64::try_from(rounds)?;
        Ok(Change { name, p50_ms: quantile(500), p99_ms: quantile(990), bytes, cpu_ms })
    }
}
