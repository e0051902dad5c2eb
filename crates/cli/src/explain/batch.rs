//! `--batch`: questions and answers as JSON lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use anyhow::{Context, ensure};
use meltemi_explain::batch::Batch;

/// Stands for standard input.
const STANDARD_INPUT: &str = "-";

/// The longest question; a configuration itself is bounded far below.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// Answers every line of the file, each as soon as it is read.
///
/// # Errors
/// When the file cannot be read, a line is too long, or standard output cannot be written to.
pub(super) fn run(file: &Path) -> anyhow::Result<()> {
    let input: Box<dyn BufRead> = match file.to_str() {
        Some(STANDARD_INPUT) => Box::new(io::stdin().lock()),
        _ => Box::new(BufReader::new(File::open(file).with_context(|| file.display().to_string())?)),
    };
    answer(input, &mut io::stdout().lock())
}

/// A line that is no text gets an answer too, and holds up none of the others.
fn answer(mut input: impl BufRead, out: &mut impl Write) -> anyhow::Result<()> {
    let mut batch = Batch::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        ensure!((read as u64) < MAX_LINE_BYTES, "a line has more than {MAX_LINE_BYTES} bytes");
        let text = String::from_utf8_lossy(&line);
        if !text.trim().is_empty() {
            writeln!(out, "{}", batch.answer(text.trim()))?;
            out.flush()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_an_answer() {
        let mut out = Vec::new();
        answer(&b"{\"id\": 1}\n\n\xff\xfe\n{\"id\": 2}"[..], &mut out).expect("answers");
        let lines: Vec<serde_json::Value> = String::from_utf8(out)
            .expect("text")
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let ids: Vec<_> = lines.iter().map(|line| line["id"].clone()).collect();
        assert_eq!(ids, [serde_json::json!(1), serde_json::Value::Null, serde_json::json!(2)]);
        assert_eq!(lines[1]["error"], "invalid_call");
    }
}
