//! Telemetries that log to nowhere.
//!
//! Source: Istio `pkg/config/analysis/analyzers/telemetry/providers.go`.

use meltemi_api::{Diagnostic, Spec};

use crate::catalogue::TELEMETRY_PROVIDER;
use crate::finding::found;
use crate::mesh::Mesh;

pub(crate) fn providers(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    for object in mesh.objects() {
        let Spec::Telemetry(spec) = &object.spec else { continue };
        for (index, logging) in spec.access_logging.iter().enumerate() {
            if logging.disabled == Some(true) || !logging.providers.is_empty() {
                continue;
            }
            let message = "the entry names no provider, and MeshConfig has none to fall back on".to_owned();
            let finding = found(&TELEMETRY_PROVIDER, object, format!("spec.accessLogging[{index}]"), message);
            findings.push(finding.help("name one in `providers`, such as `envoy`"));
        }
    }
}
