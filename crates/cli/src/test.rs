//! `meltemi test`: expectations about requests, written next to the configuration and checked without a mesh.

mod expect;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::explain::{mesh, question};
use crate::output::{Format, Outcome, conclude};
use expect::Expectation;

/// Check expectations about requests, without a mesh
#[derive(Debug, Args)]
#[command(
    long_about = "Check expectations about requests, without a mesh: unit tests for a mesh, for CI.\n\n\
        A file says where its configuration is and what is expected of which request. Every request is explained as by \
        `meltemi explain`; what is expected is compared with what would happen.",
    after_help = "A file:\n  \
        config: [shop]                 # files and folders, relative to this file\n  \
        tests:\n  \
        - name: one user tries v3\n    \
        from: frontend                # a Deployment, or gateway/NAME\n    \
        request: GET http://recommendation:8080/\n    \
        headers: {end-user: jason}\n    \
        expect: {destinations: [{host: recommendation, subset: v3}]}\n\n\
        Examples:\n  \
        meltemi test examples/shop.test.yaml\n  \
        meltemi test -o json tests/*.test.yaml\n\n\
        Keep such files beside the folder of the configuration, not in it: what reads the folder takes every YAML file there\n\
        for objects.\n\
        Exit code: 0 when all is as expected, 1 when something is not, 2 when a file cannot be read."
)]
pub struct TestArgs {
    /// Files with expectations
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// How to print the outcome
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// A file of expectations.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite {
    config: Vec<PathBuf>,
    tests: Vec<Test>,
}

/// One request and what is expected of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Test {
    name: String,
    from: String,
    request: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    http2: bool,
    expect: Expectation,
}

/// What became of one test.
#[derive(Debug, Serialize)]
struct Verdict {
    file: String,
    name: String,
    passed: bool,
    /// Every difference from what is expected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differences: Vec<String>,
}

/// Checks every file and prints what is not as expected.
///
/// # Errors
/// When standard output cannot be written to.
pub fn test(args: &TestArgs) -> anyhow::Result<ExitCode> {
    Ok(conclude(run(args)))
}

fn run(args: &TestArgs) -> anyhow::Result<Outcome> {
    let mut verdicts = Vec::new();
    for file in &args.files {
        verdicts.extend(suite(file).with_context(|| file.display().to_string())?);
    }
    print(&verdicts, args.output)?;
    Ok(if verdicts.iter().all(|verdict| verdict.passed) { Outcome::Fine } else { Outcome::Finding })
}

fn suite(file: &Path) -> anyhow::Result<Vec<Verdict>> {
    let suite: Suite = serde_saphyr::from_str(&std::fs::read_to_string(file)?)?;
    let home = file.parent().unwrap_or(Path::new("."));
    let config: Vec<PathBuf> = suite.config.iter().map(|path| home.join(path)).collect();
    let mesh = mesh(&config)?;
    let verdict = |test: &Test| {
        let headers: Vec<String> =
            test.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let differences = match question::request(&test.request, &headers, test.http2) {
            Ok(request) => match mesh.follow(&test.from, &request) {
                Ok(journey) => test.expect.differences(&journey),
                Err(wrong) => vec![wrong],
            },
            Err(wrong) => vec![format!("{wrong:#}")],
        };
        let passed = differences.is_empty();
        Verdict { file: file.display().to_string(), name: test.name.clone(), passed, differences }
    };
    Ok(suite.tests.iter().map(verdict).collect())
}

fn print(verdicts: &[Verdict], format: Format) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(verdicts)?)?,
        Format::Yaml => write!(out, "{}", serde_saphyr::to_string(&serde_json::to_value(verdicts)?)?)?,
        Format::Table => {
            for verdict in verdicts {
                writeln!(out, "{}  {}", if verdict.passed { "ok    " } else { "FAILED" }, verdict.name)?;
                for difference in &verdict.differences {
                    writeln!(out, "        {difference}")?;
                }
            }
            let failed = verdicts.iter().filter(|verdict| !verdict.passed).count();
            writeln!(out, "{} passed, {failed} failed", verdicts.len() - failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
