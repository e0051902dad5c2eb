//! Our proxy beside Envoy, HAProxy and nginx, in the same run: requests per CPU-second at saturation, latency at a
//! fixed rate, resident memory. Prints medians and ratios; writes `bench-results/`.
//!
//! `scripts/bench` builds everything and runs this. One worker each, pinned to CPU 0; backend and generators share CPU 1.
//! A measurement that other load disturbed is repeated, and a run that cannot be quiet reports nothing.
//! `BENCH_ROUNDS=1` shortens it; `BENCH_WORKLOADS=http2,grpc` and `BENCH_PEERS=envoy,meltemi` narrow it.

mod ends;
mod machine;
mod peer;
mod report;
mod tls;
mod workload;

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::Context;
use meltemi_e2e::peers;

use crate::peer::{Backend, Peer, Running, VIRTUAL_HOSTS};
use crate::report::{Memory, Results};
use crate::workload::Workload;

/// Rounds, alternating between the proxies; the table shows medians.
const ROUNDS: usize = 3;
/// Idle keep-alive connections for the memory figure: HAProxy sets two descriptors aside for each, and 20,000 are a common
/// limit.
const IDLE_CONNECTIONS: usize = 9_800;
/// Idle TLS connections for theirs.
const IDLE_TLS_CONNECTIONS: usize = 2_000;

fn main() -> anyhow::Result<()> {
    machine::raise_descriptor_limit();
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((kind, _)) if kind == "--backend" => ends::backend(),
        Some((kind, rest)) if kind == "--sink" => {
            let (address, time, count) = ends::arguments(rest)?;
            ends::sink(address, time, count)
        }
        Some((kind, rest)) if kind == "--churn" => {
            let (address, time, count) = ends::arguments(rest)?;
            ends::churn(address, time, count)
        }
        Some((kind, [rest @ .., folder])) if kind == "--handshakes" || kind == "--resumed" => {
            let (address, time, count) = ends::arguments(rest)?;
            tls::handshakes(address, time, count, Path::new(folder), kind == "--resumed")
        }
        _ => compare(),
    }
}

fn compare() -> anyhow::Result<()> {
    let (mut child, backend) = start_backend()?;
    let results = measure(backend, child.id());
    child.kill()?;
    child.wait()?;
    let results = results?;
    let folder = peers::repository().join("bench-results");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("proxy.json"), serde_json::to_string_pretty(&results)?)?;
    let mut table = report::table(&results)?;
    if workload::is_noise_allowed() {
        table.insert_str(0, "Noise was allowed: these figures say nothing.\n\n");
    }
    std::fs::write(folder.join("proxy.md"), &table)?;
    print!("{table}");
    Ok(())
}

/// The backend is a process of its own, so that it can be pinned.
fn start_backend() -> anyhow::Result<(Child, Backend)> {
    let mut command = machine::pinned(1, &std::env::current_exe()?);
    let mut child = command.arg("--backend").stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("piped")?;
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    let (http, source) = line.trim().split_once(' ').context("two ports")?;
    Ok((child, Backend { http: http.parse()?, source: source.parse()? }))
}

fn measure(backend: Backend, backend_pid: u32) -> anyhow::Result<Results> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let rounds = std::env::var("BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    let mut results = Results::default();
    let peers = Peer::all()?;
    for peer in &peers {
        eprintln!("memory: {}", peer.name());
        results.memory.insert(peer.name(), memory(*peer, backend)?);
    }
    let (pair, single): (Vec<_>, Vec<_>) =
        workloads().into_iter().partition(|workload| workload.is_of_pair());
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for peer in &peers {
            if !single.is_empty() {
                let running = peer.start(backend, VIRTUAL_HOSTS)?;
                samples(*peer, &running, &single, &runtime, backend_pid, &mut results)?;
                let peak = running.memory_kib("VmHWM:")?;
                if let Some(memory) = results.memory.get_mut(peer.name()) {
                    memory.peak_kib = memory.peak_kib.max(peak);
                }
            }
            if !pair.is_empty() {
                let running = peer.start_pair(backend)?;
                samples(*peer, &running, &pair, &runtime, backend_pid, &mut results)?;
                let peak = running.memory_kib("VmHWM:")?;
                if let Some(memory) = results.memory.get_mut(peer.name()) {
                    memory.pair_peak_kib = memory.pair_peak_kib.max(peak);
                }
            }
        }
    }
    Ok(results)
}

/// Takes a sample of every workload that the peer can do.
fn samples(
    peer: Peer,
    running: &Running,
    workloads: &[Workload],
    runtime: &tokio::runtime::Runtime,
    backend_pid: u32,
    results: &mut Results,
) -> anyhow::Result<()> {
    for workload in workloads.iter().filter(|workload| workload.is_for(peer)) {
        eprintln!("{}: {}", peer.name(), workload.title());
        let sample = workload.measure(runtime, running, backend_pid)?;
        eprintln!("  {:.0} per CPU-second", sample.per_cpu_s);
        let by_peer = results.samples.entry(workload.title().to_owned()).or_default();
        by_peer.entry(peer.name()).or_default().push(sample);
    }
    Ok(())
}

fn workloads() -> Vec<Workload> {
    let wanted = std::env::var("BENCH_WORKLOADS").unwrap_or_default().to_lowercase();
    let is_wanted = |workload: &Workload| {
        let name = format!("{workload:?}").to_lowercase();
        wanted.is_empty() || wanted.split(',').any(|part| part == name)
    };
    Workload::ALL.into_iter().filter(is_wanted).collect()
}

/// A fresh proxy with few routes, alone and then with idle connections that have served a request each; a fresh pair with
/// idle TLS connections.
fn memory(peer: Peer, backend: Backend) -> anyhow::Result<Memory> {
    let running = peer.start(backend, 1)?;
    let idle_kib = running.memory_kib("VmRSS:")?;
    let idle_private_kib = running.memory_kib("RssAnon:")?;
    let address = running.address("http1");
    let connections: Vec<TcpStream> =
        (0..IDLE_CONNECTIONS).map(|_| ends::one_request(address)).collect::<Result<_, _>>()?;
    let held_kib = running.memory_kib("VmRSS:")?;
    drop(connections);
    drop(running);
    let pair = peer.start_pair(backend)?;
    let fresh_kib = pair.memory_kib("VmRSS:")?;
    let connections = tls::idle_connections(pair.address("edge"), IDLE_TLS_CONNECTIONS, pair.folder())?;
    let tls_kib = pair.memory_kib("VmRSS:")?;
    drop(connections);
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let (each, each_tls) = (
        (held_kib - idle_kib) / IDLE_CONNECTIONS as f64,
        (tls_kib - fresh_kib) / IDLE_TLS_CONNECTIONS as f64,
    );
    Ok(Memory {
        idle_kib,
        idle_private_kib,
        kib_per_idle_connection: each,
        idle_connections: IDLE_CONNECTIONS,
        kib_per_idle_tls_connection: each_tls,
        peak_kib: held_kib,
        pair_peak_kib: tls_kib,
    })
}
