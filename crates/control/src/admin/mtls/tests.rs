//! Policies and rules in, what is said of each port out.

use meltemi_snapshot::Inputs;

use super::*;

/// Two replicas of `reviews`, of which one has no sidecar.
const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {selector: {app: reviews}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-v1-0, namespace: shop}
spec: {address: 10.0.0.1, serviceAccount: reviews, labels: {app: reviews, version: v1}, ports: {http: 8080, metrics: 9090}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-v2-0, namespace: shop}
spec: {address: 10.0.0.2, labels: {app: reviews, version: v2}, ports: {http: 8080}}
";

fn policy(spec: &str) -> String {
    format!(
        "---\n{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: p, namespace: shop}}, spec: {spec}}}\n"
    )
}

fn rule(namespace: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: r, namespace: {namespace}}}, spec: {{host: reviews.shop.svc.cluster.local, {spec}}}}}\n"
    )
}

/// One line per port: mode and its source, then the calls; callers of `shop` have certificates, those of `old` none.
fn told(more: &str) -> Vec<String> {
    let (objects, broken) = meltemi_api::parse(&format!("{MESH}{more}"), &"mesh.yaml".into());
    assert!(broken.is_empty(), "{broken:#?}");
    let snapshot = Snapshot::build(&Inputs { objects: objects.into_iter().map(Arc::new).collect() }).0;
    let line = |port: &Port| {
        let said = |by: &Option<String>| by.as_ref().map_or_else(String::new, |by| format!(" ({by})"));
        let calls = port.calls.iter().map(|calls| {
            let from: Vec<_> = calls.from.iter().map(String::as_str).collect();
            let subset = calls.subset.as_ref().map_or_else(String::new, |subset| format!("/{subset}"));
            let refused = if calls.is_let_in { "" } else { " refused" };
            format!(" | {}{subset} {}{}{refused}", from.join(","), calls.sends, said(&calls.by))
        });
        format!("{}:{} {}{}", port.address, port.port, port.mode.unwrap_or("-"), said(&port.by))
            + &calls.collect::<String>()
    };
    of(&snapshot, &[("shop", true), ("old", false)].into()).iter().map(line).collect()
}

#[test]
fn by_itself_the_two_ends_decide() {
    assert_eq!(
        told(""),
        [
            "10.0.0.1:8080 PERMISSIVE | old plaintext | shop mtls",
            "10.0.0.1:9090 PERMISSIVE",
            "10.0.0.2:8080 - | old,shop plaintext",
        ]
    );
}

#[test]
fn what_is_not_let_in_is_told() {
    let by = "(PeerAuthentication shop/p)";
    assert_eq!(
        told(&policy("{mtls: {mode: STRICT}}"))[0],
        format!("10.0.0.1:8080 STRICT {by} | old plaintext refused | shop mtls")
    );
    assert_eq!(
        told(&policy("{mtls: {mode: DISABLE}}"))[0],
        format!("10.0.0.1:8080 DISABLE {by} | old,shop plaintext")
    );
    let ports = policy(
        "{selector: {matchLabels: {app: reviews}}, mtls: {mode: STRICT}, portLevelMtls: {9090: {mode: DISABLE}}}",
    );
    assert_eq!(told(&ports)[1], format!("10.0.0.1:9090 DISABLE {by}"));
}

#[test]
fn rules_say_what_their_callers_send() {
    let disable = |namespace| rule(namespace, "trafficPolicy: {tls: {mode: DISABLE}}");
    let strict = policy("{mtls: {mode: STRICT}}");
    assert_eq!(
        told(&(strict + &disable("shop")))[0],
        "10.0.0.1:8080 STRICT (PeerAuthentication shop/p) | old,shop plaintext (DestinationRule shop/r) refused"
    );
    // Of one namespace of callers only.
    assert_eq!(
        told(&disable("old"))[0],
        "10.0.0.1:8080 PERMISSIVE | old plaintext (DestinationRule old/r) | shop mtls"
    );
    // Who has no certificate does not call where one is demanded.
    assert_eq!(
        told(&rule("shop", "trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}"))[0],
        "10.0.0.1:8080 PERMISSIVE | shop mtls (DestinationRule shop/r)"
    );
}

#[test]
fn a_subset_with_tls_of_its_own_stands_for_itself() {
    let subsets = rule(
        "shop",
        "subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {tls: {mode: DISABLE}}}, {name: v2, labels: {version: v2}}]",
    );
    let told = told(&subsets);
    assert_eq!(
        told[0],
        "10.0.0.1:8080 PERMISSIVE | old plaintext | old,shop/v1 plaintext (DestinationRule shop/r) | shop mtls"
    );
    assert_eq!(told[2], "10.0.0.2:8080 - | old,shop plaintext");
}
