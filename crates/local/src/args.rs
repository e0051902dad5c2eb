//! The command line of `meltemi up`, and of the hidden process that cleans up after it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// How `up` reports what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line and event.
    Json,
}

/// Run the mesh of a directory on this machine.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  meltemi up examples/shop              run the example shop; its gateway listens on localhost:8080
  meltemi up . --bind 0.0.0.0           let other machines reach the gateways
  meltemi up . --proxy $(which envoy)   use a stock Envoy as sidecar and gateway

Every Deployment in the directory whose container has a `command` runs as local processes, each behind a proxy of its
own. A program gets $HOST and $PORT to listen on and reaches other services through $HTTP_PROXY, by their names.
Ctrl-C stops everything (exit code 0); a second Ctrl-C stops it at once.")]
pub struct UpArgs {
    /// Directory (or file) of Kubernetes and Istio manifests; watched while the mesh runs
    #[arg(default_value = ".", value_name = "DIR")]
    pub directory: PathBuf,
    /// Address on which gateway servers without a `bind` of their own listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub bind: IpAddr,
    /// Where logs and generated files go [default: $XDG_STATE_HOME/meltemi/<hash of DIR>]
    #[arg(long, value_name = "DIR", env = "MELTEMI_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Send proxies only what changed (the default)
    #[arg(long, conflicts_with = "sotw")]
    pub delta: bool,
    /// Send proxies every resource of a type each time (state of the world)
    #[arg(long)]
    pub sotw: bool,
    /// Put the files in force only when nothing in them is an error; until then the last good generation stays
    #[arg(long, visible_alias = "strict")]
    pub atomic: bool,
    /// How many generations are kept for `meltemi rollback`
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub keep_generations: u16,
    /// Use this Envoy binary as sidecar and gateway instead of `meltemi proxy`
    #[arg(long, value_name = "BINARY")]
    pub proxy: Option<PathBuf>,
    /// Worker threads of each proxy
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub concurrency: u32,
    /// Seconds for which certificates of workloads are good; they are renewed at half of that
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u32).range(1..))]
    pub cert_ttl: u32,
    /// Log level of proxies and control plane
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
    /// What to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
    /// Seconds to wait for every replica before the table is printed anyway
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub wait_ready_timeout: Duration,
}

/// Clean up after an `up` that was killed: an internal process, started by `up`.
#[derive(Debug, Clone, Args)]
pub struct ReaperArgs {
    /// The mark that every process of the mesh carries in its environment
    pub mesh: String,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
