//! Questions in, answers out: the batch form over whole configurations.

use meltemi_explain::batch::Batch;
use serde_json::{Value as Json, json};

fn ask(question: &Json) -> Json {
    serde_json::from_str(&Batch::default().answer(&question.to_string())).expect("an answer is JSON")
}

const HARBOUR: &str = "
apiVersion: v1
kind: Service
metadata: {name: quay, namespace: harbour}
spec: {clusterIP: 10.9.0.1, ports: [{name: http, port: 80}, {name: tcp-crane, port: 9000}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: quay, namespace: harbour}
spec:
  hosts: [quay]
  http:
  - match: [{headers: {ship: {exact: titanic}}}]
    route: [{destination: {host: iceberg}}]
  - route: [{destination: {host: quay}}]
";

fn quay(call: &Json) -> Json {
    ask(&json!({ "id": 7, "config": HARBOUR, "proxy": { "namespace": "harbour" }, "call": call }))
}

#[test]
fn a_request_meets_listener_virtual_host_route_and_cluster() {
    let answer = quay(&json!({ "address": "10.9.0.1", "port": 80, "host": "quay" }));
    assert_eq!(answer["id"], 7);
    assert_eq!(answer["error"], Json::Null);
    assert_eq!(answer["listener"], "0.0.0.0_80");
    assert_eq!(answer["route_config"], "80");
    assert_eq!(answer["virtual_host"], "quay.harbour.svc.cluster.local:80");
    assert_eq!(answer["cluster"], "outbound|80||quay.harbour.svc.cluster.local");
    let decisions = answer["decided_by"].as_array().expect("a list");
    let field =
        decisions.iter().find(|d| d["object"] == "VirtualService/harbour/quay").expect("the route decides");
    assert_eq!((&field["field"], &field["file"]), (&json!("spec.http[1]"), &json!("config")));
}

#[test]
fn a_short_name_that_nobody_answers_to_keeps_its_namespace_only() {
    let call = json!({ "port": 80, "host": "quay", "headers": { "ship": "titanic" } });
    let answer = quay(&call);
    assert_eq!(answer["cluster"], "outbound|80||iceberg.harbour");
    assert!(answer["detail"].as_str().expect("text").contains("503"), "{answer}");
    let codes: Vec<&str> =
        answer["diagnostics"].as_array().expect("a list").iter().filter_map(|d| d["code"].as_str()).collect();
    assert!(codes.contains(&"MEL0202"), "{codes:?}");
}

#[test]
fn bytes_go_to_the_listener_of_their_address() {
    let answer = quay(&json!({ "address": "10.9.0.1", "port": 9000, "protocol": "tcp" }));
    assert_eq!(answer["listener"], "10.9.0.1_9000");
    assert_eq!(answer["cluster"], "outbound|9000||quay.harbour.svc.cluster.local");
    let nobody = quay(&json!({ "port": 9001, "protocol": "tcp" }));
    assert_eq!(
        (&nobody["listener"], &nobody["cluster"]),
        (&json!("virtualOutbound"), &json!("PassthroughCluster"))
    );
}

#[test]
fn letters_of_hosts_are_kept_and_shares_are_told() {
    let config = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec: {hosts: [serviceA.example, serviceB.example], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [serviceA.example]
  http:
  - route:
    - {destination: {host: serviceA.example}, weight: 50}
    - {destination: {host: serviceB.example}, weight: 50}
";
    let answer = ask(&json!({ "config": config, "call": { "port": 80, "host": "serviceA.example" } }));
    let shares = json!([
        { "name": "outbound|80||serviceA.example", "weight": 50 },
        { "name": "outbound|80||serviceB.example", "weight": 50 },
    ]);
    assert_eq!((&answer["clusters"], &answer["cluster"]), (&shares, &json!("")), "{answer}");
}

#[test]
fn what_makes_no_sense_is_answered_too() {
    let mut batch = Batch::default();
    let mut error = |line: &str| -> (Json, String) {
        let answer: Json = serde_json::from_str(&batch.answer(line)).expect("an answer is JSON");
        (answer["error"].clone(), answer["detail"].as_str().expect("text").to_owned())
    };
    let invalid = json!("invalid_call");
    assert_eq!(error("no JSON").0, invalid);
    assert_eq!(error(r#"{"call": {"adress": "1.2.3.4"}}"#).0, invalid);
    let (code, detail) = error(r#"{"call": {"address": "quay"}}"#);
    assert_eq!((code, detail.as_str()), (invalid.clone(), "call.address: `quay` is no IP address"));
    assert_eq!(error(r#"{"proxy": {"interception_mode": "SOMETIMES"}}"#).0, invalid);
    assert_eq!(error(r#"{"config": "kind: [", "call": {"port": 80, "host": "a"}}"#).0, Json::Null);
}
