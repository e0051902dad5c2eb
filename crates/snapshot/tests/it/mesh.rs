//! Fixtures: text parsed by `api`.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_api::Object;
use meltemi_snapshot::{Inputs, Snapshot};

pub(crate) fn objects(text: &str) -> Vec<Arc<Object>> {
    let (objects, diagnostics) = meltemi_api::parse(text, &"mesh.yaml".into());
    assert!(!diagnostics.iter().any(|d| d.is_error()), "the fixture is broken: {diagnostics:#?}");
    objects.into_iter().map(Arc::new).collect()
}

pub(crate) fn snapshot(text: &str) -> Snapshot {
    Snapshot::build(&Inputs { objects: objects(text) }).0
}

pub(crate) fn labels(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}
