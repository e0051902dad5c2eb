//! Whatever users write, the mesh is built and translated: no panic, no hang, and the same bytes each time.
//!
//! Inputs are the golden cases with damage: values replaced by odd ones, keys removed, copied and moved between objects.
//! `PROPTEST_CASES=100000` looks longer.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use meltemi_api::Object;
use meltemi_snapshot::{Inputs, Snapshot};
use meltemi_translate::{Options, ProxyShape, translate};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};

use crate::mesh;

/// Far longer than any of these small meshes takes, even on a busy machine.
const BOUND: Duration = Duration::from_secs(20);

/// Texts that are odd in some place.
const TEXTS: [&str; 24] = [
    "",
    "*",
    "a",
    "*.",
    "*.example.com",
    "a.example.com",
    "reviews",
    "10.0.0.1",
    "::1",
    "10.0.0.0/8",
    "unix:///tmp/s",
    "mesh",
    "0s",
    "1s",
    "9999h",
    "HTTP",
    "TCP",
    "TLS",
    "../x",
    "/",
    "a/b/c",
    "%REQ(:path)%",
    ".*",
    "é",
];

struct Case {
    objects: Vec<Value>,
    shape: ProxyShape,
    options: Options,
}

static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut directories: Vec<_> =
        std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    directories.sort();
    let read = |dir: &Path| {
        let text = std::fs::read_to_string(dir.join("input.yaml")).unwrap();
        let objects = mesh::objects(&text).iter().map(|object| object.to_json()).collect();
        Case { objects, shape: mesh::shape_of(dir), options: mesh::options(dir) }
    };
    directories.iter().map(|dir| read(dir)).collect()
});

/// A change to one of the objects.
#[derive(Clone, Debug)]
struct Damage {
    object: Index,
    place: Index,
    kind: u8,
    value: Value,
    other: Index,
}

fn damage() -> impl Strategy<Value = Damage> {
    let value = prop_oneof![
        select(&TEXTS[..]).prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        select(vec![0, 1, 80, 443, 65535, 65536, -1]).prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(Value::Null),
    ];
    (any::<Index>(), any::<Index>(), 0..6u8, value, any::<Index>())
        .prop_map(|(object, place, kind, value, other)| Damage { object, place, kind, value, other })
}

/// The paths of all values below one, itself included.
fn paths(value: &Value, path: &str, found: &mut Vec<String>) {
    found.push(path.to_owned());
    match value {
        Value::Object(map) => {
            for (key, below) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                paths(below, &format!("{path}/{key}"), found);
            }
        }
        Value::Array(list) => {
            for (index, below) in list.iter().enumerate() {
                paths(below, &format!("{path}/{index}"), found);
            }
        }
        _ => {}
    }
}

fn apply(objects: &mut Vec<Value>, damage: &Damage) {
    let at = damage.object.index(objects.len());
    let spare = objects[damage.other.index(objects.len())].clone();
    let mut places = Vec::new();
    paths(&objects[at], "", &mut places);
    let place = &places[damage.place.index(places.len())];
    if damage.kind == 0 {
        return objects.push(objects[at].clone());
    }
    let Some(target) = objects[at].pointer_mut(place) else { return };
    match (damage.kind, target) {
        (1, Value::Object(map)) => remove(map, damage.other),
        (1, Value::Array(list)) if !list.is_empty() => drop(list.remove(damage.other.index(list.len()))),
        (2, Value::Array(list)) if !list.is_empty() => {
            let copy = list[damage.other.index(list.len())].clone();
            list.push(copy);
        }
        (3, target) => {
            let mut others = Vec::new();
            paths(&spare, "", &mut others);
            let from = &others[damage.other.index(others.len())];
            *target = spare.pointer(from).cloned().unwrap_or_default();
        }
        (_, target) => *target = damage.value.clone(),
    }
}

fn remove(map: &mut Map<String, Value>, which: Index) {
    let keys: Vec<String> = map.keys().cloned().collect();
    if !keys.is_empty() {
        map.remove(&keys[which.index(keys.len())]);
    }
}

/// What of the objects can be put in force.
fn sound(objects: &[Value]) -> Vec<Arc<Object>> {
    let text = Value::Array(objects.to_vec()).to_string();
    let (objects, _) = meltemi_api::parse(&text, &"fuzz.json".into());
    objects.into_iter().map(Arc::new).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_meshes_are_built_and_translated(case in any::<Index>(), damages in vec(damage(), 1..8)) {
        let case = &CASES[case.index(CASES.len())];
        let mut objects = case.objects.clone();
        damages.iter().for_each(|damage| apply(&mut objects, damage));
        let began = Instant::now();
        let objects = sound(&objects);
        let (snapshot, diagnostics) = Snapshot::build(&Inputs { objects: objects.clone() });
        let resources = translate(&snapshot, &case.shape, &case.options);
        prop_assert!(began.elapsed() < BOUND);
        let (again, repeated) = Snapshot::build(&Inputs { objects });
        prop_assert_eq!(&diagnostics, &repeated);
        prop_assert_eq!(&translate(&again, &case.shape, &case.options), &resources);
    }
}
