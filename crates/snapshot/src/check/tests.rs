//! YAML of several objects → diagnostics.

use std::sync::Arc;

use crate::{Inputs, Snapshot};

const SHOP: &str = "
{apiVersion: v1, kind: Service, metadata: {name: reviews}, spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}, {name: admin, port: 9081}]}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: reviews-v1-0}, spec: {address: 10.0.0.1, labels: {app: reviews, version: v1}}}
";

/// What is found in the shop with `text` added, as `CODE kind name field`.
fn found(text: &str) -> Vec<String> {
    let (objects, broken) = meltemi_api::parse(&format!("{SHOP}---\n{text}"), &"shop.yaml".into());
    assert!(!broken.iter().any(|d| d.is_error()), "the fixture is broken: {broken:#?}");
    let inputs = Inputs { objects: objects.into_iter().map(Arc::new).collect() };
    let diagnostics = Snapshot::build(&inputs).1;
    let line = |d: &meltemi_api::Diagnostic| {
        let object = d.object.as_ref().expect("an object");
        assert!(d.location.is_some(), "every finding has a place: {d:?}");
        assert!(d.severity < meltemi_api::Severity::Error || d.code == "MEL0211", "{d:?}");
        format!("{} {} {} {}", d.code, object.kind, object.name, d.field)
    };
    diagnostics.iter().map(line).collect()
}

fn virtual_service(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

#[test]
fn a_sound_mesh_has_no_findings() {
    let route = virtual_service(
        "a",
        "{hosts: [reviews], http: [{route: [{destination: {host: reviews, port: {number: 9080}}}]}]}",
    );
    assert_eq!(found(&route), Vec::<String>::new());
}

#[test]
fn destinations() {
    let spec = "{hosts: [reviews], http: [{mirror: {host: nobody}, route: [
        {weight: 1, destination: {host: reviews.elsewhere}},
        {weight: 1, destination: {host: reviews, port: {number: 1}}},
        {weight: 1, destination: {host: reviews, subset: v9, port: {number: 9080}}}]}]}";
    assert_eq!(
        found(&virtual_service("a", spec)),
        [
            "MEL0202 VirtualService a spec.http[0].mirror.host",
            "MEL0202 VirtualService a spec.http[0].route[0].destination.host",
            "MEL0209 VirtualService a spec.http[0].route[1].destination.port.number",
            "MEL0203 VirtualService a spec.http[0].route[2].destination.subset",
        ]
    );
}

#[test]
fn subsets() {
    let rule = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b}
spec: {host: reviews, subsets: [{name: v3, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: c}
spec: {host: ratings}
---
";
    let route = "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v3, port: {number: 9080}}}]}]}";
    assert_eq!(
        found(&format!("{rule}{}", virtual_service("a", route))),
        [
            "MEL0205 DestinationRule a spec.subsets[1].labels",
            "MEL0213 DestinationRule b spec.host",
            "MEL0210 DestinationRule c spec.host",
        ]
    );
}

#[test]
fn gateways() {
    let gateway = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front}
spec:
  selector: {istio: front}
  servers:
  - {port: {number: 8080, name: http, protocol: HTTP}, hosts: ['*.example.com']}
  - {port: {number: 8080, name: tcp, protocol: TCP}, hosts: ['*']}
---
";
    let a = "{hosts: [a.example.com, a.org], gateways: [front, back], http: [{route: [{destination: {host: reviews}}]}]}";
    let a = virtual_service("a", a);
    let spec = "{hosts: [a.org], gateways: [front], http: [{directResponse: {status: 200}}]}";
    assert_eq!(
        found(&format!("{gateway}{a}")),
        [
            "MEL0204 VirtualService a spec.gateways[1]",
            "MEL0209 VirtualService a spec.http[0].route[0].destination",
            "MEL0211 Gateway front spec.servers[1].port.protocol",
        ]
    );
    let http_only =
        gateway.replace("  - {port: {number: 8080, name: tcp, protocol: TCP}, hosts: ['*']}\n", "");
    assert_eq!(
        found(&format!("{http_only}{}", virtual_service("b", spec))),
        ["MEL0212 VirtualService b spec.hosts[0]"]
    );
}

#[test]
fn hosts_of_the_mesh_belong_to_the_oldest() {
    let a = virtual_service("a", "{hosts: [reviews], http: [{directResponse: {status: 200}}]}");
    let b = virtual_service(
        "b",
        "{hosts: [reviews.default.svc.cluster.local], http: [{directResponse: {status: 200}}]}",
    );
    assert_eq!(found(&format!("{b}---\n{a}")), ["MEL0208 VirtualService b spec.hosts[0]"]);
    let elsewhere =
        b.replace("name: b", "name: b, namespace: other").replace("spec: {", "spec: {exportTo: [.], ");
    let private = a.replace("spec: {", "spec: {exportTo: [.], ");
    assert_eq!(found(&format!("{elsewhere}---\n{private}")), Vec::<String>::new());
}

#[test]
fn services_without_workloads() {
    let service = "{apiVersion: v1, kind: Service, metadata: {name: ratings}, spec: {selector: {app: ratings}, ports: [{port: 80}]}}\n";
    assert_eq!(found(service), ["MEL0214 Service ratings spec.selector"]);
    let deployment = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: ratings}
spec:
  selector: {matchLabels: {app: ratings}}
  template:
    metadata: {labels: {app: ratings}}
    spec: {containers: [{name: a, command: [a]}]}
";
    assert_eq!(found(&format!("{service}---{deployment}")), Vec::<String>::new());
}
