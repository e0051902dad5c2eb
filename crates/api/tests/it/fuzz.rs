//! Whatever fields of Istio's kinds hold, they are read or told of: no panic, and what is read is written out and read
//! again the same. Objects are made of random fields of the CRDs with random values. `PROPTEST_CASES=100000` looks longer.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};

use crate::golden::parse_named;
use crate::ledger::{Leaf, leaves};

/// Texts, some of them right somewhere.
const TEXTS: [&str; 24] = [
    "",
    "a",
    "*",
    "*.a",
    "a.example.com",
    "1s",
    "0s",
    "-1s",
    "10.0.0.1",
    "10.0.0.0/8",
    "a/b",
    "/a",
    "80",
    "é",
    "a b",
    "[",
    "%A(",
    "UPGRADE",
    "STRICT",
    "x-user",
    "https://a/",
    "{}",
    "\u{0}",
    "5xx",
];

/// Values of all types, some of them right somewhere.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        select(&TEXTS[..]).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        select(vec![0, 1, 80, 100, 301, 500, 65535]).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::Array),
            vec((select(&TEXTS[..]), inner), 0..3).prop_map(|entries| {
                Value::Object(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

/// Lays one value over another: mappings and the first items of lists are joined.
fn lay(over: Value, base: &mut Value) {
    match (over, base) {
        (Value::Object(over), Value::Object(base)) => {
            for (key, value) in over {
                lay(value, base.entry(key).or_insert(Value::Null));
            }
        }
        (Value::Array(over), Value::Array(base)) if over.len() == 1 && !base.is_empty() => {
            lay(over.into_iter().next().unwrap_or_default(), &mut base[0]);
        }
        (over, base) => *base = over,
    }
}

/// An object of the kind of one field, with some fields of that kind.
fn object(leaves: &[Leaf<'_>], first: Index, fields: &[(Index, Option<Index>, Value)]) -> Value {
    let kind = leaves[first.index(leaves.len())].kind;
    let of_kind: Vec<&Leaf<'_>> = leaves.iter().filter(|leaf| leaf.kind == kind).collect();
    let mut object = json!({ "spec": Map::new() });
    for (field, fitting, value) in fields {
        let leaf = of_kind[field.index(of_kind.len())];
        let fit = fitting.map(|index| {
            let candidates = leaf.candidates();
            candidates[index.index(candidates.len())].clone()
        });
        lay(leaf.object(&fit.unwrap_or_else(|| value.clone())), &mut object);
    }
    object
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fields_with_any_values(
        first in any::<Index>(),
        fields in vec((any::<Index>(), any::<Option<Index>>(), value()), 1..12),
    ) {
        let text = object(&leaves(), first, &fields).to_string();
        let (objects, diagnostics) = parse_named(&text, "fuzz.json");
        prop_assert_eq!(&parse_named(&text, "fuzz.json").1, &diagnostics);
        prop_assert!(objects.len() <= 1);
        prop_assert!(!objects.is_empty() || !diagnostics.is_empty());
        for object in objects {
            let (again, told) = parse_named(&object.to_json().to_string(), "again.json");
            prop_assert!(again.len() == 1 && again[0].same_content(&object), "{text}: {told:#?}");
        }
    }
}
