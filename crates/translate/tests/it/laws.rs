//! Laws that hold for every mesh, tried on the inputs of the golden cases.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use meltemi_api::{Change, Object};
use meltemi_envoy::config::cluster::v3::Cluster;
use meltemi_envoy::json::Codec;
use meltemi_snapshot::{Inputs, Snapshot};
use meltemi_translate::{Options, ProxyShape, Resources, translate};
use proptest::prelude::*;
use serde_json::Value;

use crate::mesh;

pub(crate) struct Case {
    text: String,
    pub(crate) objects: Vec<Arc<Object>>,
    pub(crate) shape: ProxyShape,
    pub(crate) options: Options,
}

pub(crate) fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let read = |dir: &Path| {
        let text = std::fs::read_to_string(dir.join("input.yaml")).unwrap();
        Case { objects: mesh::objects(&text), text, shape: mesh::shape_of(dir), options: mesh::options(dir) }
    };
    std::fs::read_dir(root).unwrap().map(|e| read(&e.unwrap().path())).collect()
}

fn resources(objects: Vec<Arc<Object>>, case: &Case) -> Resources {
    translate(&Snapshot::build(&Inputs { objects }).0, &case.shape, &case.options)
}

#[test]
fn neither_order_nor_history_changes_a_byte() {
    let all = cases();
    let case = (0..all.len()).prop_flat_map(|i| {
        let objects = all[i].objects.clone();
        let count = objects.len();
        (Just(i), Just(objects).prop_shuffle(), 0..=count)
    });
    proptest!(ProptestConfig::with_cases(64), |((i, shuffled, cut) in case)| {
        let expected = resources(all[i].objects.clone(), &all[i]);
        prop_assert_eq!(&resources(shuffled.clone(), &all[i]), &expected);
        let (first, rest) = shuffled.split_at(cut);
        let (begun, _) = Snapshot::build(&Inputs { objects: first.to_vec() });
        let puts: Vec<Change> = rest.iter().map(|o| Change::Put(Arc::clone(o))).collect();
        let (grown, _) = begun.apply(&puts);
        prop_assert_eq!(&translate(&grown, &all[i].shape, &all[i].options), &expected);
    });
}

#[test]
fn a_comment_moves_origins_and_nothing_else() {
    for case in cases() {
        let before = resources(case.objects.clone(), &case);
        let moved = mesh::objects(&format!("# a comment\n\n{}", case.text));
        let after = resources(moved, &case);
        assert_eq!(before.by_type(), after.by_type());
        assert_ne!(before.origins, after.origins);
    }
}

#[test]
fn names_that_resources_use_are_resources() {
    let codec = Codec::new();
    for case in cases() {
        let resources = resources(case.objects.clone(), &case);
        let names = |list: &[Arc<meltemi_translate::Resource>]| -> BTreeSet<String> {
            list.iter().map(|r| r.name.to_string()).collect()
        };
        let eds = resources.clusters.iter().map(|r| r.body.unpack::<Cluster>().unwrap());
        let eds: BTreeSet<String> =
            eds.filter_map(|c| c.eds_cluster_config).map(|config| config.service_name).collect();
        assert_eq!(eds, names(&resources.endpoints));
        let mut rds = BTreeSet::new();
        for listener in &resources.listeners {
            collect(&codec.any_to_json(&listener.body).unwrap(), "route_config_name", &mut rds);
        }
        assert_eq!(rds, names(&resources.routes));
    }
}

/// A route may lead to a cluster that is not there only where the snapshot has said so.
#[test]
fn a_missing_cluster_has_a_diagnostic() {
    let codec = Codec::new();
    for case in cases() {
        let (snapshot, diagnostics) = Snapshot::build(&Inputs { objects: case.objects });
        let resources = translate(&snapshot, &case.shape, &case.options);
        let known: BTreeSet<String> = resources.clusters.iter().map(|r| r.name.to_string()).collect();
        let mut used = BTreeSet::new();
        for resource in resources.routes.iter().chain(&resources.listeners) {
            collect(&codec.any_to_json(&resource.body).unwrap(), "cluster", &mut used);
        }
        let missing: Vec<_> = used.difference(&known).collect();
        assert!(missing.is_empty() || !diagnostics.is_empty(), "{missing:?} without a diagnostic");
    }
}

/// All texts under a key, anywhere.
fn collect(value: &Value, key: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key).and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|v| collect(v, key, found));
        }
        Value::Array(items) => items.iter().for_each(|v| collect(v, key, found)),
        _ => {}
    }
}
