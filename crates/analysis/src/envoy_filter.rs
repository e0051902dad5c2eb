//! Patches of EnvoyFilters whose order nothing says, and operations that their targets do not know.
//!
//! Source: Istio `pkg/config/analysis/analyzers/envoyfilter`.

use meltemi_api::istio::{ApplyTo, EnvoyConfigObjectPatch, PatchOperation};
use meltemi_api::{Code, Diagnostic, Spec};

use crate::catalogue::{ADD_PATCH, RELATIVE_PATCH, RELATIVE_PATCH_OF_VERSION, REMOVE_PATCH, REPLACE_PATCH};
use crate::finding::found;
use crate::mesh::Mesh;

pub(crate) fn patches(mesh: &Mesh<'_>, findings: &mut Vec<Diagnostic>) {
    // Names of filters that earlier patches are for, where they are for certain versions of the proxy.
    let mut of_versions: Vec<String> = Vec::new();
    for object in mesh.objects() {
        let Spec::EnvoyFilter(filter) = &object.spec else { continue };
        let is_ordered = filter.priority.unwrap_or_default() != 0;
        for (index, patch) in filter.config_patches.iter().enumerate() {
            let Some(operation) = patch.patch.as_ref().and_then(|patch| patch.operation) else { continue };
            let name = filter_name(patch);
            let code = match misplaced(patch.apply_to.unwrap_or_default(), operation) {
                Some(code) => Some(code),
                None if is_ordered || !is_relative(operation) => None,
                None if of_versions.contains(&name) => Some(&RELATIVE_PATCH_OF_VERSION),
                None => Some(&RELATIVE_PATCH),
            };
            let message = |code: &'static Code| match code.id {
                id if id == RELATIVE_PATCH.id || id == RELATIVE_PATCH_OF_VERSION.id => {
                    format!(
                        "what {} is relative to may come later: nothing orders the EnvoyFilters",
                        operation.as_str()
                    )
                }
                _ => format!(
                    "{} is not for {}",
                    operation.as_str(),
                    patch.apply_to.unwrap_or_default().as_str()
                ),
            };
            let field = format!("spec.configPatches[{index}]");
            findings.extend(code.map(|code| found(code, object, field, message(code)).help(help(code))));
            let proxy = patch.matches.as_ref().and_then(|matches| matches.proxy.as_ref());
            if proxy
                .is_some_and(|proxy| proxy.proxy_version.as_ref().is_some_and(|version| !version.is_empty()))
            {
                of_versions.push(name);
            }
        }
    }
}

fn help(code: &'static Code) -> &'static str {
    match code.id {
        id if id == RELATIVE_PATCH.id || id == RELATIVE_PATCH_OF_VERSION.id => {
            "set `priority`, or use INSERT_FIRST or ADD"
        }
        _ => "use another operation, such as MERGE",
    }
}

/// What is said of an operation that its target does not know.
fn misplaced(apply_to: ApplyTo, operation: PatchOperation) -> Option<&'static Code> {
    let is_route = matches!(apply_to, ApplyTo::RouteConfiguration | ApplyTo::HttpRoute);
    let is_replaceable =
        matches!(apply_to, ApplyTo::NetworkFilter | ApplyTo::HttpFilter | ApplyTo::VirtualHost);
    match operation {
        PatchOperation::Add => is_route.then_some(&ADD_PATCH),
        PatchOperation::Remove => is_route.then_some(&REMOVE_PATCH),
        PatchOperation::Replace => (!is_replaceable).then_some(&REPLACE_PATCH),
        _ => None,
    }
}

fn is_relative(operation: PatchOperation) -> bool {
    matches!(
        operation,
        PatchOperation::Remove
            | PatchOperation::Replace
            | PatchOperation::InsertBefore
            | PatchOperation::InsertAfter
    )
}

/// The name of the filter that a patch brings or, without one, is for; empty if it says none.
fn filter_name(patch: &EnvoyConfigObjectPatch) -> String {
    let Some(value) = patch.patch.as_ref().and_then(|patch| patch.value.as_ref()) else {
        return String::new();
    };
    if value.0.is_empty() {
        return String::new();
    }
    if let Some(name) = value.0.get("name") {
        return name.as_str().unwrap_or_default().to_owned();
    }
    let listener = patch.matches.as_ref().and_then(|matches| matches.listener.as_ref());
    let chain = listener.and_then(|listener| listener.filter_chain.as_ref());
    chain.and_then(|chain| chain.filter.as_ref()).map_or_else(String::new, |filter| filter.name.clone())
}
