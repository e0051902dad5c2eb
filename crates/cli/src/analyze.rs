//! `meltemi analyze`: what is doubtful or wrong across the objects of a set of files, with the codes of
//! `istioctl analyze`. Leaves out what the findings are, which is the analysis' to say.

mod live;
mod print;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use clap::{Args, ValueEnum};
use meltemi_analysis::{CATALOGUE, Subject, Suppression, suppressed};
use meltemi_api::{Change, Diagnostic, Object, Severity, codes};
use meltemi_sources::files;

use self::live::Live;
use self::print::Printed;
use crate::control_plane::{ControlPlane, MeshArgs};

/// Exit code when there are findings of the threshold's severity; that of `istioctl analyze`.
const FINDINGS: u8 = 79;
/// Exit code when nothing can be told; also clap's for wrong usage.
const TROUBLE: u8 = 2;

/// Look for what is doubtful or wrong between Istio and Kubernetes objects.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Look for what is doubtful or wrong between Istio and Kubernetes objects.\n\n\
        Reports with the codes of `istioctl analyze` (IST0101, …) what Istio has a code for: references that lead \
        nowhere, hosts that objects share, routes that nothing reaches, selectors that find nothing, annotations that \
        Istio does not know; and with codes of its own (MEL0211, …) what it has none for. docs/analyze.md lists them.",
    after_help = "Examples:\n  \
        meltemi analyze examples/shop\n  \
        kubectl get vs,dr,gw,se,svc,deploy -A -o yaml | meltemi analyze -\n  \
        meltemi analyze mesh/ -S 'IST0102=Namespace *' --failure-threshold warning\n  \
        meltemi analyze --live\n  \
        meltemi analyze mesh/ -o json | jq -r '.[] | [.code, .reference] | @tsv'\n\n\
        An object that carries the annotation `galley.istio.io/analyze-suppress: IST0101,IST0132` (or `*`) is not\n\
        reported with these codes.\n\n\
        Exit code: 0 when there is no finding of the threshold's severity, 79 when there is one, 2 when the files cannot\n\
        be read, there are none, or the control plane does not answer."
)]
pub struct AnalyzeArgs {
    /// Files and directories; directories are searched for *.yaml, *.yml and *.json, and - is standard input
    #[arg(required_unless_present = "live", conflicts_with = "live", value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// Analyze what a running control plane has in force
    #[arg(long)]
    pub live: bool,

    /// Which control plane.
    #[command(flatten)]
    pub mesh: MeshArgs,

    /// How to print the findings
    #[arg(short, long, value_enum, default_value_t = AnalyzeOutput::Log)]
    pub output: AnalyzeOutput,

    /// Do not report a code for some objects: CODE=KIND NAME.NAMESPACE, * for any characters; may be repeated
    #[arg(short = 'S', long, value_name = "CODE=OBJECTS")]
    pub suppress: Vec<Suppression>,

    /// The least severity that makes the exit code 79
    #[arg(long, value_enum, ignore_case = true, default_value_t = Threshold::Error)]
    pub failure_threshold: Threshold,

    /// The least severity that is printed
    #[arg(long, value_enum, ignore_case = true, default_value_t = Threshold::Info)]
    pub output_threshold: Threshold,
}

/// How to print findings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AnalyzeOutput {
    /// One line per finding, as istioctl
    #[default]
    Log,
    /// Columns
    Table,
    /// Annotated excerpts of the files, and a summary
    Text,
    /// A list of objects with the keys of istioctl, and more
    Json,
    /// The same in YAML
    Yaml,
}

/// A severity, as a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Threshold {
    /// All findings
    Info,
    /// Warnings and errors
    Warning,
    /// Errors
    Error,
}

impl Threshold {
    fn severity(self) -> Severity {
        match self {
            Threshold::Info => Severity::Info,
            Threshold::Warning => Severity::Warning,
            Threshold::Error => Severity::Error,
        }
    }
}

/// Prints what is found, in colour on a terminal.
///
/// # Errors
/// When standard output cannot be written to.
pub fn analyze(args: &AnalyzeArgs) -> anyhow::Result<ExitCode> {
    let stdout = io::stdout();
    let color = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
    for suppression in args.suppress.iter().filter(|suppression| !is_known(&suppression.code)) {
        anstream::eprintln!("warning: there is no code `{}`; it silences nothing", suppression.code);
    }
    match find(args) {
        Ok(found) => {
            let mut out = stdout.lock();
            found.write(args.output, color, &mut out)?;
            out.flush()?;
            Ok(exit_code(&found.all, args.failure_threshold))
        }
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            Ok(ExitCode::from(TROUBLE))
        }
    }
}

/// By all findings, also those that are not printed.
fn exit_code(findings: &[Diagnostic], threshold: Threshold) -> ExitCode {
    let is_bad = findings.iter().any(|finding| finding.severity >= threshold.severity());
    if is_bad { ExitCode::from(FINDINGS) } else { ExitCode::SUCCESS }
}

fn is_known(code: &str) -> bool {
    CATALOGUE.iter().any(|entry| entry.code.id == code) || codes::ALL.iter().any(|known| known.id == code)
}

/// Analyzes what is in the files, or in force.
fn find(args: &AnalyzeArgs) -> anyhow::Result<Printed> {
    let least = args.output_threshold.severity();
    let (objects, sources, findings) = if args.live { in_force(args)? } else { in_files(args)? };
    let all = suppressed(findings, &args.suppress, objects.iter().map(|object| &**object));
    Ok(Printed { objects: objects.len(), sources, least, all })
}

/// Objects, the texts of their files, and what is found in them.
type Analyzed = (Vec<Arc<Object>>, BTreeMap<Arc<str>, Arc<str>>, Vec<Diagnostic>);

fn in_files(args: &AnalyzeArgs) -> anyhow::Result<Analyzed> {
    let batch = files::load(&args.paths)?;
    // A wrong path in a script must not pass as sound.
    if batch.sources.is_empty() && batch.diagnostics.is_empty() {
        bail!("there is no file to analyze (*.yaml, *.yml, *.json)");
    }
    let objects = batch.changes.into_iter().filter_map(|change| match change {
        Change::Put(object) => Some(object),
        Change::Delete(_) | Change::Synced(_) | Change::Lost(..) => None,
    });
    let sound: Vec<_> = objects.collect();
    let unsound = batch.sources.iter().flat_map(|(file, text)| meltemi_api::parse_unsound(text, file));
    let unsound: Vec<_> = unsound.map(Arc::new).collect();
    let objects: Vec<_> = sound.iter().chain(&unsound).cloned().collect();
    let diagnostics = batch.diagnostics;
    let subject = Subject { sound, unsound, diagnostics, are_secrets_hidden: false };
    Ok((objects, batch.sources, meltemi_analysis::analyze(subject)))
}

fn in_force(args: &AnalyzeArgs) -> anyhow::Result<Analyzed> {
    let live = Live::ask(&ControlPlane::find(&args.mesh)?)?;
    let findings = live.placed(meltemi_analysis::analyze(live.subject.clone()));
    Ok((live.objects(), BTreeMap::new(), findings))
}

#[cfg(test)]
mod tests;
