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
    ControlPlane(meltemi_control::ControlPlaneArgs),
    Proxy(Box<meltemi_proxy::ProxyArgs>),
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
        Command::ControlPlane(args) => control_plane(args),
        Command::Proxy(args) => meltemi_proxy::run(*args),
        Command::Echo(args) => meltemi_traffic::echo(&args),
        Command::Load(args) => meltemi_traffic::load(&args),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut CommandLine::command(), "meltemi", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Reaper(args) => Ok(meltemi_local::reap(&args)),
    }
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
