//! The example shop: nothing in it is broken, and its gateway opens the port that the README names.

use std::path::Path;
use std::sync::Arc;

use meltemi_api::Severity;
use meltemi_snapshot::{Inputs, Snapshot};
use meltemi_translate::{Options, translate};

use crate::mesh;

#[test]
fn the_example_is_sound() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop");
    let mut objects = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "yaml") {
            objects.extend(mesh::objects(&std::fs::read_to_string(path).unwrap()));
        }
    }
    let (snapshot, diagnostics) = Snapshot::build(&Inputs { objects });
    let broken: Vec<_> = diagnostics.iter().filter(|d| d.severity > Severity::Info).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    let node = "
id: router~127.1.2.9~shop-gateway-0.default~default.svc.cluster.local
metadata: {MELTEMI_GATEWAY_BIND: 127.0.0.1, LABELS: {istio: ingressgateway}}";
    let resources = translate(&snapshot, &mesh::shape(node), &Options::default());
    let names = |list: &[Arc<meltemi_translate::Resource>]| -> Vec<String> {
        list.iter().map(|r| r.name.to_string()).collect()
    };
    assert_eq!(names(&resources.listeners), ["127.0.0.1_8080"]);
    assert_eq!(names(&resources.routes), ["http.8080"]);
}
