//! What the operator is told on standard output: findings when they appear and when they are resolved, and
//! updates that proxies refuse. A thread of its own prints, so that a terminal that does not read holds up
//! nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use meltemi_api::{Diagnostic, ObjectId, render};
use meltemi_translate::Origin;

use crate::limits::{MAX_SHOWN, REPORT_FLUSH, REPORT_QUEUE};
use crate::mesh::Findings;
use crate::metrics::Metrics;
use crate::proxies::short_type;

/// Something to tell.
#[derive(Debug)]
pub(crate) enum Report {
    /// All that is wrong now.
    Findings(Arc<Findings>),
    /// Which kept generation is served instead of the files, if one is.
    Serves(Option<u64>),
    /// A proxy has refused an update.
    Rejected {
        /// Node id.
        node: String,
        /// Type of the update.
        type_url: String,
        /// Generation of the update.
        generation: String,
        /// What the proxy says.
        reason: String,
        /// What the user wrote that it is about, as far as that is known.
        blamed: Vec<Origin>,
    },
    /// A proxy has taken an update.
    Accepted { node: String, type_url: String },
    /// A proxy has gone.
    Gone { node: String },
    /// Nothing more will be told.
    End,
}

/// Where reports are left. Cheap to clone; never waits.
#[derive(Debug, Clone)]
pub(crate) struct Reports {
    queue: SyncSender<Report>,
    metrics: Arc<Metrics>,
}

impl Reports {
    /// Leaves a report, or drops it and counts that if too many wait.
    pub(crate) fn tell(&self, report: Report) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(report) {
            self.metrics.report_dropped();
        }
    }
}

/// The printing thread.
#[derive(Debug)]
pub(crate) struct Printer {
    queue: SyncSender<Report>,
    done: Receiver<()>,
}

impl Printer {
    /// Waits, not for long, until what was told is printed.
    pub(crate) fn finish(self) {
        // A full queue means that nobody reads; then there is nothing to wait for.
        if self.queue.try_send(Report::End).is_err() {
            return;
        }
        // Either it ends or the time is over; both are the end.
        let _ = self.done.recv_timeout(REPORT_FLUSH);
    }
}

/// Starts the printing thread.
///
/// # Errors
/// If the thread cannot be started.
pub(crate) fn start(
    color: bool,
    metrics: Arc<Metrics>,
    mut out: impl Write + Send + 'static,
) -> io::Result<(Reports, Printer)> {
    let (queue, reports) = sync_channel::<Report>(REPORT_QUEUE);
    let (finished, done) = sync_channel(1);
    thread::Builder::new().name("reports".to_owned()).spawn(move || {
        let mut ledger = Ledger::new(color);
        for report in reports.into_iter().take_while(|report| !matches!(report, Report::End)) {
            // Nobody may be reading; that is no reason to stop the mesh.
            let _ = out.write_all(ledger.text(&report).as_bytes()).and_then(|()| out.flush());
        }
        let _ = finished.send(());
    })?;
    Ok((Reports { queue: queue.clone(), metrics }, Printer { queue, done }))
}

/// A finding, wherever in its file it stands at the moment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    object: Option<ObjectId>,
    file: Option<Arc<str>>,
    field: String,
    code: &'static str,
    message: String,
}

impl Key {
    fn of(diagnostic: &Diagnostic) -> Key {
        Key {
            object: diagnostic.object.clone(),
            file: diagnostic.location.as_ref().map(|location| Arc::clone(&location.file)),
            field: diagnostic.field.clone(),
            code: diagnostic.code,
            message: diagnostic.message.clone(),
        }
    }

    /// Where it is, for a line without excerpt.
    fn place(&self) -> String {
        let object = self.object.as_ref().map(ToString::to_string);
        let place = object.or_else(|| self.file.as_deref().map(str::to_owned)).unwrap_or_default();
        if self.field.is_empty() { place } else { format!("{place} {}", self.field) }
    }
}

/// What was told and still holds.
struct Ledger {
    color: bool,
    findings: BTreeSet<Key>,
    is_refused: bool,
    serves: Option<u64>,
    /// Refusals by proxy and type.
    rejections: BTreeMap<(String, String), String>,
}

impl Ledger {
    fn new(color: bool) -> Ledger {
        let (findings, rejections) = (BTreeSet::new(), BTreeMap::new());
        Ledger { color, findings, is_refused: false, serves: None, rejections }
    }

    /// The lines that the report adds; none if it says nothing new.
    fn text(&mut self, report: &Report) -> String {
        match report {
            Report::Findings(findings) => self.findings(findings),
            Report::Serves(serves) => self.serves(*serves),
            Report::Rejected { node, type_url, generation, reason, blamed } => {
                let origins: String = blamed.iter().map(origin_line).collect();
                match self.rejected(node, type_url, generation, reason) {
                    said if said.is_empty() => said,
                    said => said + &origins,
                }
            }
            Report::Accepted { node, type_url } => self.accepted(node, type_url),
            Report::Gone { node } => {
                self.rejections.retain(|(of, _), _| of != node);
                String::new()
            }
            Report::End => String::new(),
        }
    }

    fn findings(&mut self, findings: &Findings) -> String {
        let mut text = String::new();
        let mut current = BTreeSet::new();
        let mut news: Vec<(&Diagnostic, &str)> = Vec::new();
        for (index, diagnostic) in findings.diagnostics.iter().enumerate() {
            let key = Key::of(diagnostic);
            if !self.findings.contains(&key) && !current.contains(&key) {
                let source = findings.texts.get(index).and_then(Option::as_deref);
                news.push((diagnostic, source.unwrap_or_default()));
            }
            current.insert(key);
        }
        if news.len() > MAX_SHOWN {
            // What is shown should be the worst of it.
            news.sort_by_key(|(diagnostic, _)| Reverse(diagnostic.severity));
        }
        for (diagnostic, source) in news.iter().take(MAX_SHOWN) {
            text += &render(diagnostic, source, self.color);
            text += "\n\n";
        }
        text += &self.rest(news.len(), "findings; `meltemi validate` and /debug/diagnostics have them all");
        let gone: Vec<&Key> = self.findings.difference(&current).collect();
        for gone in gone.iter().take(MAX_SHOWN) {
            text +=
                &self.line(GREEN, "resolved", &format!("[{}] {}: {}", gone.code, gone.place(), gone.message));
        }
        text += &self.rest(gone.len(), "findings are resolved");
        self.findings = current;
        if findings.is_refused && !self.is_refused {
            text += &self.line(
                RED,
                "refused",
                "nothing of this state is in force until its errors are gone (--strict)",
            );
        }
        self.is_refused = findings.is_refused;
        text
    }

    fn serves(&mut self, serves: Option<u64>) -> String {
        let before = std::mem::replace(&mut self.serves, serves);
        match serves {
            _ if before == serves => String::new(),
            Some(number) => {
                let text = format!("generation {number} is served instead of the files, until they change");
                self.line(BOLD, "rollback", &text)
            }
            None => self.line(GREEN, "rollback", "the files are served again"),
        }
    }

    fn rejected(&mut self, node: &str, type_url: &str, generation: &str, reason: &str) -> String {
        let key = (node.to_owned(), type_url.to_owned());
        if self.rejections.insert(key, reason.to_owned()).as_deref() == Some(reason) {
            return String::new();
        }
        let kind = short_type(type_url).to_uppercase();
        self.line(RED, "refused", &format!("{node} refuses {kind} of generation {generation}: {reason}"))
    }

    fn accepted(&mut self, node: &str, type_url: &str) -> String {
        let key = (node.to_owned(), type_url.to_owned());
        if self.rejections.remove(&key).is_none() {
            return String::new();
        }
        self.line(GREEN, "resolved", &format!("{node} takes {} again", short_type(type_url).to_uppercase()))
    }

    /// The line that stands for what is too much to show.
    fn rest(&self, count: usize, what: &str) -> String {
        match count.saturating_sub(MAX_SHOWN) {
            0 => String::new(),
            rest => self.line(BOLD, "and", &format!("{rest} more {what}")),
        }
    }

    fn line(&self, color: &str, head: &str, rest: &str) -> String {
        if self.color { format!("{color}{head}{PLAIN}: {rest}\n") } else { format!("{head}: {rest}\n") }
    }
}

fn origin_line(origin: &Origin) -> String {
    format!("   from {} {} ({}:{})\n", origin.object, origin.field, origin.file, origin.line)
}

const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[1;31m";
const GREEN: &str = "\x1b[1;32m";
const PLAIN: &str = "\x1b[0m";

#[cfg(test)]
mod tests;
