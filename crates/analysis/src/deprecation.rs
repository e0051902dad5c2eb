//! Fields that are deprecated.
//!
//! Source: Istio `pkg/config/analysis/analyzers/deprecation`.

use meltemi_api::{Diagnostic, Spec};

use crate::catalogue::DEPRECATED;
use crate::finding::found;
use crate::mesh::Mesh;

pub(crate) fn fields(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    for object in mesh.objects() {
        match &object.spec {
            Spec::VirtualService(spec) => {
                for index in 0..spec.http.len() {
                    let field = format!("spec.http[{index}].fault.delay.percent");
                    if object.spans.get(&field).is_some() {
                        let message = "`fault.delay.percent` is deprecated".to_owned();
                        findings.push(found(&DEPRECATED, object, field, message).help("use `percentage`"));
                    }
                }
            }
            Spec::Sidecar(_) => {
                let field = "spec.outboundTrafficPolicy.egressProxy";
                if object.spans.get(field).is_some() {
                    let message =
                        "`outboundTrafficPolicy.egressProxy` is deprecated and has no effect".to_owned();
                    findings.push(found(&DEPRECATED, object, field, message).help("remove it"));
                }
            }
            _ => {}
        }
    }
}
