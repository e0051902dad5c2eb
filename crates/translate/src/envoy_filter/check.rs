//! Whether the values of patches are messages of the Envoy API, and what says so.
//!
//! Source: Istio `pkg/config/validation/envoyfilter`. An unknown field is a warning there, too: the rest is applied.

use meltemi_api::istio::EnvoyFilter;
use meltemi_api::{Diagnostic, Object, Severity, codes};
use meltemi_envoy::reflect::{Flaw, Reflection};
use meltemi_snapshot::Snapshot;

use super::value;

/// Node metadata that tells one proxy of a workload from another. Patches are for all of them.
const OF_ONE_PROXY: [&str; 3] = crate::shape::OF_ONE_PROXY;

/// Everything in the patches of EnvoyFilters that is not of the Envoy API. A patch with an error is left out, the others
/// of its object apply.
pub fn check(snapshot: &Snapshot) -> Vec<Diagnostic> {
    snapshot.config.envoy_filters.all().flat_map(|(object, filter)| of_object(object, filter)).collect()
}

fn of_object(object: &Object, filter: &EnvoyFilter) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (index, patch) in filter.config_patches.iter().enumerate() {
        let at = format!("spec.configPatches[{index}]");
        let metadata =
            patch.matches.iter().filter_map(|m| m.proxy.as_ref()).flat_map(|proxy| proxy.metadata.keys());
        for key in metadata.filter(|key| OF_ONE_PROXY.contains(&key.as_str())) {
            let message = format!(
                "`{key}` tells one proxy from another, but patches are for all proxies of a workload"
            );
            let field = format!("{at}.match.proxy.metadata.{key}");
            found.push(Diagnostic::new(&codes::NO_EFFECT_YET, message).at(object, field));
        }
        let message = patch.apply_to.and_then(value::message);
        if let (Some(message), Some(json)) = (message, value::json(patch)) {
            let flaws = Reflection::shared().flaws(&message, &json).into_iter();
            found.extend(flaws.map(|flaw| diagnostic(object, &at, &flaw)));
        }
    }
    found
}

fn diagnostic(object: &Object, patch: &str, flaw: &Flaw) -> Diagnostic {
    let mut field = format!("{patch}.patch.value");
    for step in &flaw.path {
        push(&mut field, step);
    }
    let diagnostic = Diagnostic::new(&codes::NOT_OF_ENVOY, flaw.message.clone()).at(object, field);
    match flaw.is_unknown_field {
        true => diagnostic.severity(Severity::Warning).help("it is left out, the rest of the patch applies"),
        false => diagnostic.help("the patch is left out"),
    }
}

/// As paths of objects have it: keys that are no words stand in brackets.
fn push(field: &mut String, step: &str) {
    let is_word = step.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if step.starts_with('[') {
        field.push_str(step);
    } else if is_word {
        field.push('.');
        field.push_str(step);
    } else {
        field.push_str(&format!("[\"{step}\"]"));
    }
}
