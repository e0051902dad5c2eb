//! `meltemi explain`: what happens to a request, without sending it.

mod batch;
pub(crate) mod question;
mod text;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use meltemi_api::{Change, render};
use meltemi_explain::{Journey, Mesh};
use meltemi_sources::files;

use crate::output::{Format, Outcome, conclude};

/// Say what happens to a request, without sending it
#[derive(Debug, Args)]
#[command(
    long_about = "Say what happens to a request, without sending it.\n\n\
        The files go through the same translation as in the control plane and the request through the same decisions \
        as in the proxy, without any socket. For every proxy on the way: the listener, the filter chain, the virtual \
        host, the route, the cluster and the endpoints with their chances, what is done on the way (timeouts, \
        retries, rewrites, faults, mirrors), the file, line and field that decided, and why the routes before it were \
        passed by. Deployments need not run: their replicas are thought of.",
    after_help = "Examples:\n  \
        meltemi explain -f examples/shop --from frontend --request 'GET http://recommendation:8080/'\n  \
        meltemi explain -f shop.yaml --from reviews-v1 -H 'end-user: jason' --request http://ratings:9080/\n  \
        meltemi explain -f examples/shop --from gateway/shop-gateway --request 'GET http://shop.localhost:8080/'\n  \
        meltemi explain --batch questions.jsonl     one JSON object per line in, one per line out\n\n\
        Exit code: 0 when the request gets to somebody or is answered on purpose, 1 when it reaches nobody, 2 when \
        the question cannot be answered."
)]
pub struct ExplainArgs {
    /// Files and directories with the configuration
    #[arg(short = 'f', long = "file", value_name = "PATH", required_unless_present = "batch")]
    pub files: Vec<PathBuf>,

    /// Who sends it: a Deployment (`reviews-v1`, `reviews-v1.shop`), or `gateway/NAME` for a request from outside
    #[arg(long, value_name = "WORKLOAD", required_unless_present = "batch")]
    pub from: Option<String>,

    /// The request: a URL, with a method before it if it is not GET; `tcp://HOST:PORT` for a connection
    #[arg(long, value_name = "[METHOD] URL", required_unless_present = "batch")]
    pub request: Option<String>,

    /// A header of the request
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,

    /// The client speaks HTTP/2 from the start, as gRPC does
    #[arg(long)]
    pub http2: bool,

    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,

    /// Answer questions from a file, or `-` for standard input: one JSON object per line in, one per line out
    #[arg(long, value_name = "FILE", conflicts_with_all = ["files", "from", "request", "headers", "http2"])]
    pub batch: Option<PathBuf>,
}

/// Explains one request, or a batch of questions.
///
/// # Errors
/// Never; what is wrong goes to standard error.
pub fn explain(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    Ok(conclude(run(args)))
}

fn run(args: &ExplainArgs) -> anyhow::Result<Outcome> {
    if let Some(file) = &args.batch {
        batch::run(file)?;
        return Ok(Outcome::Fine);
    }
    let journey = journey(args)?;
    print(&journey, args.output)?;
    Ok(if journey.arrives() { Outcome::Fine } else { Outcome::Finding })
}

fn journey(args: &ExplainArgs) -> anyhow::Result<Journey> {
    let text = args.request.as_deref().context("--request is missing")?;
    let request = question::request(text, &args.headers, args.http2)?;
    let from = args.from.as_deref().context("--from is missing")?;
    mesh(&args.files)?.follow(from, &request).map_err(anyhow::Error::msg)
}

/// The mesh of files, with the replicas that its Deployments would have. What is wrong with objects goes to standard error:
/// they are not in force, and an answer without them may surprise.
///
/// # Errors
/// If a file cannot be read, or there is none.
pub(crate) fn mesh(paths: &[PathBuf]) -> anyhow::Result<Mesh> {
    let batch = files::load(paths)?;
    anyhow::ensure!(!batch.sources.is_empty(), "there is no file to read (*.yaml, *.yml, *.json)");
    let objects = batch.changes.into_iter().filter_map(|change| match change {
        Change::Put(object) => Some(object),
        Change::Delete(_) | Change::Synced(_) | Change::Lost(..) => None,
    });
    let objects: Vec<_> = objects.collect();
    for wrong in batch.diagnostics.iter().filter(|diagnostic| diagnostic.is_error()) {
        let source = wrong.location.as_ref().and_then(|location| batch.sources.get(&location.file));
        anstream::eprintln!("{}\n", render(wrong, source.map_or("", |text| text), true));
    }
    Ok(Mesh::with_replicas(objects, batch.diagnostics))
}

fn print(journey: &Journey, format: Format) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    match format {
        Format::Table => text::write(journey, &mut out)?,
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(journey)?)?,
        Format::Yaml => write!(out, "{}", serde_saphyr::to_string(&serde_json::to_value(journey)?)?)?,
    }
    io::Write::flush(&mut out)?;
    Ok(())
}
