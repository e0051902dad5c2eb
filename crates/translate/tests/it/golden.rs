//! `testdata/<case>/{input.yaml, node.yaml} → expected.yaml`, canonical; a file `access_log` holds the path of one, a
//! file `trust_domain` names a trust domain and its aliases, for a proxy that has proved who it is.
//! `UPDATE_GOLDEN=1` rewrites.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meltemi_envoy::json::Codec;
use meltemi_translate::{Options, Resource, Resources, check_patches, translate};
use serde_json::{Value, json};

use crate::mesh;

#[test]
fn every_case_gives_the_expected_resources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut cases: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).collect();
    cases.sort();
    let codec = Codec::of_whole_api();
    let broken: Vec<_> = cases.iter().filter_map(|case| check(case, &codec).err()).collect();
    assert!(broken.is_empty(), "differs from expected.yaml (UPDATE_GOLDEN=1 rewrites): {broken:#?}");
}

fn check(case: &Path, codec: &Codec) -> Result<(), String> {
    let read = |name: &str| fs::read_to_string(case.join(name)).unwrap_or_default();
    let (snapshot, mut diagnostics) = mesh::snapshot(&read("input.yaml"));
    diagnostics.extend(check_patches(&snapshot));
    let access_log = read("access_log");
    let options = Options {
        access_log_file: Some(access_log.trim().to_owned()).filter(|path| !path.is_empty()),
        ..mesh::options(case)
    };
    let resources = translate(&snapshot, &mesh::shape_of(case), &options);
    diagnostics.extend(resources.left_out.iter().cloned());
    let diagnostics: Vec<_> = diagnostics
        .iter()
        .map(|d| json!(format!("{} {} {}: {}", d.code, d.object.as_ref().unwrap(), d.field, d.message)))
        .collect();
    let mut document = json!({
        "diagnostics": diagnostics,
        "clusters": dump(codec, &resources.clusters),
        "endpoints": dump(codec, &resources.endpoints),
        "listeners": dump(codec, &resources.listeners),
        "routes": dump(codec, &resources.routes),
        "origins": origins(&resources),
    });
    if !resources.secrets.is_empty() {
        document["secrets"] = dump(codec, &resources.secrets);
    }
    if !resources.extension_configs.is_empty() {
        document["extension_configs"] = dump(codec, &resources.extension_configs);
    }
    if !resources.name_tables.is_empty() {
        document["name_tables"] = dump(codec, &resources.name_tables);
    }
    let actual = serde_saphyr::to_string(&document).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(case.join("expected.yaml"), &actual).unwrap();
    }
    if actual == read("expected.yaml") { Ok(()) } else { Err(case.display().to_string()) }
}

fn dump(codec: &Codec, resources: &[Arc<Resource>]) -> Value {
    let body = |r: &Arc<Resource>| {
        let mut json = codec.any_to_json(&r.body).unwrap();
        json.as_object_mut().unwrap().remove("@type");
        json
    };
    resources.iter().map(body).collect()
}

/// The side table, one line an entry: what came from where.
fn origins(resources: &Resources) -> Value {
    let line = |(place, origin): (&meltemi_translate::Place, &meltemi_translate::Origin)| {
        let kind = place.type_url.rsplit('.').next().unwrap();
        let path = if place.path.is_empty() { String::new() } else { format!(" {}", place.path) };
        let at = format!("{}:{}", origin.file, origin.line);
        format!("{kind} {}{path} <- {} {} ({at})", place.resource, origin.object, origin.field)
    };
    resources.origins.iter().map(line).collect()
}
