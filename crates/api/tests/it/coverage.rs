//! Every field of Istio's CRDs is either read or refused by name; none is taken for a misspelling, and none is
//! dropped. `testdata/crd-fields.txt` lists the fields, one path per line.

use meltemi_api::{Kind, codes};
use serde_json::{Value, json};

use crate::golden::parse_named;

const FIELDS: &str = include_str!("../../testdata/crd-fields.txt");

/// `http[].match[].uri.exact` as a document that has just this field.
fn document(path: &str, leaf: Value) -> Value {
    let path = path.replace("[]", ".[]").replace("{}", ".{}");
    path.split('.').rev().fold(leaf, |below, step| match step {
        "[]" => json!([below]),
        "{}" => json!({ "key": below }),
        key => json!({ key: below }),
    })
}

#[test]
fn every_crd_field_is_known() {
    let mut kind = "";
    let mut seen = 0;
    for line in FIELDS.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            kind = heading.split(' ').next().unwrap();
            continue;
        }
        let path = line.split(' ').next().unwrap();
        let version = kind.parse().map_or_else(|()| "networking.istio.io/v1".to_owned(), Kind::api_version);
        let object = json!({
            "apiVersion": version,
            "kind": kind,
            "metadata": { "name": "a" },
            "spec": document(path, json!("x")),
        });
        let (_, diagnostics) = parse_named(&object.to_string(), "crd.json");
        let lost = diagnostics.iter().find(|diagnostic| diagnostic.code == codes::UNKNOWN_FIELD.id);
        assert!(lost.is_none(), "{kind} {path}: {:?}", lost.map(|diagnostic| &diagnostic.message));
        seen += 1;
    }
    assert!(seen > 400, "only {seen} fields");
}
