//! `meltemi proxy-config`: what one proxy has in force, told by itself, whether it is ours or an Envoy.
//!
//! Every kind of configuration is a subcommand with a module of its own, which takes its part out of the dump that
//! [`source`] brings. Leaves out what a mesh should have: that is the control plane's to say.

mod secret;
mod source;

use std::process::ExitCode;

use clap::Subcommand;

pub use secret::SecretArgs;
pub use source::SourceArgs;

/// Exit code when something is not as it should be.
const NOT_GOOD: u8 = 1;
/// Exit code when nothing can be told; also clap's for wrong usage.
const TROUBLE: u8 = 2;

/// The kinds of configuration.
#[derive(Subcommand, Clone, Debug)]
pub enum ProxyConfigCommand {
    /// Certificates, keys and trust: what is valid, until when, for whom
    #[command(visible_alias = "secrets", alias = "s", long_about = secret::ABOUT)]
    Secret(SecretArgs),
}

/// Prints what a proxy has of one kind.
///
/// # Errors
/// When standard output cannot be written to. A proxy that cannot be asked is exit code 2 with a message.
pub fn proxy_config(command: &ProxyConfigCommand) -> anyhow::Result<ExitCode> {
    let ProxyConfigCommand::Secret(args) = command;
    let told = source::dump(&args.source).and_then(|dump| secret::Secrets::read(&dump));
    match told {
        Ok(secrets) => {
            secret::print(&secrets, args.output)?;
            Ok(if secrets.is_good() { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
        }
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            Ok(ExitCode::from(TROUBLE))
        }
    }
}
