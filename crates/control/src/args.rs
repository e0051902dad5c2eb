//! The command line of `meltemi control-plane`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// Serve the mesh of a directory to its proxies, as Envoy xDS.
///
/// Reads Istio and Kubernetes objects from YAML, reads them again whenever a file changes, and pushes Envoy
/// configuration (LDS, RDS, CDS, EDS over ADS) to every proxy that connects. What is wrong with the files is
/// printed with an excerpt; the last good version of a broken object stays in force. `meltemi up` starts a
/// control plane itself.
#[derive(Debug, Clone, Args)]
pub struct ControlPlaneArgs {
    /// Directory (or file) of YAML or JSON objects, read recursively and watched. May be given several times.
    #[arg(long, value_name = "DIR", required = true)]
    pub config: Vec<PathBuf>,

    /// File of objects that another process maintains (`meltemi up` writes its replicas there); watched, and
    /// may appear later. May be given several times.
    #[arg(long, value_name = "FILE")]
    pub state: Vec<PathBuf>,

    /// Where proxies connect: ADS, plaintext gRPC, state of the world and delta.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:15010")]
    pub xds_address: SocketAddr,

    /// Where /ready, /metrics and /debug are served.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:15014")]
    pub admin_address: SocketAddr,

    /// Where proxies write their access log; no access log without it.
    #[arg(long, value_name = "PATH")]
    pub access_log_file: Option<String>,

    /// Refuse a whole generation if anything in it is an error, instead of leaving out what is broken.
    #[arg(long)]
    pub strict: bool,

    /// Log level: trace, debug, info, warning, error, critical or off.
    #[arg(short = 'l', long, value_name = "LEVEL", default_value = "info")]
    pub log_level: meltemi_runtime::logging::Level,

    /// Colour what is printed even when standard output is not a terminal.
    #[arg(long, env = "FORCE_COLOR", hide = true, default_value = "", hide_default_value = true)]
    pub force_color: String,
}
