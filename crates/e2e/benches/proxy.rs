//! Our proxy beside Envoy, in the same run, on the same bootstrap: requests per CPU-second at saturation, latency
//! at a fixed rate, resident memory idle and with idle connections. Prints ratios; writes `bench-results/`.
//!
//! `scripts/bench` builds everything and runs this. One worker each, pinned to CPU 0; backend and generators share
//! CPU 1. Saturation comes from h2load (package nghttp2-client), the fixed rate from `meltemi load` (open loop).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use meltemi_e2e::backend::Backend;
use meltemi_e2e::differential::{Proxy, Running, start};
use meltemi_e2e::mesh::{Load, Report};
use meltemi_e2e::peers;
use serde::Serialize;

/// Rounds, alternating between the proxies; the table shows medians.
const ROUNDS: usize = 3;
/// Saturation time per measurement.
const SATURATION: Duration = Duration::from_secs(5);
/// The fixed rate, and for how long.
const FIXED_RATE: u32 = 4000;
const FIXED_TIME: Duration = Duration::from_secs(5);
/// Idle keep-alive connections for the memory figure.
const IDLE_CONNECTIONS: usize = 1000;

/// One measurement of one proxy.
#[derive(Debug, Clone, Serialize)]
struct Sample {
    requests_per_s: f64,
    requests_per_cpu_s: f64,
    p50_us: f64,
    p99_us: f64,
    /// Share of both CPUs used by others while saturated: above 0.1 the round is dirty.
    foreign_cpu: f64,
}

#[derive(Debug, Serialize)]
struct Memory {
    idle_kib: u64,
    /// Without the pages of the executable and other files, which processes share.
    idle_private_kib: u64,
    kib_per_idle_connection: f64,
}

#[derive(Debug, Default, Serialize)]
struct Results {
    http1: BTreeMap<String, Vec<Sample>>,
    http2: BTreeMap<String, Vec<Sample>>,
    memory: BTreeMap<String, Memory>,
}

fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("--backend") {
        return backend();
    }
    let dir = tempfile::tempdir()?;
    let (mut child, backend_port) = start_backend()?;
    let results = measure(dir.path(), backend_port);
    child.kill()?;
    child.wait()?;
    report(&results?)
}

/// The 1 KiB backend, a process of its own so that it can be pinned.
fn backend() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let backend = Backend::quiet("bench").await?;
        println!("{}", backend.address.port());
        std::future::pending::<()>().await;
        Ok(())
    })
}

fn start_backend() -> anyhow::Result<(std::process::Child, u16)> {
    let mut command = pinned(1, &std::env::current_exe()?);
    let mut child = command.arg("--backend").stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    let stdout = child.stdout.take().context("piped")?;
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    Ok((child, line.trim().parse()?))
}

/// `taskset -c CPU program`.
fn pinned(cpu: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &cpu.to_string()]).arg(program);
    command
}

fn measure(dir: &Path, backend_port: u16) -> anyhow::Result<Results> {
    let proxies = proxies()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut results = Results::default();
    for (name, proxy) in &proxies {
        let running = runtime.block_on(run(proxy, dir, backend_port))?;
        results.memory.insert(name.clone(), memory(&running)?);
    }
    for round in 0..ROUNDS {
        for (name, proxy) in &proxies {
            for http2 in [false, true] {
                eprintln!(
                    "round {} of {ROUNDS}: {name}, HTTP/{}",
                    round + 1,
                    if http2 { "2" } else { "1.1" }
                );
                let running = runtime.block_on(run(proxy, dir, backend_port))?;
                let sample = runtime.block_on(sample(&running, http2))?;
                let table = if http2 { &mut results.http2 } else { &mut results.http1 };
                table.entry(name.clone()).or_default().push(sample);
            }
        }
    }
    Ok(results)
}

/// Ours, and Envoy. The wrapper pins what it starts.
fn proxies() -> anyhow::Result<Vec<(String, Proxy)>> {
    let envoy = peers::envoy().context("Envoy is needed: scripts/peers")?;
    Ok(vec![
        ("envoy".to_owned(), Proxy::Envoy(envoy)),
        ("meltemi".to_owned(), Proxy::Meltemi(peers::meltemi())),
    ])
}

async fn run(proxy: &Proxy, dir: &Path, backend_port: u16) -> anyhow::Result<Running> {
    let bootstrap = dir.join("bootstrap.yaml");
    let template = peers::repository().join("crates/e2e/benches/proxy.yaml");
    let text = std::fs::read_to_string(template)?.replace("${backend}", &backend_port.to_string());
    std::fs::write(&bootstrap, text)?;
    let _stale = std::fs::remove_file(dir.join("admin-address"));
    let running = start(proxy, &bootstrap, dir).await?;
    let pin =
        Command::new("taskset").args(["-a", "-c", "-p", "0", &running.process.pid().to_string()]).output()?;
    anyhow::ensure!(pin.status.success(), "taskset: {}", String::from_utf8_lossy(&pin.stderr));
    Ok(running)
}

async fn sample(running: &Running, http2: bool) -> anyhow::Result<Sample> {
    let listener = if http2 { "http2" } else { "http1" };
    let url = format!("http://{}/", running.listeners[listener]);
    let pid = running.process.pid();
    saturate(&url, http2, Duration::from_secs(1))?;
    let (cpu, busy, start) = (cpu_seconds(pid)?, busy_seconds()?, Instant::now());
    let done = saturate(&url, http2, SATURATION)?;
    let (elapsed, used) = (start.elapsed().as_secs_f64(), cpu_seconds(pid)? - cpu);
    let foreign = (busy_seconds()? - busy - used) / elapsed - 1.0;
    let options: &[&str] = if http2 { &["--http2"] } else { &[] };
    let report = Load::start(&url, FIXED_RATE, FIXED_TIME, options)?.report().await?;
    anyhow::ensure!(report.failed() == 0, "the fixed rate failed requests: {report:?}");
    Ok(Sample {
        requests_per_s: done / elapsed,
        requests_per_cpu_s: done / used,
        p50_us: latency(&report, "p50")?,
        p99_us: latency(&report, "p99")?,
        foreign_cpu: foreign.max(0.0),
    })
}

fn latency(report: &Report, quantile: &str) -> anyhow::Result<f64> {
    let ms = report.0["latency_ms"][quantile].as_f64();
    Ok(ms.with_context(|| format!("no latency_ms.{quantile} in {report:?}"))? * 1000.0)
}

/// Runs h2load as fast as the proxy answers; gives the number of good answers.
fn saturate(url: &str, http2: bool, time: Duration) -> anyhow::Result<f64> {
    let mut command = pinned(1, Path::new("h2load"));
    command.args(["-t", "1", "-D", &time.as_secs().to_string()]);
    command.args(if http2 { &["-c", "10", "-m", "10"][..] } else { &["--h1", "-c", "64"][..] });
    let output = command.arg(url).output().context("h2load (package nghttp2-client)")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with("status codes:")).with_context(|| text.clone())?;
    let good = line.split_whitespace().nth(2).with_context(|| line.to_owned())?;
    Ok(good.parse()?)
}

/// CPU time of all threads of a process, by the scheduler's own account.
fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += text.split_whitespace().next().context("schedstat")?.parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}

/// CPU time of the whole machine that was not idle.
fn busy_seconds() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let fields: Vec<f64> = text
        .lines()
        .next()
        .context("cpu line")?
        .split_whitespace()
        .skip(1)
        .filter_map(|f| f.parse().ok())
        .collect();
    let idle = fields.get(3).copied().unwrap_or_default() + fields.get(4).copied().unwrap_or_default();
    Ok((fields.iter().take(8).sum::<f64>() - idle) / 100.0)
}

fn memory(running: &Running) -> anyhow::Result<Memory> {
    let pid = running.process.pid();
    let (idle_kib, idle_private_kib) = (resident_kib(pid, "VmRSS:")?, resident_kib(pid, "RssAnon:")?);
    let connections = (0..IDLE_CONNECTIONS).map(|_| one_request(running.listeners["http1"]));
    let connections: Vec<TcpStream> = connections.collect::<Result<_, _>>()?;
    let held_kib = resident_kib(pid, "VmRSS:")?;
    drop(connections);
    #[expect(clippy::cast_precision_loss, reason = "sizes are small")]
    let each = held_kib.saturating_sub(idle_kib) as f64 / IDLE_CONNECTIONS as f64;
    Ok(Memory { idle_kib, idle_private_kib, kib_per_idle_connection: each })
}

/// A keep-alive connection that has served one request.
fn one_request(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")?;
    let (mut buffer, mut got) = ([0; 4096], 0);
    while got < 1024 {
        got += stream.read(&mut buffer)?;
    }
    Ok(stream)
}

fn resident_kib(pid: u32, field: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(field)).context("no such field")?;
    Ok(line.split_whitespace().nth(1).context("no value")?.parse()?)
}

fn report(results: &Results) -> anyhow::Result<()> {
    let folder: PathBuf = peers::repository().join("bench-results");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("proxy.json"), serde_json::to_string_pretty(results)?)?;
    let text = table(results)?;
    std::fs::write(folder.join("proxy.md"), &text)?;
    print!("{text}");
    Ok(())
}

/// A figure and how to read it.
type Column = (&'static str, fn(&Sample) -> f64);

fn table(results: &Results) -> anyhow::Result<String> {
    let mut text = String::from("| figure | envoy | meltemi | ratio |\n|---|---|---|---|\n");
    for (name, samples) in [("HTTP/1.1", &results.http1), ("HTTP/2", &results.http2)] {
        let columns: [Column; 5] = [
            ("requests per CPU-second", |s| s.requests_per_cpu_s),
            ("requests per second", |s| s.requests_per_s),
            ("p50 at 4,000/s, µs", |s| s.p50_us),
            ("p99 at 4,000/s, µs", |s| s.p99_us),
            ("foreign CPU share", |s| s.foreign_cpu),
        ];
        for (column, of) in columns {
            row(
                &mut text,
                &format!("{name}: {column}"),
                median(&samples["envoy"], of),
                median(&samples["meltemi"], of),
            )?;
        }
    }
    let (envoy, ours) = (&results.memory["envoy"], &results.memory["meltemi"]);
    #[expect(clippy::cast_precision_loss, reason = "sizes are small")]
    row(&mut text, "RSS idle, MiB", envoy.idle_kib as f64 / 1024.0, ours.idle_kib as f64 / 1024.0)?;
    #[expect(clippy::cast_precision_loss, reason = "sizes are small")]
    let private = |memory: &Memory| memory.idle_private_kib as f64 / 1024.0;
    row(&mut text, "RSS idle without shared file pages, MiB", private(envoy), private(ours))?;
    row(&mut text, "KiB per idle connection", envoy.kib_per_idle_connection, ours.kib_per_idle_connection)?;
    Ok(text)
}

fn row(text: &mut String, name: &str, envoy: f64, ours: f64) -> std::fmt::Result {
    let ratio = if envoy > 0.0 { format!("{:.2}", ours / envoy) } else { "–".to_owned() };
    writeln!(text, "| {name} | {envoy:.1} | {ours:.1} | {ratio} |")
}

fn median(samples: &[Sample], of: fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
