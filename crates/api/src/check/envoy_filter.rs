//! Rules across one EnvoyFilter. Whether its values are messages of the Envoy API is for whoever knows that.
//!
//! Source: Istio `pkg/config/validation/envoyfilter`.

use crate::codes;
use crate::decode::Decoder;
use crate::istio::{
    ApplyTo, EnvoyConfigObjectMatch, EnvoyConfigObjectPatch, EnvoyFilter, FilterMatch, Patch, PatchContext,
    PatchOperation,
};

/// The network filter whose own filters can be matched, under its name and its old one.
const CONNECTION_MANAGERS: [&str; 2] =
    ["envoy.filters.network.http_connection_manager", "envoy.http_connection_manager"];

pub(crate) fn envoy_filter(filter: &EnvoyFilter, decoder: &mut Decoder) {
    if !filter.target_refs.is_empty() {
        let message =
            "nothing that `targetRefs` can name takes patches, so they apply to no proxy".to_owned();
        let help = "use `workloadSelector`";
        decoder.report_below("targetRefs", &codes::NO_EFFECT_YET, message, help);
    }
}

pub(crate) fn envoy_config_object_patch(patch: &EnvoyConfigObjectPatch, decoder: &mut Decoder) {
    let context = patch.matches.as_ref().and_then(|m| m.context);
    if context == Some(PatchContext::Waypoint) {
        let message = "there are no waypoints, so the patch applies to nothing".to_owned();
        decoder.report_below("match.context", &codes::NO_EFFECT_YET, message, "");
    }
    let Some(apply_to) = patch.apply_to.filter(|to| *to != ApplyTo::Invalid) else {
        let message = "`applyTo` says what is patched".to_owned();
        return decoder.report_below("applyTo", &codes::MISSING_FIELD, message, "");
    };
    if apply_to == ApplyTo::Bootstrap {
        let message = "a proxy reads its bootstrap before it asks for anything, so the patch applies to none"
            .to_owned();
        let help = "change the bootstrap itself";
        decoder.report_below("applyTo", &codes::NO_EFFECT_YET, message, help);
    }
    operation(patch.patch.as_ref(), apply_to, decoder);
    if let Some(matches) = &patch.matches {
        object(matches, apply_to, decoder);
        filters(matches, apply_to, decoder);
    }
}

fn operation(patch: Option<&Patch>, apply_to: ApplyTo, decoder: &mut Decoder) {
    let Some(patch) = patch else {
        return decoder.report_below("patch", &codes::MISSING_FIELD, "`patch` is missing".to_owned(), "");
    };
    match patch.operation.unwrap_or_default() {
        PatchOperation::Invalid => {
            let message = "`operation` says what becomes of the objects".to_owned();
            decoder.report_below("patch.operation", &codes::MISSING_FIELD, message, "");
        }
        PatchOperation::Remove => {}
        operation if patch.value.is_none() => {
            let message = format!("{} needs a `value`", operation.as_str());
            decoder.report_below("patch.value", &codes::MISSING_FIELD, message, "");
        }
        operation if !has_effect(operation, apply_to) => {
            let message = format!("{} does nothing to a {}", operation.as_str(), apply_to.as_str());
            decoder.report_below("patch.operation", &codes::NO_USE, message, "");
        }
        _ => {}
    }
}

/// Which operations there are for what. What is inserted where order means nothing is added.
fn has_effect(operation: PatchOperation, apply_to: ApplyTo) -> bool {
    use PatchOperation as Is;
    let merges = matches!(operation, Is::Merge | Is::MergeAndReplaceList);
    let replaces = operation == Is::Replace;
    match apply_to {
        ApplyTo::Invalid => false,
        // The bootstrap is read before anything is sent.
        ApplyTo::Bootstrap => true,
        ApplyTo::Listener | ApplyTo::FilterChain | ApplyTo::Cluster => !replaces,
        ApplyTo::NetworkFilter | ApplyTo::HttpFilter | ApplyTo::ListenerFilter => {
            operation != Is::MergeAndReplaceList
        }
        ApplyTo::RouteConfiguration => merges,
        ApplyTo::VirtualHost => true,
        ApplyTo::HttpRoute => !replaces,
        ApplyTo::ExtensionConfig => !merges && !replaces,
    }
}

/// The match has to be one for the kind of object.
fn object(matches: &EnvoyConfigObjectMatch, apply_to: ApplyTo, decoder: &mut Decoder) {
    let set = [
        ("listener", matches.listener.is_some()),
        ("routeConfiguration", matches.route_configuration.is_some()),
        ("cluster", matches.cluster.is_some()),
    ];
    let own = match apply_to {
        ApplyTo::Listener
        | ApplyTo::FilterChain
        | ApplyTo::NetworkFilter
        | ApplyTo::HttpFilter
        | ApplyTo::ListenerFilter => "listener",
        ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute => "routeConfiguration",
        ApplyTo::Cluster => "cluster",
        ApplyTo::ExtensionConfig | ApplyTo::Bootstrap | ApplyTo::Invalid => "",
    };
    for (name, _) in set.into_iter().filter(|(name, is_set)| *is_set && *name != own) {
        let message = format!("a patch on a {} is not matched by a `{name}`", apply_to.as_str());
        let field = format!("match.{name}");
        if own.is_empty() {
            decoder.report_below(&field, &codes::NO_USE, message, "remove it");
        } else {
            decoder.report_below(&field, &codes::CONFLICTING_FIELDS, message, &format!("use `match.{own}`"));
        }
    }
}

fn filters(matches: &EnvoyConfigObjectMatch, apply_to: ApplyTo, decoder: &mut Decoder) {
    const FIELD: &str = "match.listener.filterChain.filter";
    let chain = matches.listener.as_ref().and_then(|listener| listener.filter_chain.as_ref());
    let Some(FilterMatch { name, sub_filter }) = chain.and_then(|chain| chain.filter.as_ref()) else {
        return;
    };
    if matches!(apply_to, ApplyTo::Listener | ApplyTo::FilterChain) {
        let message = format!("a {} is not matched by its filters", apply_to.as_str());
        decoder.report_below(FIELD, &codes::NO_USE, message, "");
    }
    if sub_filter.is_none() {
        return;
    }
    if apply_to != ApplyTo::HttpFilter {
        let message = format!("`subFilter` is for HTTP_FILTER, not for {}", apply_to.as_str());
        decoder.report_below(&format!("{FIELD}.subFilter"), &codes::CONFLICTING_FIELDS, message, "");
    } else if !CONNECTION_MANAGERS.contains(&name.as_str()) {
        let message = format!("`{name}` has no HTTP filters");
        let help = format!("write `{}`", CONNECTION_MANAGERS[0]);
        decoder.report_below(&format!("{FIELD}.name"), &codes::CONFLICTING_FIELDS, message, &help);
    }
}
