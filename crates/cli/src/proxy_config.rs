//! `meltemi proxy-config`: what one proxy has in force, told by itself, whether it is ours or an Envoy.
//!
//! Every kind of configuration is a subcommand with a module of its own, which takes its part out of the dump that
//! [`source`] brings and [`dump`] takes apart. Leaves out what a mesh should have: that is the control plane's to say.

mod all;
mod bootstrap;
mod cluster;
mod dump;
mod endpoint;
mod listener;
mod log;
mod route;
mod secret;
mod source;

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::output::{Format, Outcome, conclude, print};
use dump::{Sections, camel_case};

pub use all::AllArgs;
pub use bootstrap::BootstrapArgs;
pub use cluster::{ClusterArgs, ClusterFilter};
pub use endpoint::{EndpointArgs, EndpointFilter};
pub use listener::{ListenerArgs, ListenerFilter};
pub use log::LogArgs;
pub use route::RouteArgs;
pub use secret::SecretArgs;
pub use source::SourceArgs;

/// The kinds of configuration.
#[derive(Subcommand, Clone, Debug)]
pub enum ProxyConfigCommand {
    /// Where it takes connections, and what becomes of them
    #[command(visible_alias = "listeners", alias = "l", long_about = listener::ABOUT)]
    Listener(ListenerArgs),
    /// Which requests it tells apart
    #[command(visible_alias = "routes", alias = "r", long_about = route::ABOUT)]
    Route(RouteArgs),
    /// The destinations that it knows
    #[command(visible_alias = "clusters", alias = "c", long_about = cluster::ABOUT)]
    Cluster(ClusterArgs),
    /// The addresses behind them
    #[command(visible_alias = "endpoints", alias = "ep", long_about = endpoint::ABOUT)]
    Endpoint(EndpointArgs),
    /// What it was started with
    #[command(alias = "b", long_about = bootstrap::ABOUT)]
    Bootstrap(BootstrapArgs),
    /// Certificates, keys and trust: what is valid, until when, for whom
    #[command(visible_alias = "secrets", alias = "s", long_about = secret::ABOUT)]
    Secret(SecretArgs),
    /// How much it logs, and changing it
    #[command(visible_alias = "logs", alias = "o", long_about = log::ABOUT)]
    Log(LogArgs),
    /// Everything
    #[command(alias = "a", long_about = all::ABOUT)]
    All(AllArgs),
}

/// Prints what a proxy has of one kind. What cannot be told is exit code 2 with a message.
pub fn proxy_config(command: &ProxyConfigCommand) -> ExitCode {
    conclude(match command {
        ProxyConfigCommand::Listener(args) => listener::run(args),
        ProxyConfigCommand::Route(args) => route::run(args),
        ProxyConfigCommand::Cluster(args) => cluster::run(args),
        ProxyConfigCommand::Endpoint(args) => endpoint::run(args),
        ProxyConfigCommand::Bootstrap(args) => bootstrap::run(args),
        ProxyConfigCommand::Secret(args) => secret::run(args),
        ProxyConfigCommand::Log(args) => log::run(args),
        ProxyConfigCommand::All(args) => all::run(args),
    })
}

/// A resource that came from a control plane.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resource {
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) body: Value,
}

/// What a proxy has from its control plane.
///
/// # Errors
/// If it cannot be asked.
pub(crate) fn dynamic(args: &SourceArgs) -> anyhow::Result<Vec<Resource>> {
    Ok(sections(args)?.dynamic())
}

/// The resources of a dump that is at hand.
///
/// # Errors
/// If it is no configuration dump.
pub(crate) fn dynamic_of(from: &str, dump: &Value) -> anyhow::Result<Vec<Resource>> {
    let dump = source::Dump { from: from.to_owned(), text: dump.to_string().into_bytes() };
    Ok(Sections::read(&dump)?.dynamic())
}

fn sections(args: &SourceArgs) -> anyhow::Result<Sections> {
    Sections::read(&source::dump(args)?)
}

/// Resources of one kind, and what the table says of them.
#[derive(Debug)]
struct View {
    /// One of them.
    what: &'static str,
    /// Whose they are.
    from: String,
    table: String,
    found: Vec<Value>,
    /// What is refused or waits.
    trouble: Vec<String>,
}

impl View {
    /// The table, and what is wrong.
    fn text(&self) -> String {
        let trouble: String = self.trouble.iter().map(|line| format!("\n{line}")).collect();
        let end = if trouble.is_empty() { "" } else { "\n" };
        match self.found.is_empty() {
            true => format!("{} has no {} like that{trouble}\n", self.from, self.what),
            false => format!("{}{trouble}{end}", self.table),
        }
    }
}

/// Prints resources, in full or as lines.
fn outcome(view: &View, format: Format) -> anyhow::Result<Outcome> {
    print(format, &camel_case(json!(view.found)), || view.text())?;
    let is_fine = !view.found.is_empty() && view.trouble.is_empty();
    Ok(if is_fine { Outcome::Fine } else { Outcome::Finding })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sections of a dump.
    pub(super) fn sections(configs: Value) -> Sections {
        let text = json!({ "configs": configs }).to_string().into_bytes();
        Sections::read(&source::Dump { from: "web-0".into(), text }).unwrap()
    }

    #[test]
    fn nothing_is_told_as_nothing() {
        let view = View {
            what: "cluster",
            from: "web-0".into(),
            table: "NAME\n".into(),
            found: Vec::new(),
            trouble: vec!["b waits".into()],
        };
        assert_eq!(view.text(), "web-0 has no cluster like that\nb waits\n");
    }
}
