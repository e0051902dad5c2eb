//! Findings on standard output, as istioctl prints them and otherwise.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use meltemi_api::{Diagnostic, ObjectId, Severity};
use serde::Serialize;

use super::AnalyzeOutput;
use crate::report::{Report, place, table};

/// Where Istio explains its codes.
const DOCUMENTATION: &str = "https://istio.io/latest/docs/reference/config/analysis";

/// What is to be printed, and what is not.
pub(super) struct Printed {
    /// Objects that were looked at.
    pub(super) objects: usize,
    /// The texts, by file.
    pub(super) sources: BTreeMap<Arc<str>, Arc<str>>,
    /// The least severity that is printed.
    pub(super) least: Severity,
    /// All findings.
    pub(super) all: Vec<Diagnostic>,
}

/// A finding with the keys that `istioctl analyze -o json` has, and more.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    code: &'a str,
    level: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    documentation_url: Option<String>,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<&'a ObjectId>,
    #[serde(skip_serializing_if = "str::is_empty")]
    field: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "str::is_empty")]
    help: &'a str,
}

impl<'a> Message<'a> {
    fn of(finding: &'a Diagnostic) -> Message<'a> {
        let is_of_istio = finding.code.starts_with("IST");
        let line = finding.location.as_ref().map(|location| location.span.line).filter(|line| *line > 0);
        Message {
            code: finding.code,
            level: level(finding.severity),
            documentation_url: is_of_istio
                .then(|| format!("{DOCUMENTATION}/{}/", finding.code.to_ascii_lowercase())),
            message: &finding.message,
            origin: finding.object.as_ref().map(ToString::to_string),
            reference: place(finding),
            object: finding.object.as_ref(),
            field: &finding.field,
            line,
            help: &finding.help,
        }
    }
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "Error",
        Severity::Warning => "Warning",
        Severity::Info => "Info",
    }
}

impl Printed {
    fn shown(&self) -> impl Iterator<Item = &Diagnostic> {
        self.all.iter().filter(|finding| finding.severity >= self.least)
    }

    pub(super) fn write(
        &self,
        output: AnalyzeOutput,
        color: bool,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let messages = || self.shown().map(Message::of).collect::<Vec<_>>();
        match output {
            AnalyzeOutput::Log => self.log(color, out)?,
            AnalyzeOutput::Table => writeln!(out, "{}", table(self.shown()))?,
            AnalyzeOutput::Text => {
                let shown = self.shown().cloned().collect();
                Report::new(self.objects, self.sources.clone(), shown).write_text(color, out)?;
            }
            AnalyzeOutput::Json => writeln!(out, "{}", serde_json::to_string_pretty(&messages())?)?,
            AnalyzeOutput::Yaml => out.write_all(serde_saphyr::to_string(&messages())?.as_bytes())?,
        }
        Ok(())
    }

    /// `Error [IST0101] (VirtualService default/a a.yaml:12) the host `b` is not known`.
    fn log(&self, color: bool, out: &mut impl Write) -> io::Result<()> {
        let mut is_clean = true;
        for finding in self.shown() {
            is_clean = false;
            let (begin, end) = match (color, finding.severity) {
                (false, _) => ("", ""),
                (true, Severity::Error) => ("\u{1b}[31m", "\u{1b}[0m"),
                (true, Severity::Warning) => ("\u{1b}[33m", "\u{1b}[0m"),
                (true, Severity::Info) => ("\u{1b}[36m", "\u{1b}[0m"),
            };
            let origin = [finding.object.as_ref().map(ToString::to_string), place(finding)];
            let place = origin.into_iter().flatten().collect::<Vec<_>>().join(" ");
            let place = if place.is_empty() { place } else { format!(" ({place})") };
            let (level, code) = (level(finding.severity), finding.code);
            writeln!(out, "{begin}{level}{end} [{code}]{place} {}", finding.message)?;
        }
        if is_clean {
            writeln!(out, "nothing found in {} objects", self.objects)?;
        }
        Ok(())
    }
}
