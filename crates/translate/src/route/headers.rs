//! Header operations. Setting `Host` is not one of them in Envoy: it rewrites the authority.

use meltemi_api::istio::{HeaderOperations, Headers};
use meltemi_envoy::config::core::v3::header_value_option::HeaderAppendAction;
use meltemi_envoy::config::core::v3::{HeaderValue, HeaderValueOption};

/// Operations in Envoy's form.
#[derive(Default)]
pub(super) struct Edits {
    pub(super) request_add: Vec<HeaderValueOption>,
    pub(super) request_remove: Vec<String>,
    pub(super) response_add: Vec<HeaderValueOption>,
    pub(super) response_remove: Vec<String>,
    /// The new authority.
    pub(super) authority: Option<String>,
}

impl Edits {
    pub(super) fn of(headers: Option<&Headers>) -> Edits {
        let Some(headers) = headers else { return Edits::default() };
        let mut edits = Edits::default();
        if let Some(request) = &headers.request {
            edits.authority = request.set.iter().find(|(k, _)| is_authority(k)).map(|(_, v)| v.clone());
            edits.request_add = additions(request, |name| !is_authority(name));
            edits.request_remove = request.remove.iter().filter(|n| !is_authority(n)).cloned().collect();
        }
        if let Some(response) = &headers.response {
            edits.response_add = additions(response, |_| true);
            edits.response_remove = response.remove.clone();
        }
        edits
    }
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

fn additions(operations: &HeaderOperations, wanted: impl Fn(&str) -> bool) -> Vec<HeaderValueOption> {
    let set = operations.set.iter().map(|entry| (entry, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = operations.add.iter().map(|entry| (entry, HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add)
        .filter(|((name, _), _)| wanted(name))
        .map(|((name, value), action)| HeaderValueOption {
            header: Some(HeaderValue { key: name.clone(), value: value.clone(), ..Default::default() }),
            append_action: action as i32,
            ..Default::default()
        })
        .collect()
}
