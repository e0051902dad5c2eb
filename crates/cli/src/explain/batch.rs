//! `--batch`: questions and answers as JSON lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use meltemi_explain::batch::Batch;

/// Stands for standard input.
const STANDARD_INPUT: &str = "-";

/// Answers every line of the file, each as soon as it is read.
///
/// # Errors
/// When the file cannot be read or standard output cannot be written to.
pub(super) fn run(file: &Path) -> anyhow::Result<ExitCode> {
    let input: Box<dyn BufRead> = match file.to_str() {
        Some(STANDARD_INPUT) => Box::new(io::stdin().lock()),
        _ => Box::new(BufReader::new(File::open(file).with_context(|| file.display().to_string())?)),
    };
    let mut batch = Batch::default();
    let mut out = io::stdout().lock();
    for line in input.lines() {
        let line = line.with_context(|| format!("cannot read {}", file.display()))?;
        if !line.trim().is_empty() {
            writeln!(out, "{}", batch.answer(&line))?;
            out.flush()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
