//! `meltemi load`: the open-loop load generator.
//!
//! Owns the command line and the run. A request has a time at which it should leave, whatever the answers before it did;
//! its latency counts from then, so a stalled server shows in every request that it delayed (no coordinated omission).

mod pace;
mod report;
mod tally;
mod worker;

use std::cell::RefCell;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, ensure};
use http::Method;
use http::header::{HOST, HeaderName, HeaderValue};
use indicatif::ProgressBar;
use meltemi_http::RequestHead;
use meltemi_runtime::signal::Shutdown;
use meltemi_runtime::task;
use tokio::time::Instant;

use self::pace::Pace;
use self::tally::Tally;
use self::worker::{Plan, Transport};
use crate::duration;
use crate::target::Target;

/// Connections, and streams on all of them, one generator keeps up with.
const WORKERS_MAX: usize = 10_000;

/// Send requests at a fixed rate and measure the answers.
///
/// Open loop: request n leaves at its time n / RATE, on the next free connection, and its latency counts from that time
/// even when no connection was free. With `--rate 0` the loop is closed: every connection sends its next request when the
/// last one was answered.
///
/// A request has failed when no complete response came. A connection that the server had already closed when it was used
/// again is replaced, and the request is sent once more; the report counts these as `resent`.
#[derive(Clone, Debug, clap::Args)]
pub struct LoadArgs {
    /// Where to send the requests: http://HOST[:PORT]/PATH.
    pub url: String,
    /// Requests per second over all connections; 0 sends as fast as answers come.
    #[arg(long, short, value_name = "N", default_value_t = 100.0, value_parser = rate)]
    pub rate: f64,
    /// How long to send.
    #[arg(long, short, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    pub duration: Duration,
    /// Connections.
    #[arg(long, short, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// Header `name: value`; repeat for several. `host` replaces the URL's.
    #[arg(long, short = 'H', value_name = "HEADER")]
    pub header: Vec<String>,
    /// Method.
    #[arg(long, short = 'X', default_value = "GET")]
    pub method: Method,
    /// Request body.
    #[arg(long, value_name = "TEXT")]
    pub body: Option<String>,
    /// Speak HTTP/2 with prior knowledge.
    #[arg(long)]
    pub http2: bool,
    /// Requests at once on each HTTP/2 connection.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub streams: u32,
    /// A request without a complete answer after this has failed.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = duration::parse)]
    pub timeout: Duration,
    /// Response header to count the values of.
    #[arg(long, value_name = "NAME", default_value = "x-echo-versions")]
    pub version_header: HeaderName,
    /// Form of the result.
    #[arg(long, short, default_value = "table")]
    pub output: Output,
    /// Exit with 1 when a request failed or was answered with a status of 500 or more.
    #[arg(long)]
    pub fail_on_error: bool,
}

/// The form of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs, as one object.
    Json,
}

/// Runs the load and prints the result. Blocks; builds its own runtime.
pub fn load(args: &LoadArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = tokio::task::LocalSet::new().block_on(&runtime, run(args))?;
    match args.output {
        Output::Table => anstream::println!("{}", report::table(&result)),
        Output::Json => anstream::println!("{}", report::json(&result)?),
    }
    let wrong = result.failed > 0 || result.server_errors > 0;
    Ok(if args.fail_on_error && wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

pub(crate) async fn run(args: &LoadArgs) -> anyhow::Result<report::Report> {
    let plan = Rc::new(plan(args)?);
    let tally = Rc::new(RefCell::new(Tally::new()?));
    let pace = Pace::new(args.rate, args.duration)?;
    let workers = workers(args)?;
    let started = Instant::now();
    let mut running = Vec::with_capacity(workers.len());
    for transport in workers {
        let work = worker::run(Rc::clone(&plan), transport, Rc::clone(&pace), Rc::clone(&tally));
        running.push(task::spawn_local("load worker", work));
    }
    let pacing = task::spawn_local("load pace", Rc::clone(&pace).run());
    let live = task::spawn_local("load live line", live(Rc::clone(&tally), args.duration, started));
    let mut shutdown = Shutdown::listen()?;
    tokio::select! {
        ended = futures::future::join_all(&mut running) => {
            for worker in ended {
                worker.context("the generator failed")?;
            }
        }
        _ = shutdown.requested() => pace.stop(),
    }
    drop((pacing, live, running));
    let elapsed = started.elapsed();
    Ok(report::Report::new(args, &tally.borrow(), elapsed, pace.unsent(elapsed)))
}

fn plan(args: &LoadArgs) -> anyhow::Result<Plan> {
    let target = Target::parse(&args.url)?;
    let mut request = RequestHead::new(args.method.clone(), target.path.clone());
    request.authority = Some(target.authority.clone());
    request.scheme = args.http2.then(|| "http".into());
    for header in &args.header {
        let (name, value) =
            header.split_once(':').with_context(|| format!("--header {header:?} has no colon"))?;
        let name: HeaderName = name.trim().parse().with_context(|| format!("--header {header:?}"))?;
        let value = HeaderValue::from_str(value.trim()).with_context(|| format!("--header {header:?}"))?;
        if name == HOST {
            request.authority = Some(value.to_str().context("--header host")?.into());
        } else {
            request.headers.append(name, value);
        }
    }
    let body = args.body.clone().map(bytes::Bytes::from);
    if let Some(body) = &body {
        request.headers.set(http::header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let version_header = args.version_header.clone();
    Ok(Plan { target, request, body, timeout: args.timeout, version_header })
}

/// One transport per request that can be in flight.
fn workers(args: &LoadArgs) -> anyhow::Result<Vec<Transport>> {
    let connections = usize::try_from(args.connections)?;
    if !args.http2 {
        return Ok((0..connections).map(|_| Transport::http1()).collect());
    }
    let streams = usize::try_from(args.streams)?;
    ensure!(connections * streams <= WORKERS_MAX, "more than {WORKERS_MAX} streams over all connections");
    let shared: Vec<Transport> = (0..connections).map(|_| Transport::http2()).collect();
    Ok((0..connections * streams).map(|index| shared[index % connections].share()).collect())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=1e7).contains(&rate) => Ok(rate),
        _ => Err("a number of requests per second, 0 to 10000000".into()),
    }
}

/// Shows once a second how it goes; only on terminals.
async fn live(tally: Rc<RefCell<Tally>>, duration: Duration, started: Instant) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let bar = ProgressBar::new_spinner();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut before = 0;
    loop {
        second.tick().await;
        let left = duration.saturating_sub(started.elapsed()).as_secs();
        let tally = tally.borrow();
        let done = tally.done();
        bar.set_message(format!("{} requests/s, {}, {left} s left", done - before, tally.line()));
        bar.tick();
        before = done;
    }
}
