//! What is measured: the workloads, and one measurement of one proxy.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use meltemi_e2e::mesh::Load;
use serde::Serialize;

use crate::machine;
use crate::peer::{Peer, Running};

/// Saturation time per measurement, after a second of warm-up.
const SATURATION: Duration = Duration::from_secs(4);
/// The fixed rate, and for how long.
const FIXED_RATE: u32 = 4000;
const FIXED_TIME: Duration = Duration::from_secs(5);
/// Share of both CPUs that others may use while we measure.
const FOREIGN_LIMIT: f64 = 0.06;
/// How often a disturbed measurement is repeated before the run is given up.
const ATTEMPTS: usize = 4;

/// A kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Workload {
    /// 1 KiB answers, 64 keep-alive connections.
    Http1,
    /// The same through 1,000 virtual hosts of 10 routes.
    Routes,
    /// 1 MiB answers, 8 connections.
    Large,
    /// 1 KiB answers, 10 connections of 10 streams.
    Http2,
    /// gRPC unary calls, 10 connections of 10 streams.
    Grpc,
    /// TCP, one direction, 4 connections.
    Bulk,
    /// A connection per request, 32 at a time.
    Churn,
    /// 1 KiB answers through two proxies with mutual TLS between them, 64 connections.
    PairHttp1,
    /// The same with HTTP/2 between the proxies.
    PairHttp2,
    /// A TLS handshake per request, 8 at a time.
    Handshake,
    /// The same with resumed sessions.
    Resumption,
}

/// One measurement of one proxy.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    /// Requests (bulk: MiB) per second.
    pub(crate) per_s: f64,
    /// Requests (bulk: MiB) per second of the proxy's CPU time.
    pub(crate) per_cpu_s: f64,
    /// Latency at the fixed rate in µs: p50, p99, p99.9.
    pub(crate) latency_us: Option<[f64; 3]>,
    /// Share of both CPUs used by others while saturated.
    pub(crate) foreign_cpu: f64,
}

impl Workload {
    pub(crate) const ALL: [Workload; 11] = [
        Workload::Http1,
        Workload::Routes,
        Workload::Large,
        Workload::Http2,
        Workload::Grpc,
        Workload::Bulk,
        Workload::Churn,
        Workload::PairHttp1,
        Workload::PairHttp2,
        Workload::Handshake,
        Workload::Resumption,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Workload::Http1 => "HTTP/1.1, 1 KiB",
            Workload::Routes => "HTTP/1.1, 1,000 virtual hosts × 10 routes",
            Workload::Large => "HTTP/1.1, 1 MiB",
            Workload::Http2 => "HTTP/2, 1 KiB",
            Workload::Grpc => "gRPC unary, 100 bytes",
            Workload::Bulk => "TCP, bulk (MiB)",
            Workload::Churn => "HTTP/1.1, one request per connection",
            Workload::PairHttp1 => "Pair with mutual TLS over HTTP/1.1, 1 KiB",
            Workload::PairHttp2 => "Pair with mutual TLS over HTTP/2, 1 KiB",
            Workload::Handshake => "TLS handshake and request per connection",
            Workload::Resumption => "Resumed TLS handshake and request per connection",
        }
    }

    /// Whether it is measured on a pair of proxies with TLS.
    pub(crate) fn is_of_pair(self) -> bool {
        use Workload::{Handshake, PairHttp1, PairHttp2, Resumption};
        matches!(self, PairHttp1 | PairHttp2 | Handshake | Resumption)
    }

    /// Whether the peer's configuration here can do it.
    pub(crate) fn is_for(self, peer: Peer) -> bool {
        match self {
            Workload::Routes => matches!(peer, Peer::Envoy | Peer::Meltemi),
            // nginx opens an upstream connection per gRPC call here, and fails some of them.
            // Its proxied side has no other HTTP/2.
            Workload::Bulk | Workload::Grpc | Workload::PairHttp2 => peer != Peer::Nginx,
            _ => true,
        }
    }

    /// Measures until nothing else disturbs.
    pub(crate) fn measure(
        self,
        runtime: &tokio::runtime::Runtime,
        running: &Running,
        backend_pid: u32,
    ) -> anyhow::Result<Sample> {
        self.saturate(running, Duration::from_secs(1))?;
        let mut worst: f64 = 0.0;
        for _ in 0..ATTEMPTS {
            let mut sample = self.saturation(running, backend_pid)?;
            if sample.foreign_cpu <= FOREIGN_LIMIT || is_noise_allowed() {
                sample.latency_us = self.latency(runtime, running)?;
                return Ok(sample);
            }
            worst = worst.max(sample.foreign_cpu);
            eprintln!("  disturbed: others used {:.0} % of the CPUs; again", sample.foreign_cpu * 100.0);
        }
        anyhow::bail!("other load took up to {:.0} % of the CPUs: no figures from this run", worst * 100.0)
    }

    fn saturation(self, running: &Running, backend_pid: u32) -> anyhow::Result<Sample> {
        let ours = || anyhow::Ok(machine::own_seconds()? + machine::process_seconds(backend_pid)?);
        let (cpu, rest, busy) = (running.cpu_seconds()?, ours()?, machine::busy_seconds()?);
        let start = Instant::now();
        let done = self.saturate(running, SATURATION)?;
        let elapsed = start.elapsed().as_secs_f64();
        let used = running.cpu_seconds()? - cpu;
        let foreign = machine::busy_seconds()? - busy - used - (ours()? - rest);
        Ok(Sample {
            per_s: done / elapsed,
            per_cpu_s: done / used,
            latency_us: None,
            foreign_cpu: (foreign / elapsed / 2.0).max(0.0),
        })
    }

    /// As much traffic as the proxy takes; gives the number of good answers, or MiB.
    fn saturate(self, running: &Running, time: Duration) -> anyhow::Result<f64> {
        match self {
            Workload::Http1 => h2load(&url(running.address("http1"), "/"), time, &["--h1", "-c", "64"]),
            Workload::Routes => {
                let url = url(running.address("routes"), "/prefix/9/item");
                h2load(&url, time, &["--h1", "-c", "64", "-H", ":authority: host-999.example"])
            }
            Workload::Large => h2load(&url(running.address("http1"), "/large"), time, &["--h1", "-c", "8"]),
            Workload::Http2 => h2load(&url(running.address("http2"), "/"), time, &["-c", "10", "-m", "10"]),
            Workload::Grpc => grpc(&url(running.address("http2"), "/grpc/call"), time),
            Workload::Bulk => {
                Ok(generator("--sink", running.address("tcp"), time, 4, None)? / f64::from(1 << 20))
            }
            Workload::Churn => generator("--churn", running.address("http1"), time, 32, None),
            Workload::PairHttp1 => h2load(&url(running.address("plain1"), "/"), time, &["--h1", "-c", "64"]),
            Workload::PairHttp2 => h2load(&url(running.address("plain2"), "/"), time, &["--h1", "-c", "64"]),
            Workload::Handshake => {
                generator("--handshakes", running.address("edge"), time, 8, Some(running.folder()))
            }
            Workload::Resumption => {
                generator("--resumed", running.address("edge"), time, 8, Some(running.folder()))
            }
        }
    }

    /// Latency at the fixed rate, for the workloads of small messages.
    fn latency(
        self,
        runtime: &tokio::runtime::Runtime,
        running: &Running,
    ) -> anyhow::Result<Option<[f64; 3]>> {
        let (listener, options): (&str, &[&str]) = match self {
            Workload::Http1 => ("http1", &[]),
            Workload::Http2 => ("http2", &["--http2"]),
            Workload::PairHttp1 => ("plain1", &[]),
            Workload::PairHttp2 => ("plain2", &[]),
            _ => return Ok(None),
        };
        let target = url(running.address(listener), "/");
        let report = runtime
            .block_on(async { Load::start(&target, FIXED_RATE, FIXED_TIME, options)?.report().await })?;
        anyhow::ensure!(report.failed() == 0, "the fixed rate failed requests: {report:?}");
        let quantile = |name: &str| report.0["latency_ms"][name].as_f64().map(|ms| ms * 1000.0);
        let missing = || format!("latencies in {report:?}");
        Ok(Some([
            quantile("p50").with_context(missing)?,
            quantile("p99").with_context(missing)?,
            quantile("p999").with_context(missing)?,
        ]))
    }
}

/// `BENCH_ALLOW_NOISE=1`: figures for whoever works on the benchmark itself; the report says so.
pub(crate) fn is_noise_allowed() -> bool {
    std::env::var_os("BENCH_ALLOW_NOISE").is_some()
}

fn url(address: SocketAddr, path: &str) -> String {
    format!("http://{address}{path}")
}

fn grpc(url: &str, time: Duration) -> anyhow::Result<f64> {
    let message = tempfile::NamedTempFile::new()?;
    std::fs::write(message.path(), crate::ends::grpc_message())?;
    let path = message.path().display().to_string();
    let headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"];
    h2load(url, time, &[&["-c", "10", "-m", "10", "-d", &path][..], &headers].concat())
}

/// Runs h2load; gives the number of 2xx answers. Any other answer fails the run.
fn h2load(url: &str, time: Duration, options: &[&str]) -> anyhow::Result<f64> {
    let mut command = machine::pinned(1, Path::new("h2load"));
    command.args(["-t", "1", "-D", &time.as_secs().to_string()]).args(options).arg(url);
    let output = command.output().context("h2load (package nghttp2-client)")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with("status codes:")).with_context(|| text.clone())?;
    let counts: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [good, bad @ ..] = counts.as_slice() else { anyhow::bail!("{line}") };
    anyhow::ensure!(*good > 0.0 && bad.iter().sum::<f64>() == 0.0, "{url}: {line}");
    Ok(*good)
}

fn generator(
    kind: &str,
    address: SocketAddr,
    time: Duration,
    count: usize,
    folder: Option<&Path>,
) -> anyhow::Result<f64> {
    let mut command = machine::pinned(1, &std::env::current_exe()?);
    command.args([kind, &address.to_string(), &time.as_secs_f64().to_string(), &count.to_string()]);
    command.args(folder);
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let done: f64 =
        text.trim().parse().with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    anyhow::ensure!(done > 0.0, "nothing came through {address}");
    Ok(done)
}
