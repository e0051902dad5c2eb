//! The objects of a running control plane, as it has them in force. The data of Secrets are not among them, nor are
//! objects that are broken; what is wrong with those the control plane tells itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use meltemi_analysis::Subject;
use meltemi_api::{Diagnostic, Location, Object, ObjectId, Span, codes};
use serde::Deserialize;
use serde_json::Value;

use crate::control_plane::ControlPlane;

/// An object as the control plane tells it.
#[derive(Deserialize)]
struct Entry {
    origin: Place,
    object: Value,
}

/// Where it is written.
#[derive(Deserialize)]
struct Place {
    file: String,
    line: u32,
}

/// A finding as the control plane tells it.
#[derive(Deserialize)]
struct Told {
    code: String,
    #[serde(default)]
    field: String,
    message: String,
    #[serde(default)]
    help: String,
    location: Option<Place>,
    object: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    kind: String,
    namespace: String,
    name: String,
}

/// The objects, and where each is written.
pub(super) struct Live {
    pub(super) subject: Subject,
    places: BTreeMap<ObjectId, Location>,
}

impl Live {
    /// Asks a control plane.
    ///
    /// # Errors
    /// If it does not answer, or not as expected.
    pub(super) fn ask(control_plane: &ControlPlane) -> anyhow::Result<Live> {
        let entries = control_plane.get("/debug/objectz")?;
        let told = control_plane.get("/debug/diagnostics")?;
        let entries: Vec<Entry> = serde_json::from_value(entries).context("its objects are not readable")?;
        let told: Vec<Told> = serde_json::from_value(told).context("its diagnostics are not readable")?;
        Ok(Live::of(entries, told))
    }

    fn of(entries: Vec<Entry>, told: Vec<Told>) -> Live {
        let (mut sound, mut places) = (Vec::new(), BTreeMap::new());
        for entry in entries {
            let file: Arc<str> = entry.origin.file.into();
            let span = Span { line: entry.origin.line, column: 1, ..Span::default() };
            let (objects, _) = meltemi_api::parse(&entry.object.to_string(), &file);
            for object in objects {
                places.insert(object.id.clone(), Location { file: Arc::clone(&file), span });
                sound.push(Arc::new(object));
            }
        }
        let diagnostics = told.into_iter().filter_map(Told::of_one_object).collect();
        Live {
            subject: Subject { sound, diagnostics, are_secrets_hidden: true, ..Subject::default() },
            places,
        }
    }

    /// Findings at the places of their objects: those of fields are not known.
    pub(super) fn placed(&self, findings: Vec<Diagnostic>) -> Vec<Diagnostic> {
        let place = |finding: Diagnostic| {
            let known = finding.object.as_ref().and_then(|id| self.places.get(id)).cloned();
            Diagnostic { location: known.or(finding.location), ..finding }
        };
        findings.into_iter().map(place).collect()
    }

    /// The objects.
    pub(super) fn objects(&self) -> Vec<Arc<Object>> {
        self.subject.sound.clone()
    }
}

impl Told {
    /// What is wrong with an object by itself; what is between objects the analysis finds.
    fn of_one_object(self) -> Option<Diagnostic> {
        let code = codes::ALL.iter().find(|code| code.id == self.code)?;
        if code.id.starts_with("MEL02") {
            return None;
        }
        let id = |named: Named| Some(ObjectId::new(named.kind.parse().ok()?, named.namespace, named.name));
        Some(Diagnostic {
            object: self.object.and_then(id),
            field: self.field,
            location: self.location.map(|place| Location {
                file: place.file.into(),
                span: Span { line: place.line, column: 1, ..Span::default() },
            }),
            help: self.help,
            ..Diagnostic::new(code, self.message)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_and_findings_are_those_of_the_control_plane() {
        let entries = json!([
            {"origin": {"file": "mesh/a.yaml", "document": 0, "line": 7}, "object": {
                "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "a", "namespace": "default"},
                "spec": {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "nobody"}}]}]}}},
        ]);
        let told = json!([
            {"severity": "error", "code": "MEL0106", "object": {"kind": "Gateway", "namespace": "default", "name": "g"},
             "field": "spec.x", "location": {"file": "mesh/g.yaml", "line": 3, "column": 1, "start": 1, "end": 2}, "message": "unknown field `x`"},
            {"severity": "warning", "code": "MEL0202", "field": "spec", "message": "there is no service"},
        ]);
        let live = Live::of(serde_json::from_value(entries).unwrap(), serde_json::from_value(told).unwrap());
        let findings = live.placed(meltemi_analysis::analyze(live.subject.clone()));
        let lines: Vec<String> = findings
            .iter()
            .map(|f| format!("{} {}", f.code, crate::report::place(f).unwrap_or_default()))
            .collect();
        assert_eq!(lines, ["IST0101 mesh/a.yaml:7", "IST0106 mesh/g.yaml:3"]);
    }
}
