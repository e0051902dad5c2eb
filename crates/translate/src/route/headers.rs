//! Header operations. Setting `Host` is not one of them in Envoy: it rewrites the authority.

use meltemi_envoy::config::core::v3::header_value_option::HeaderAppendAction;
use meltemi_envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use meltemi_snapshot::route::{HeaderChanges, HeaderEdits};

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
    pub(super) fn of(changes: &HeaderChanges) -> Edits {
        let HeaderChanges { request, response } = changes;
        let mut named = request.set.iter().chain(&request.add).filter(|(name, _)| is_authority(name));
        Edits {
            authority: named.next().map(|(_, value)| value.clone()),
            request_add: additions(request),
            request_remove: removals(request),
            response_add: additions(response),
            response_remove: removals(response),
        }
    }
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

/// What Envoy lets nobody change as a header.
fn is_internal(name: &str) -> bool {
    name.starts_with(':') || name.eq_ignore_ascii_case("host")
}

fn additions(edits: &HeaderEdits) -> Vec<HeaderValueOption> {
    let set = edits.set.iter().map(|entry| (entry, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = edits.add.iter().map(|entry| (entry, HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add)
        .filter(|((name, _), _)| !is_internal(name))
        .map(|((name, value), action)| HeaderValueOption {
            header: Some(HeaderValue { key: name.clone(), value: value.clone(), ..Default::default() }),
            append_action: action as i32,
            ..Default::default()
        })
        .collect()
}

fn removals(edits: &HeaderEdits) -> Vec<String> {
    edits.remove.iter().filter(|name| !is_internal(name)).cloned().collect()
}
