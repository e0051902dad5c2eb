//! `meltemi agent`: an agent as a process of its own, beside a stock Envoy or a program that wants an identity.

use std::ffi::OsString;
use std::process::{ExitCode, ExitStatus, Stdio};

use anyhow::Context;
use clap::Args;
use meltemi_runtime::logging::{self, Level};
use meltemi_runtime::signal::Shutdown;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::{Agent, AgentArgs, DrainArgs};

/// Give a workload its identity: certificates for a stock Envoy or for programs.
///
/// Makes the private key, gets certificates and renews them, and serves them as Envoy SDS and as the SPIFFE Workload API
/// on DIR/sds.sock; connections to DIR/xds.sock reach the control plane over TLS with the certificate. `meltemi proxy`
/// takes the same options and needs no agent beside it.
#[derive(Debug, Args)]
pub struct AgentCommand {
    /// Who the workload is, and who vouches for it.
    #[command(flatten)]
    pub agent: AgentArgs,

    /// Log level: trace, debug, info, warning, error, critical or off.
    #[arg(short = 'l', long, value_name = "LEVEL", default_value = "info")]
    pub log_level: Level,

    /// How the command is ended.
    #[command(flatten)]
    pub drain: DrainArgs,

    /// A command to run beside the agent, which ends with it: `envoy -c bootstrap.json`.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Runs until asked to stop, or until the command ends; then the exit code is the command's.
///
/// # Errors
/// If a socket cannot be bound, the command cannot be started, or no certificate can be had any more.
pub fn run(command: AgentCommand) -> anyhow::Result<ExitCode> {
    logging::init(command.log_level).context("set up logs")?;
    let spec = command.agent.spec()?.context("--identity is required")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut shutdown = Shutdown::listen().context("install signal handlers")?;
        let mut agent = Agent::start(spec)?;
        let mut child = start(&command.command)?;
        let error = tokio::select! {
            cause = shutdown.requested() => {
                tracing::info!(%cause, "ending");
                drained(&command.drain, &mut shutdown, &mut child).await;
                None
            }
            status = ended(&mut child) => return Ok(exit_code(status?)),
            error = agent.hopeless() => Some(error),
        };
        let code = stop(child).await?;
        match error {
            None => Ok(code),
            Some(error) => anyhow::bail!("no certificate can be had: {error}"),
        }
    })
}

/// Lets running requests end. A second signal, or the end of the command, ends the wait.
async fn drained(drain: &DrainArgs, shutdown: &mut Shutdown, child: &mut Option<Child>) {
    if child.is_none() {
        return;
    }
    let wait = async { tokio::time::sleep(drain.begin().await).await };
    tokio::select! {
        () = wait => {}
        cause = shutdown.requested() => tracing::info!(%cause, "not waiting for the drain"),
        // It is reaped by whoever waits for it next.
        _ended = ended(child) => {}
    }
}

fn start(command: &[OsString]) -> anyhow::Result<Option<Child>> {
    let Some((program, arguments)) = command.split_first() else { return Ok(None) };
    let child = Command::new(program).args(arguments).stdin(Stdio::null()).spawn();
    child.map(Some).with_context(|| format!("start {}", program.display()))
}

async fn ended(child: &mut Option<Child>) -> anyhow::Result<ExitStatus> {
    match child {
        Some(child) => child.wait().await.context("wait for the command"),
        None => std::future::pending().await,
    }
}

/// Asks the command to end, and waits: it drains as it sees fit, and a second signal to it is for who is impatient.
async fn stop(child: Option<Child>) -> anyhow::Result<ExitCode> {
    let Some(mut child) = child else { return Ok(ExitCode::SUCCESS) };
    if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)) {
        // Refused only when it has ended already.
        let _ = kill_process(pid, Signal::TERM);
    }
    child.wait().await.map(exit_code).context("wait for the command")
}

fn exit_code(status: ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
