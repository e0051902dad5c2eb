//! How commands that look print and end: a table for people, JSON or YAML for programs, and one meaning of exit codes for
//! all of them. Leaves out what is printed.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde_json::Value;

/// Exit code when something is not as it should be, or not the same.
const FINDING: u8 = 1;
/// Exit code when nothing can be told; also clap's for wrong usage.
const TROUBLE: u8 = 2;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    #[value(alias = "short")]
    Table,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Exit code 0.
    Fine,
    /// Exit code 1.
    Finding,
}

/// The exit code of a command; why it cannot tell anything goes to standard error.
pub(crate) fn conclude(outcome: anyhow::Result<Outcome>) -> ExitCode {
    match outcome {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Finding) => ExitCode::from(FINDING),
        // Whoever reads has read enough: `meltemi … | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            ExitCode::from(TROUBLE)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(broken))
}

/// Prints a value, or the text that stands for it.
pub(crate) fn print(format: Format, value: &Value, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        Format::Table => out.write_all(text().as_bytes())?,
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(value)?)?,
        Format::Yaml => out.write_all(serde_saphyr::to_string(value)?.as_bytes())?,
    }
    Ok(out.flush()?)
}

/// Columns of text; the titles alone where there are no rows.
pub(crate) fn table<const N: usize>(
    titles: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).force_no_tty();
    table.set_header(titles);
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    for row in rows {
        table.add_row(row.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// `1 object`, `2 objects`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".to_owned(), String::new()], ["longer".to_owned(), "b".to_owned()]];
        assert_eq!(table(["NAME", "PORT"], rows), "NAME     PORT\na        -\nlonger   b\n");
        assert_eq!(table(["NAME"], []), "NAME\n");
    }

    #[test]
    fn a_reader_that_has_enough_is_no_trouble() {
        let broken = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("printing");
        assert!(is_broken_pipe(&broken));
        assert!(!is_broken_pipe(&anyhow::anyhow!("Broken pipe")));
    }
}
