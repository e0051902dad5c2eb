//! `testdata/*.yaml` beside `*.txt`: what is found in the objects, as `CODE object field`. `UPDATE_GOLDEN=1` rewrites
//! the latter. Every code that the catalogue calls reported is found in one of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meltemi_analysis::{CATALOGUE, State, Subject, analyze};
use meltemi_api::{Diagnostic, parse, parse_unsound};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

fn findings(text: &str) -> Vec<Diagnostic> {
    let file: Arc<str> = "case.yaml".into();
    let (sound, diagnostics) = parse(text, &file);
    let shared = |objects: Vec<_>| objects.into_iter().map(Arc::new).collect();
    analyze(Subject {
        sound: shared(sound),
        unsound: shared(parse_unsound(text, &file)),
        diagnostics,
        are_secrets_hidden: false,
    })
}

fn line(finding: &Diagnostic) -> String {
    let object = finding.object.as_ref().map(ToString::to_string).unwrap_or_default();
    assert!(finding.location.is_some(), "every finding has a place: {finding:?}");
    format!("{} {object} {}\n", finding.code, finding.field)
}

#[test]
fn what_is_found_in_the_cases() {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory()).expect("the cases are there") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let findings = findings(&fs::read_to_string(&path).expect("the case is text"));
        found.extend(findings.iter().map(|finding| finding.code));
        let actual: String = findings.iter().map(line).collect();
        let golden = path.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &actual).expect("the golden file is writable");
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(actual, expected, "{} differs; UPDATE_GOLDEN=1 rewrites it", golden.display());
    }
    let reported = CATALOGUE.iter().filter(|entry| entry.state == State::Reported);
    let unproven: Vec<&str> =
        reported.map(|entry| entry.code.id).filter(|code| !found.contains(code)).collect();
    assert!(unproven.is_empty(), "no case has {unproven:?}");
}

#[test]
fn a_broken_gateway_is_still_one_that_routes_can_name() {
    let text = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec: {selector: {istio: ingressgateway}, servers: [{hosts: [\"*\"], port: {number: 80, protocol: HTTP}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec: {hosts: [a.example.com], gateways: [edge], http: [{redirect: {uri: /x}}]}
";
    let codes: Vec<&str> = findings(text).iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["IST0106"]);
}

#[test]
fn the_same_objects_in_another_order_have_the_same_findings() {
    let text = fs::read_to_string(directory().join("virtual-services.yaml")).expect("the case is text");
    let mut documents: Vec<&str> = text.split("---\n").collect();
    let forward: Vec<String> = findings(&text).iter().map(line).collect();
    documents.reverse();
    let backward: Vec<String> = findings(&documents.join("---\n")).iter().map(line).collect();
    assert_eq!(forward, backward);
}
