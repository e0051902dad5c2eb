//! Fixtures: text parsed by `api`, a node parsed as xDS would carry it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use meltemi_api::{Diagnostic, Object};
use meltemi_envoy::json::Codec;
use meltemi_snapshot::{Inputs, Snapshot};
use meltemi_translate::{MeshIdentity, Options, ProxyShape};

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

/// The options of a golden case.
pub(crate) fn options(case: &Path) -> Options {
    let names = fs::read_to_string(case.join("trust_domain")).unwrap_or_default();
    let mut names = names.lines().map(str::to_owned);
    let identity = names.next().map(|trust_domain| MeshIdentity { trust_domain, aliases: names.collect() });
    Options { identity, ..Options::default() }
}

/// The proxy of a golden case.
pub(crate) fn shape_of(case: &Path) -> ProxyShape {
    let node = fs::read_to_string(case.join("node.yaml")).unwrap();
    ProxyShape { is_authenticated: case.join("trust_domain").exists(), ..shape(&node) }
}

pub(crate) fn shape(node: &str) -> ProxyShape {
    ProxyShape::from_node(&Codec::new().parse(node).unwrap()).unwrap()
}
