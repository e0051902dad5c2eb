//! The difference of two messages field by field: what is left when the rules have said theirs.

use serde_json::{Map, Value as Json};

/// Longest value that is written out, in characters.
const MAX_VALUE: usize = 60;

/// Most fields of one message that are told one by one; with more it is another message.
const MAX_FIELDS: usize = 8;

/// Takes a field out of both messages. Both are `null` where neither has it.
pub(super) fn take(sides: &mut [Json; 2], field: &str) -> [Json; 2] {
    let [before, after] = sides;
    [before, after]
        .map(|side| side.as_object_mut().and_then(|fields| fields.remove(field)).unwrap_or_default())
}

/// What differs, as `PATH changes from A to B`.
pub(super) fn differences(sides: &[Json; 2]) -> Vec<String> {
    let mut found = Vec::new();
    walk("", &sides[0], &sides[1], &mut found);
    if found.len() > MAX_FIELDS {
        let rest = found.split_off(MAX_FIELDS).len();
        found.push(format!("{rest} more fields change"));
    }
    found
}

fn walk(path: &str, before: &Json, after: &Json, found: &mut Vec<String>) {
    if before == after {
        return;
    }
    match (before, after) {
        (Json::Object(old), Json::Object(new)) => {
            let nothing = Json::Null;
            for name in names(old, new) {
                let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let (before, after) = (old.get(name).unwrap_or(&nothing), new.get(name).unwrap_or(&nothing));
                walk(&inner, before, after, found);
            }
        }
        (Json::Array(old), Json::Array(new)) if old.len() == new.len() => {
            for (index, (before, after)) in old.iter().zip(new).enumerate() {
                walk(&format!("{path}[{index}]"), before, after, found);
            }
        }
        (Json::Null, new) => found.push(format!("`{path}` is set to {}", value(new))),
        (old, Json::Null) => found.push(format!("`{path}`, which is {}, is no longer set", value(old))),
        (old, new) => found.push(format!("`{path}` changes from {} to {}", value(old), value(new))),
    }
}

fn names<'m>(old: &'m Map<String, Json>, new: &'m Map<String, Json>) -> Vec<&'m String> {
    old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))).collect()
}

/// A value as it is written, or the beginning of it.
pub(super) fn value(json: &Json) -> String {
    let text = match json {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(MAX_VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_that_differs_is_told() {
        let sides =
            [json!({"a": {"b": 1, "c": [1, 2]}, "d": "x"}), json!({"a": {"b": 2, "c": [1, 3]}, "e": true})];
        assert_eq!(
            differences(&sides),
            [
                "`a.b` changes from 1 to 2",
                "`a.c[1]` changes from 2 to 3",
                "`d`, which is x, is no longer set",
                "`e` is set to true",
            ]
        );
        assert!(differences(&[sides[0].clone(), sides[0].clone()]).is_empty());
    }

    #[test]
    fn a_message_that_is_another_is_not_told_in_full() {
        let many = |by: u64| Json::Object((0..20).map(|n| (format!("f{n:02}"), json!(n * by))).collect());
        let told = differences(&[many(1), many(2)]);
        assert_eq!((told.len(), told.last().map(String::as_str)), (9, Some("11 more fields change")));
        assert_eq!(value(&json!("x".repeat(100))).chars().count(), MAX_VALUE + 1);
    }
}
