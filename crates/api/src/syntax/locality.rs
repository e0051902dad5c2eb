//! Localities: `region/zone/subzone`.

use super::{Flaw, Verdict};
use crate::codes;

/// Parts of a locality.
const PARTS: usize = 3;

/// `region`, `region/zone` or `region/zone/subzone`, of which the last part may be `*`.
pub(crate) fn locality(text: &str) -> Verdict {
    let parts: Vec<&str> = text.splitn(PARTS, '/').collect();
    let reason = if parts.iter().any(|part| part.is_empty()) {
        "a part is empty"
    } else if text.strip_suffix('*').unwrap_or(text).contains('*') {
        "`*` must be the last part"
    } else {
        return Ok(());
    };
    let flaw = Flaw::new(&codes::BAD_NAME, format!("`{text}` is not a locality: {reason}"));
    Err(flaw.help("write `region`, `region/zone` or `region/zone/subzone`"))
}

/// A region alone.
pub(crate) fn region(text: &str) -> Verdict {
    if !text.contains(['/', '*']) {
        return Ok(());
    }
    let message = format!("`{text}` is not a region: it has `/` or `*`");
    Err(Flaw::new(&codes::BAD_NAME, message).help("write the region alone"))
}

/// A label key, or a label with a value.
pub(crate) fn failover_label(text: &str) -> Verdict {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    super::label_key(key).and_then(|()| super::label_value(value))
}
