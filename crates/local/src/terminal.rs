//! What people see: progress while a mesh starts, the table of what runs, and what happens afterwards. Or the same
//! as JSON lines for machines. Leaves out deciding what is worth saying.
//!
//! Output goes to standard output; progress to standard error, and only when that is a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::args::OutputFormat;
use crate::security::{Port, Word};

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    pub(crate) workload: String,
    pub(crate) version: String,
    /// Where the mesh reaches it.
    pub(crate) address: String,
    /// Where its program listens, behind the sidecar; empty for a gateway.
    pub(crate) program: String,
    /// How it is called; not known while the control plane does not answer.
    pub(crate) security: Option<Word>,
    pub(crate) ready: bool,
    pub(crate) restarts: u32,
    pub(crate) pid: Option<u32>,
}

/// Everything about a mesh that has started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    pub(crate) replicas: Vec<Row>,
    pub(crate) gateways: Vec<Row>,
    /// What every port lets in and what its callers send.
    pub(crate) security: Vec<Port>,
    /// The same for people.
    #[serde(skip)]
    pub(crate) security_lines: Vec<String>,
    pub(crate) urls: Vec<String>,
    /// Command lines and comments that show what the mesh does.
    pub(crate) r#try: Vec<String>,
    pub(crate) logs: String,
    pub(crate) control_plane: String,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Happening {
    /// A process started.
    Started { unit: String, pid: u32 },
    /// A replica or gateway gets traffic from now on.
    Ready { instance: String },
    /// A replica or gateway gets no traffic any more.
    NotReady { instance: String, why: String },
    /// A process ended by itself and will start again.
    Ended { unit: String, why: String, restart_in_ms: u128, restarts: u32 },
    /// `up` ends a process and starts it again.
    Restarting { unit: String, why: String },
    /// The manifests have one more.
    Added { instance: String },
    /// The manifests have one less.
    Removed { instance: String },
    /// A line of the control plane.
    ControlPlane { line: String },
    /// Something about the manifests that concerns running them here.
    Finding { text: String },
    /// Everything is being stopped.
    Stopping { why: String },
    /// Nothing is left.
    Stopped,
}

/// The only writer to the terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    format: OutputFormat,
    progress: Option<ProgressBar>,
    color: bool,
    /// Before the table, single starts are progress and not news.
    is_starting: bool,
}

impl Terminal {
    pub(crate) fn new(format: OutputFormat) -> Terminal {
        let color = format == OutputFormat::Text
            && anstream::stdout().current_choice() != anstream::ColorChoice::Never;
        let progress = (format == OutputFormat::Text && std::io::stderr().is_terminal()).then(spinner);
        Terminal { format, progress, color, is_starting: true }
    }

    /// Whether text for people may be coloured.
    pub(crate) fn color(&self) -> bool {
        self.color
    }

    /// Where the start stands.
    pub(crate) fn progress(&self, text: String) {
        match &self.progress {
            Some(bar) => bar.set_message(text),
            None => tracing::debug!(progress = text),
        }
    }

    /// Everything runs, or time is up.
    pub(crate) fn summary(&mut self, summary: &Summary) {
        self.is_starting = false;
        if let Some(bar) = self.progress.take() {
            bar.finish_and_clear();
        }
        match self.format {
            OutputFormat::Json => {
                #[derive(Serialize)]
                struct Tagged<'a> {
                    event: &'static str,
                    #[serde(flatten)]
                    summary: &'a Summary,
                }
                self.json(&Tagged { event: "running", summary });
            }
            OutputFormat::Text => self.text(&describe(summary)),
        }
    }

    /// Tells what happened.
    pub(crate) fn tell(&self, happening: &Happening) {
        match self.format {
            OutputFormat::Json => self.json(happening),
            OutputFormat::Text => {
                if let Some(text) = sentence(happening, self.is_starting) {
                    self.text(&text);
                }
            }
        }
    }

    fn json(&self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(line) => self.text(&line),
            Err(error) => tracing::error!(%error, "cannot print an event"),
        }
    }

    fn text(&self, text: &str) {
        let print = || anstream::println!("{text}");
        match &self.progress {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed:.dim}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// One line for people; `None` for what the progress display and the table show already.
fn sentence(happening: &Happening, is_starting: bool) -> Option<String> {
    Some(match happening {
        Happening::Started { .. } => return None,
        Happening::Ready { .. } | Happening::Added { .. } if is_starting => return None,
        Happening::Ready { instance } => format!("{instance} is ready"),
        Happening::NotReady { instance, why } => format!("{instance} is not ready: {why}"),
        Happening::Ended { unit, why, restart_in_ms, restarts } => {
            format!("{unit} {why}; starts again in {restart_in_ms} ms (restart {restarts})")
        }
        Happening::Restarting { unit, why } => format!("{unit} is restarted: {why}"),
        Happening::Added { instance } => format!("{instance} is added"),
        Happening::Removed { instance } => format!("{instance} is removed"),
        Happening::ControlPlane { line } => line.clone(),
        Happening::Finding { text } => text.clone(),
        Happening::Stopping { why } => format!("stopping: {why}"),
        Happening::Stopped => "stopped; nothing is left running".to_owned(),
    })
}

fn describe(summary: &Summary) -> String {
    let mut text = format!("\n{}\n", fitting_table(summary));
    if !summary.security_lines.is_empty() {
        text.push_str("\nSecurity:\n");
        summary.security_lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    if !summary.urls.is_empty() {
        text.push_str(&format!("\nGateways: {}\n", summary.urls.join("  ")));
    }
    if !summary.r#try.is_empty() {
        text.push_str("\nTry:\n");
        summary.r#try.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    text.push_str(&format!(
        "\nControl plane: {}\nLogs: {}\nCtrl-C stops everything.\n",
        summary.control_plane, summary.logs
    ));
    text
}

/// The table, squeezed when the terminal is narrower than it.
fn fitting_table(summary: &Summary) -> String {
    let wide = table(summary, false);
    let columns = wide.width().map_or(usize::MAX, usize::from);
    let text = wide.trim_fmt();
    match text.lines().any(|line| line.chars().count() > columns) {
        true => table(summary, true).trim_fmt(),
        false => text,
    }
}

/// `is_narrow`: a program is shown by its port alone, since its address is the replica's, and restarts only where there
/// are any, beside the readiness.
fn table(summary: &Summary, is_narrow: bool) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut header =
        vec!["WORKLOAD", "VERSION", "ADDRESS", "PROGRAM", "SECURITY", "READY", "RESTARTS", "PID"];
    if is_narrow {
        header.retain(|title| *title != "RESTARTS");
    }
    table.set_header(header);
    for row in summary.replicas.iter().chain(&summary.gateways) {
        table.add_row(cells(row, is_narrow));
    }
    if is_narrow {
        for column in table.column_iter_mut() {
            column.set_padding((0, 1));
        }
    }
    table
}

fn cells(row: &Row, is_narrow: bool) -> Vec<String> {
    let program = match row.program.rfind(':').filter(|_| is_narrow) {
        Some(colon) => row.program[colon..].to_owned(),
        None => row.program.clone(),
    };
    let security = row.security.map_or("?", Word::as_str).to_owned();
    let mut cells = vec![row.workload.clone(), row.version.clone(), row.address.clone(), program, security];
    let ready = if row.ready { "yes" } else { "no" };
    match (is_narrow, row.restarts) {
        (false, restarts) => cells.extend([ready.to_owned(), restarts.to_string()]),
        (true, 0) => cells.push(ready.to_owned()),
        (true, restarts) => cells.push(format!("{ready} ({restarts}×)")),
    }
    cells.push(row.pid.map(|pid| pid.to_string()).unwrap_or_default());
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let row = Row {
            workload: "frontend-v1-0".into(),
            version: "v1".into(),
            address: "127.70.3.2:8080".into(),
            program: "127.70.3.2:20120".into(),
            security: Some(Word::Mtls),
            ready: true,
            restarts: 2,
            pid: Some(4711),
        };
        Summary {
            replicas: vec![row],
            gateways: vec![],
            security: vec![],
            security_lines: vec!["all workloads: mutual TLS".into()],
            urls: vec!["http://localhost:8080".into()],
            r#try: vec!["curl -i localhost:8080/".into()],
            logs: "/state/logs".into(),
            control_plane: "http://127.70.3.1:15014".into(),
        }
    }

    #[test]
    fn the_table_tells_where_everything_is() {
        let text = describe(&summary());
        for expected in
            ["frontend-v1-0", "127.70.3.2:8080", "127.70.3.2:20120", "mTLS", "yes", "4711", "localhost:8080/"]
        {
            assert!(text.contains(expected), "{expected} is missing in {text}");
        }
    }

    #[test]
    fn a_narrow_table_saves_columns_and_loses_nothing() {
        let (wide, narrow) = (table(&summary(), false).trim_fmt(), table(&summary(), true).trim_fmt());
        let width = |text: &str| text.lines().map(|line| line.chars().count()).max();
        assert!(width(&narrow) < width(&wide), "{narrow}");
        let row = narrow.lines().last().unwrap().split_whitespace();
        assert_eq!(
            row.collect::<Vec<_>>(),
            ["frontend-v1-0", "v1", "127.70.3.2:8080", ":20120", "mTLS", "yes", "(2×)", "4711"]
        );
    }

    #[test]
    fn single_starts_are_news_only_later() {
        let ready = Happening::Ready { instance: "a-0".into() };
        assert_eq!(sentence(&ready, true), None);
        assert_eq!(sentence(&ready, false).as_deref(), Some("a-0 is ready"));
    }

    #[test]
    fn machines_get_one_object_per_event() {
        let event = Happening::NotReady { instance: "a-0".into(), why: "status 503".into() };
        let json = serde_json::to_string(&event).unwrap();
        assert_eq!(json, r#"{"event":"not-ready","instance":"a-0","why":"status 503"}"#);
    }
}
