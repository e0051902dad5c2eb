//! `meltemi explain`: what happens to a request, without sending it.

mod batch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

/// Say what happens to a request, without sending it.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Answer questions from a file, or `-` for standard input: one JSON object per line in, one per line out
    #[arg(long, value_name = "FILE")]
    pub batch: PathBuf,
}

/// Explains one request, or a batch of questions.
///
/// # Errors
/// When the input cannot be read or standard output cannot be written to.
pub fn explain(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    batch::run(&args.batch)
}
