//! Fixtures: text parsed by `api`, a node parsed as xDS would carry it.

use std::sync::Arc;

use meltemi_api::{Diagnostic, Object};
use meltemi_envoy::json::Codec;
use meltemi_snapshot::{Inputs, Snapshot};
use meltemi_translate::ProxyShape;

/// The objects of a text that has no fault.
pub(crate) fn objects(text: &str) -> Vec<Arc<Object>> {
    let (objects, diagnostics) = meltemi_api::parse(text, &"input.yaml".into());
    let errors: Vec<_> = diagnostics.iter().filter(|d| d.is_error()).collect();
    assert!(errors.is_empty(), "the fixture is broken: {errors:#?}");
    objects.into_iter().map(Arc::new).collect()
}

pub(crate) fn snapshot(text: &str) -> (Snapshot, Vec<Diagnostic>) {
    Snapshot::build(&Inputs { objects: objects(text) })
}

pub(crate) fn shape(node: &str) -> ProxyShape {
    ProxyShape::from_node(&Codec::new().parse(node).unwrap()).unwrap()
}
