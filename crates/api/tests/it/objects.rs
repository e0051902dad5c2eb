//! Sound texts and what is read from them.

use std::time::Duration;

use meltemi_api::istio::StringMatch;
use meltemi_api::kubernetes::PortRef;
use meltemi_api::{Kind, Object, Spec};

use crate::golden::parse_named;

/// Parses a text that has nothing wrong with it.
fn sound(text: &str) -> Vec<Object> {
    let (objects, diagnostics) = parse_named(text, "sound.yaml");
    assert!(diagnostics.is_empty(), "{diagnostics:#?}");
    objects
}

const VIRTUAL_SERVICE: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
  labels: {app.kubernetes.io/name: reviews}
  creationTimestamp: \"2026-01-02T03:04:05Z\"
spec:
  hosts: [reviews]
  http:
  - match:
    - headers:
        end-user: {exact: jason}
        x-debug: {}
    route:
    - destination: {host: reviews, subset: v2, port: {number: 9080}}
  - route:
    - destination:
        host: reviews
        subset: v1
      weight: 90
    - destination: {host: reviews, subset: v3}
      weight: 10
    timeout: 1.5s
    retries: {attempts: 3, perTryTimeout: 500ms, retryOn: \"5xx,503\"}
";

#[test]
fn a_virtual_service_is_read_with_its_spans() {
    let objects = sound(VIRTUAL_SERVICE);
    let object = &objects[0];
    assert_eq!(object.id.to_string(), "VirtualService default/reviews");
    assert_eq!(object.meta.created_unix_seconds, Some(1_767_323_045));
    let Spec::VirtualService(service) = &object.spec else { panic!("wrong kind") };
    let headers = &service.http[0].matches[0].headers;
    assert_eq!(headers["end-user"], StringMatch::Exact("jason".into()));
    assert_eq!(headers["x-debug"], StringMatch::Present);
    assert_eq!(service.http[1].timeout, Some(Duration::from_millis(1500)));
    assert_eq!(service.http[1].route[1].weight, Some(10));

    let span = object.spans.get("spec.http[1].route[0].destination.subset").unwrap();
    assert_eq!((span.line, span.column), (19, 17));
    assert_eq!(&VIRTUAL_SERVICE[span.start..span.end], "v1");
    let label = object.spans.get("metadata.labels[\"app.kubernetes.io/name\"]").unwrap();
    assert_eq!(&VIRTUAL_SERVICE[label.start..label.end], "reviews");
    assert_eq!(object.spans.nearest("spec.http[1].mirror.host"), object.spans.get("spec.http[1]"));
}

#[test]
fn json_lists_and_documents_read_alike() {
    let yaml = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec: {selector: {app: a}, ports: [{name: http, port: 80, targetPort: web}, {name: tcp-x, port: 81, targetPort: 8081}]}
---
# nothing
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: a, namespace: shop}
";
    let json = "{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[\n\t{\"apiVersion\":\"v1\",\"kind\":\"Service\",
\t\"metadata\":{\"name\":\"a\",\"namespace\":\"shop\"},\"spec\":{\"selector\":{\"app\":\"a\"},\"ports\":[
\t{\"name\":\"http\",\"port\":80,\"targetPort\":\"web\"},{\"name\":\"tcp-x\",\"port\":81,\"targetPort\":8081}]}},
\t{\"apiVersion\":\"v1\",\"kind\":\"ServiceAccount\",\"metadata\":{\"name\":\"a\",\"namespace\":\"shop\"}}]}";
    let (from_yaml, from_json) = (sound(yaml), sound(json));
    assert_eq!(from_yaml.len(), 2);
    assert!(from_yaml.iter().zip(&from_json).all(|(a, b)| a.same_content(b)));
    let Spec::Service(service) = &from_yaml[0].spec else { panic!("wrong kind") };
    assert_eq!(service.ports[0].target_port, Some(PortRef::Name("web".into())));
    assert_eq!(service.ports[1].target_port, Some(PortRef::Number(8081)));
}

#[test]
fn written_out_and_read_again_an_object_is_the_same() {
    for object in sound(VIRTUAL_SERVICE) {
        let again = sound(&object.to_json().to_string());
        assert!(object.same_content(&again[0]), "{:#?}", again[0]);
    }
}

#[test]
fn the_health_of_a_workload_entry_is_read() {
    let text = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: a-0}
spec: {address: 127.0.0.1, ports: {http: 9080}, labels: {app: a}}
status: {conditions: [{type: Healthy, status: \"False\", lastProbeTime: null, message: refused}]}
";
    let objects = sound(text);
    assert_eq!(objects[0].kind(), Kind::WorkloadEntry);
    assert_eq!(objects[0].status.condition("Healthy"), Some(false));
    assert_eq!(objects[0].status.condition("Ready"), None);
}

#[test]
fn anchors_and_merge_keys_expand() {
    let text = "
apiVersion: v1
kind: ConfigMap
metadata: {name: a, annotations: &all {x: \"1\", y: \"2\"}}
data:
  <<: *all
  y: \"3\"
";
    let objects = sound(text);
    let Spec::ConfigMap(map) = &objects[0].spec else { panic!("wrong kind") };
    assert_eq!(map.data["x"], "1");
    assert_eq!(map.data["y"], "3");
}

#[test]
fn a_broken_document_does_not_hide_the_next() {
    let text = "kind: [\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
    let (objects, diagnostics) = parse_named(text, "f.yaml");
    assert_eq!(objects.len(), 1);
    assert_eq!(objects[0].id.to_string(), "Namespace a");
    assert_eq!(objects[0].spans.get("metadata.name").unwrap().line, 5);
    assert_eq!(diagnostics.len(), 1);
}

#[test]
fn windows_and_editors_leave_their_marks() {
    let text = "\u{feff}# comment\r\n--- # start\r\napiVersion: v1\r\nkind: ConfigMap\r\nmetadata:\r\n  name: a\r\ndata:\r\n  x: |\r\n    one\r\n    two\r\n";
    let objects = sound(text);
    let Spec::ConfigMap(map) = &objects[0].spec else { panic!("wrong kind") };
    assert_eq!(map.data["x"], "one\ntwo\n");
    let name = objects[0].spans.get("metadata.name").unwrap();
    assert_eq!((&text[name.start..name.end], name.line, name.column), ("a", 6, 9));
}

#[test]
fn brackets_may_close_at_the_margin() {
    let text = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: a}
spec:
  egress:
  - hosts: [
      \"*/*\",
    ]
    port: {number: 80}
  - hosts: [
    \"./*\"
  ]
";
    let Spec::Sidecar(sidecar) = &sound(text)[0].spec else { panic!("wrong kind") };
    assert_eq!(sidecar.egress[1].hosts, ["./*"]);
}

#[test]
fn an_empty_text_is_as_good_as_none() {
    let text = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: [a.example.com]
  ports: [{number: 80, name: http, protocol: \"\"}]
";
    let Spec::ServiceEntry(entry) = &sound(text)[0].spec else { panic!("wrong kind") };
    assert_eq!(entry.ports[0].protocol, None);
}
