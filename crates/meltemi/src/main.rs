//! The `meltemi` binary: the command line and the dispatch to the crate that does the work. Leaves out everything
//! else; every command brings its own arguments, its own runtime and its own meaning.

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

/// A service mesh in one binary: the Istio API, a control plane and a proxy that speak Envoy xDS.
#[derive(Debug, Parser)]
#[command(
    name = "meltemi",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  meltemi up examples/shop                       run a whole mesh on this machine
  meltemi validate examples/shop                 check manifests without running anything
  meltemi analyze examples/shop                  look for what is doubtful between them
  meltemi proxy-config secret frontend-v1-0      certificates and trust of one proxy
  meltemi diff before/ after/                    what would change for which proxies
  meltemi rollback                               the last generations of the mesh; serve an earlier one
  meltemi load http://localhost:8080/ --rate 100 --duration 10s
  meltemi proxy -c bootstrap.yaml --concurrency 2
  meltemi completion bash > ~/.local/share/bash-completion/completions/meltemi

`meltemi COMMAND --help` explains each command."
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(meltemi_local::UpArgs),
    Validate(meltemi_cli::ValidateArgs),
    Analyze(meltemi_cli::AnalyzeArgs),
    Explain(Box<meltemi_cli::ExplainArgs>),
    Test(meltemi_cli::TestArgs),
    ControlPlane(Box<meltemi_control::ControlPlaneArgs>),
    Proxy(Box<ProxyCommand>),
    Agent(Box<meltemi_agent::AgentCommand>),
    /// Look at certificates, issue them, and change the root of a mesh
    #[command(subcommand)]
    Cert(CertCommand),
    /// Look at what one proxy has in force, ours or an Envoy
    #[command(subcommand, visible_alias = "pc")]
    ProxyConfig(meltemi_cli::ProxyConfigCommand),
    #[command(visible_alias = "ps")]
    ProxyStatus(meltemi_cli::ProxyStatusArgs),
    Get(meltemi_cli::GetArgs),
    Describe(meltemi_cli::DescribeArgs),
    Diff(meltemi_cli::DiffArgs),
    Rollback(meltemi_cli::RollbackArgs),
    Echo(meltemi_traffic::EchoArgs),
    Load(meltemi_traffic::LoadArgs),
    /// Print the completion script of a shell
    Completion {
        /// Which shell
        shell: Shell,
    },
    #[command(hide = true)]
    Reaper(meltemi_local::ReaperArgs),
}

#[derive(Debug, Subcommand)]
enum CertCommand {
    Inspect(meltemi_cli::InspectArgs),
    Issue(meltemi_control::IssueArgs),
    RotateRoot(meltemi_control::RotateRootArgs),
}

/// A proxy, and with --identity the agent that gets its certificates.
#[derive(Debug, clap::Args)]
struct ProxyCommand {
    #[command(flatten)]
    proxy: meltemi_proxy::ProxyArgs,
    #[command(flatten)]
    agent: meltemi_agent::AgentArgs,
}

fn main() -> ExitCode {
    match dispatch(CommandLine::parse().command) {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(args) => meltemi_local::up(args),
        Command::Validate(args) => meltemi_cli::validate(&args),
        Command::Analyze(args) => meltemi_cli::analyze(&args),
        Command::Explain(args) => meltemi_cli::explain(&args),
        Command::Test(args) => meltemi_cli::test(&args),
        Command::ControlPlane(args) => control_plane(*args),
        Command::Proxy(command) => proxy(*command),
        Command::Agent(command) => meltemi_agent::run(*command),
        Command::Cert(CertCommand::Inspect(args)) => meltemi_cli::inspect(&args),
        Command::Cert(CertCommand::Issue(args)) => meltemi_control::issue(&args),
        Command::Cert(CertCommand::RotateRoot(args)) => meltemi_control::rotate_root(&args),
        Command::ProxyConfig(command) => Ok(meltemi_cli::proxy_config(&command)),
        Command::ProxyStatus(args) => Ok(meltemi_cli::proxy_status(&args)),
        Command::Get(args) => Ok(meltemi_cli::get(&args)),
        Command::Describe(args) => Ok(meltemi_cli::describe(&args)),
        Command::Diff(args) => Ok(meltemi_cli::diff(&args)),
        Command::Rollback(args) => Ok(meltemi_cli::rollback(&args)),
        Command::Echo(args) => meltemi_traffic::echo(&args),
        Command::Load(args) => meltemi_traffic::load(&args),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut CommandLine::command(), "meltemi", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Reaper(args) => Ok(meltemi_local::reap(&args)),
    }
}

/// The agent first: the proxy's bootstrap names its sockets.
fn proxy(command: ProxyCommand) -> anyhow::Result<ExitCode> {
    if let Some(spec) = command.agent.spec()? {
        meltemi_agent::beside(spec)?;
    }
    meltemi_proxy::run(command.proxy)
}

/// One thread is enough: translation is shared by proxies of one shape, and the rest waits for sockets.
fn control_plane(args: meltemi_control::ControlPlaneArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(meltemi_control::run(args))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
