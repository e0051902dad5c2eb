//! Two meshes in, words out.

use meltemi_api::{Object, parse};
use meltemi_snapshot::Inputs;
use serde_json::json;

use super::*;

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: ratings}
spec: {selector: {app: ratings}, ports: [{name: http, port: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-v1-0, labels: {app: reviews, version: v1}}
spec: {address: 10.0.0.1, labels: {app: reviews, version: v1}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}, {name: v3, labels: {version: v3}}]
";

fn mesh(text: &str) -> Snapshot {
    let (objects, diagnostics) = parse(&format!("{SERVICES}---\n{text}"), &"mesh.yaml".into());
    assert!(!diagnostics.iter().any(meltemi_api::Diagnostic::is_error), "{diagnostics:?}");
    let objects: Vec<Arc<Object>> = objects.into_iter().map(Arc::new).collect();
    Snapshot::build(&Inputs { objects }).0
}

fn sidecar(name: &str, address: &str) -> Proxy {
    let node = json!({"id": format!("sidecar~{address}~{name}.default~default.svc.cluster.local"), "metadata": {
        "NAMESPACE": "default", "INTERCEPTION_MODE": "NONE", "HTTP_PROXY_PORT": "15002", "MELTEMI_SDS": "true",
        "LABELS": {"app": "web"}}});
    Proxy::of_nodes([(name, &node, false)].into_iter()).expect("a proxy").remove(0)
}

fn proxies() -> [Proxy; 2] {
    [sidecar("web-0", "10.0.1.1"), sidecar("web-1", "10.0.1.2")]
}

/// What is said of the change from one text to the other.
fn words(before: &str, after: &str) -> Vec<String> {
    let difference = compare(&mesh(before), &mesh(after), &proxies());
    difference.statements.into_iter().map(|statement| statement.text).collect()
}

fn virtual_service(http: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: reviews}}, \
         spec: {{hosts: [reviews], http: [{http}]}}}}"
    )
}

fn to(subset: &str, weight: u32) -> String {
    format!("{{destination: {{host: reviews, subset: {subset}}}, weight: {weight}}}")
}

#[test]
fn nothing_changes_between_meshes_that_are_the_same() {
    let text = virtual_service(&format!("{{route: [{}]}}", to("v1", 100)));
    let difference = compare(&mesh(&text), &mesh(&format!("# moved\n{text}")), &proxies());
    assert_eq!(difference, Difference { compared: 2, ..Difference::default() });
}

#[test]
fn a_share_that_moves_is_told_and_nothing_else() {
    let before = virtual_service(&format!("{{route: [{}]}}", to("v1", 100)));
    let after = virtual_service(&format!("{{route: [{}, {}]}}", to("v1", 90), to("v3", 10)));
    let difference = compare(&mesh(&before), &mesh(&after), &proxies());
    let [statement] = difference.statements.as_slice() else { panic!("{:?}", difference.statements) };
    assert_eq!(
        statement.text,
        "10 % of reviews moves to v3 (before 100 % v1; then 90 % v1, 10 % v3) for all callers"
    );
    assert_eq!(statement.proxies, ["web-0", "web-1"]);
    assert_eq!(statement.by.as_deref(), Some("VirtualService default/reviews spec.http[0]"));
    let changed = &difference.proxies[0].resources;
    assert!(
        changed.iter().all(|resource| resource.kind == "route" && resource.change == Change::Changed),
        "{changed:?}"
    );
}

#[test]
fn each_kind_of_change_has_its_words() {
    let route = |rest: &str| virtual_service(&format!("{{route: [{}]{rest}}}", to("v1", 100)));
    let plain = route("");
    for (before, after, told) in [
        (&plain, route(", timeout: 2s"), "requests for reviews may take 2s instead of as long as they like"),
        (
            &plain,
            route(", retries: {attempts: 5}"),
            "requests for reviews are tried again up to 5 times instead of 2 times",
        ),
        (&plain, String::new(), "are shared otherwise"),
        (
            &plain,
            virtual_service(&format!(
                "{{match: [{{headers: {{end-user: {{exact: jason}}}}}}], route: [{}]}}, {{route: [{}]}}",
                to("v3", 100),
                to("v1", 100)
            )),
            "requests for reviews with end-user: jason go to v3 of reviews",
        ),
        (
            &plain,
            virtual_service("{directResponse: {status: 503}}"),
            "requests for reviews are answered with 503; before, they go to v1 of reviews",
        ),
    ] {
        let told_words = words(before, &after);
        let is_told = told_words.iter().any(|words| words.contains(told))
            || (told == "are shared otherwise"
                && told_words.iter().any(|words| words.contains("moves to reviews")));
        assert!(is_told, "{told}: {told_words:#?}");
    }
}

/// What is said of a route that has more fields afterwards.
fn route_words(before: &Json, after: &Json) -> Vec<String> {
    let config = |route: &Json| {
        let host =
            json!({"name": "reviews.default.svc.cluster.local:9080", "domains": ["*"], "routes": [route]});
        json!({"name": "9080", "virtual_hosts": [host]})
    };
    let said = route::words("9080", &[config(before), config(after)], &|_, _| None);
    said.into_iter().map(|said| said.text).collect()
}

#[test]
fn faults_and_mirrors_are_told_with_their_shares() {
    let plain = json!({"match": {"prefix": "/"}, "route": {"cluster": "outbound|9080||reviews.default.svc.cluster.local"}});
    let mut faulty = plain.clone();
    faulty["typed_per_filter_config"] = json!({"envoy.filters.http.fault": {
        "abort": {"http_status": 503, "percentage": {"numerator": 100_000, "denominator": "MILLION"}},
        "delay": {"fixed_delay": "3s", "percentage": {"numerator": 50}}}});
    assert_eq!(
        route_words(&plain, &faulty),
        ["requests for reviews get injected faults: 50 % wait 3s, 10 % fail with 503"]
    );
    assert_eq!(route_words(&faulty, &plain), ["requests for reviews have no injected faults any more"]);
    let mut mirrored = plain.clone();
    mirrored["route"]["request_mirror_policies"] = json!([{"cluster": "outbound|9080||ratings.default.svc.cluster.local",
        "runtime_fraction": {"default_value": {"numerator": 2_000, "denominator": "TEN_THOUSAND"}}}]);
    assert_eq!(route_words(&plain, &mirrored), ["requests for reviews are mirrored: 20 % to ratings"]);
    assert_eq!(route_words(&mirrored, &plain), ["requests for reviews are not mirrored any more"]);
    let mut other = plain.clone();
    other["route"]["hash_policy"] = json!([{"terminal": true}]);
    assert_eq!(
        route_words(&plain, &other),
        [r#"requests for reviews: `hash_policy` is set to [{"terminal":true}]"#]
    );
}

#[test]
fn the_order_of_routes_matters() {
    let [one, two] =
        ["/a", "/b"].map(|prefix| json!({"match": {"prefix": prefix}, "route": {"cluster": "c"}}));
    let config = |routes: [&Json; 2]| json!({"virtual_hosts": [{"name": "reviews", "routes": routes}]});
    let said = route::words("9080", &[config([&one, &two]), config([&two, &one])], &|_, _| None);
    assert_eq!(
        said.iter().map(|said| said.text.as_str()).collect::<Vec<_>>(),
        ["the routes of reviews are tried in another order"]
    );
}

#[test]
fn destinations_and_endpoints_come_and_go() {
    let entry = "{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: e}, \
        spec: {address: 10.0.0.2, labels: {app: reviews, version: v1}}}";
    let told = words("", entry);
    assert!(
        told.contains(&"reviews gets the endpoint 10.0.0.2:9080 for all callers".to_owned()),
        "{told:#?}"
    );
    assert!(
        told.contains(&"v1 of reviews gets the endpoint 10.0.0.2:9080 for all callers".to_owned()),
        "{told:#?}"
    );
    let told = words(entry, "");
    assert!(
        told.iter().any(|words| words.starts_with("reviews loses the endpoint 10.0.0.2:9080")),
        "{told:#?}"
    );
    let service = "{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, \
        spec: {selector: {app: cart}, ports: [{name: http, port: 80}]}}";
    let told = words("", service);
    assert!(
        told.contains(&"cart.shop (port 80) becomes a destination for all callers".to_owned()),
        "{told:#?}"
    );
    assert!(told.contains(&"requests for cart.shop are known for all callers".to_owned()), "{told:#?}");
}

#[test]
fn policies_are_told_in_their_own_words() {
    let rule = |policy: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: ratings}}, \
             spec: {{host: ratings, trafficPolicy: {policy}}}}}"
        )
    };
    let told = words("", &rule("{loadBalancer: {simple: RANDOM}}"));
    assert!(
        told.iter().any(|words| words.contains("load balancing of ratings (port 9080) changes from")),
        "{told:#?}"
    );
    let told = words("", &rule("{tls: {mode: DISABLE}}"));
    let expected =
        "calls to ratings (port 9080) go in plaintext instead of mutual TLS where the other side has it";
    assert!(told.iter().any(|words| words.starts_with(expected)), "{told:#?}");
    let told = words("", &rule("{outlierDetection: {consecutive5xxErrors: 3}}"));
    assert!(
        told.iter().any(|words| words.starts_with("outlier detection of ratings (port 9080) begins")),
        "{told:#?}"
    );
}

#[test]
fn what_is_let_in_is_told_in_one_sentence() {
    let inbound = "{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: in}, spec: {workloadSelector: \
        {labels: {app: web}}, ingress: [{port: {number: 8080, protocol: HTTP, name: http}, defaultEndpoint: \
        '127.0.0.1:9000'}], egress: [{hosts: ['*/*']}]}}";
    let mode = |mode: &str| {
        let policy = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default}, \
            spec: {mtls: {mode: MODE}}}";
        format!("{inbound}\n---\n{}", policy.replace("MODE", mode))
    };
    let told = words(&mode("PERMISSIVE"), &mode("STRICT"));
    let [only] = told.as_slice() else { panic!("{told:#?}") };
    assert_eq!(
        only,
        "what is let in changes from plaintext and mutual TLS (PERMISSIVE) to mutual TLS alone (STRICT) for all proxies"
    );
    let told = words(&mode("STRICT"), &mode("DISABLE"));
    assert!(told[0].contains("to plaintext alone (DISABLE)"), "{told:#?}");
}

#[test]
fn who_is_concerned_is_said_in_few_words() {
    let sidecar_object = "{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: s}, \
        spec: {workloadSelector: {labels: {app: web}}, egress: [{hosts: [./ratings.default.svc.cluster.local]}]}}";
    let told = words("", sidecar_object);
    assert!(
        told.contains(&"reviews (port 9080) is no destination any more for all callers".to_owned()),
        "{told:#?}"
    );
    let one = [proxies(), [sidecar("db-0", "10.0.1.9"), sidecar("edge-0", "10.0.1.8")]].concat();
    let of = |names: &[&str]| {
        let said = names.iter().map(|name| ((*name).to_owned(), Said::new("it changes".into()))).collect();
        gather(said, &Knowledge::default(), &one)[0].text.clone()
    };
    assert_eq!(of(&["web-0", "web-1"]), "it changes for web");
    assert_eq!(of(&["web-1", "db-0"]), "it changes for db-0, web-1");
    assert_eq!(of(&["web-0", "web-1", "db-0", "edge-0"]), "it changes for all proxies");
}
