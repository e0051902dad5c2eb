//! Suites against a small mesh: what is as expected passes, and every other thing is told.

use std::path::Path;

use super::suite;

const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: quay}
spec: {selector: {app: quay}, ports: [{name: http, port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: quay-v1}
spec:
  selector: {matchLabels: {app: quay}}
  template:
    metadata: {labels: {app: quay, version: v1}}
    spec: {containers: [{name: a, command: [quay], ports: [{containerPort: 80}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: quay}
spec:
  hosts: [quay]
  http:
  - match: [{uri: {prefix: /old}}]
    redirect: {uri: /new}
  - name: calm
    timeout: 2s
    route: [{destination: {host: quay, subset: v1}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: quay}
spec: {host: quay, subsets: [{name: v1, labels: {version: v1}}]}
";

fn differences(tests: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    write("mesh.yaml", MESH);
    let tests = format!("config: [mesh.yaml]\n{tests}");
    write("mesh.test.yaml", &tests);
    let verdicts = suite(Path::new(&folder.path().join("mesh.test.yaml"))).expect("a suite");
    verdicts.into_iter().flat_map(|verdict| verdict.differences).collect()
}

fn expecting(request: &str, expect: &str) -> Vec<String> {
    differences(&format!("tests: [{{name: a, from: quay-v1, request: '{request}', expect: {{{expect}}}}}]"))
}

#[test]
fn what_is_as_expected_passes() {
    let expect = "destinations: [{host: quay, subset: v1, percent: 100}], route: calm, error: none, effects: [timeout 2 s]";
    assert_eq!(expecting("http://quay/", expect), Vec::<String>::new());
    assert_eq!(
        expecting("http://quay/old", "status: 301, location: 'http://quay/new'"),
        Vec::<String>::new()
    );
}

#[test]
fn every_difference_is_told() {
    let expect = "destinations: [{host: quay, subset: v2}], route: storm, status: 200";
    assert_eq!(
        expecting("http://quay/", expect),
        [
            "status: expected 200, got none",
            "route: expected storm, got calm",
            "destinations: quay subset v2 is not among outbound|80|v1|quay.default.svc.cluster.local",
            "destinations: outbound|80|v1|quay.default.svc.cluster.local was not expected",
        ]
    );
}

#[test]
fn who_is_not_there_cannot_send() {
    let tests = "tests: [{name: a, from: ship, request: 'http://quay/', expect: {}}]";
    assert_eq!(differences(tests), ["there is no workload `ship`; there are quay-v1.default"]);
}

#[test]
fn the_example_shop_is_as_expected() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop.test.yaml");
    let verdicts = suite(&file).expect("a suite");
    assert!(verdicts.iter().all(|verdict| verdict.passed), "{verdicts:#?}");
    assert_eq!(verdicts.len(), 4);
}
