//! `meltemi validate`: everything that is wrong with a set of files, without putting them in force. Finds what the
//! control plane would find, by the same code.

use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use meltemi_api::{Change, Severity};
use meltemi_explain::Mesh;
use meltemi_sources::files;

use crate::report::Report;

/// Exit code when there are findings of error severity.
const FINDINGS: u8 = 1;
/// Exit code when files cannot be read or there are none; also clap's for wrong usage.
const TROUBLE: u8 = 2;

/// Check Istio and Kubernetes YAML without putting it in force.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Check Istio and Kubernetes YAML without putting it in force.\n\n\
        Reports every mistake at once: syntax, unknown fields (with the name you probably meant), wrong types, values \
        out of range, regular expressions that do not compile, and references that lead nowhere (a destination without \
        a service, a subset that no DestinationRule defines). Each finding has a stable code, explained in \
        docs/diagnostics.md.",
    after_help = "Examples:\n  \
        meltemi validate examples/shop              a directory, with everything below it\n  \
        meltemi validate reviews.yaml gateway.yaml  files that belong together\n  \
        meltemi validate -o json examples/shop      for scripts: {\"diagnostics\": [...], \"errors\": 0, ...}\n  \
        kubectl get vs -A -o yaml | meltemi validate -\n\n\
        Exit code: 0 when everything can be put in force, 1 when something cannot, 2 when the files cannot be read\n\
        or there are none."
)]
pub struct ValidateArgs {
    /// Files and directories; directories are searched for *.yaml, *.yml and *.json, and - is standard input
    ///
    /// References are followed among all of them, so name everything that belongs together.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// How to print the findings
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// How to print findings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Annotated excerpts of the files, and a summary
    #[default]
    Text,
    /// Columns, and a summary
    Table,
    /// One JSON object
    Json,
    /// The same in YAML
    Yaml,
}

/// Checks the files and prints what is wrong with them on standard output, in colour on a terminal.
///
/// # Errors
/// When standard output cannot be written to.
pub fn validate(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    let stdout = io::stdout();
    let color = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
    match check(args) {
        Ok(report) => {
            let mut out = stdout.lock();
            print(&report, args.output, color, &mut out)?;
            out.flush()?;
            Ok(if report.count(Severity::Error) > 0 { ExitCode::from(FINDINGS) } else { ExitCode::SUCCESS })
        }
        Err(error) => {
            anstream::eprintln!("error: {error}");
            Ok(ExitCode::from(TROUBLE))
        }
    }
}

/// Reads the files and judges them, one by one and together.
fn check(args: &ValidateArgs) -> io::Result<Report> {
    let batch = files::load(&args.paths)?;
    // A wrong path in a script must not pass as sound.
    if batch.sources.is_empty() && batch.diagnostics.is_empty() {
        return Err(io::Error::new(ErrorKind::NotFound, "there is no file to check (*.yaml, *.yml, *.json)"));
    }
    let objects = batch.changes.into_iter().filter_map(|change| match change {
        Change::Put(object) => Some(object),
        Change::Delete(_) | Change::Synced(_) | Change::Lost(..) => None,
    });
    let objects: Vec<_> = objects.collect();
    let count = objects.len();
    let mesh = Mesh::new(objects, batch.diagnostics);
    Ok(Report::new(count, batch.sources, mesh.diagnostics))
}

fn print(report: &Report, output: Output, color: bool, out: &mut impl Write) -> anyhow::Result<()> {
    match output {
        Output::Text => report.write_text(color, out)?,
        Output::Table => report.write_table(out)?,
        Output::Json => report.write_json(out)?,
        Output::Yaml => out.write_all(serde_saphyr::to_string(report)?.as_bytes())?,
    }
    Ok(())
}

#[cfg(test)]
mod tests;
