//! Which DestinationRules merge, and which one is in force for whom.

use std::fmt::Write;

use meltemi_snapshot::{Client, Host, Policy, Scope};

use crate::mesh::{labels, snapshot};

const SERVICE: &str =
    "{apiVersion: v1, kind: Service, metadata: {name: one, namespace: s}, spec: {ports: [{port: 80}]}}\n";

/// A rule for the service; rules are older the sooner they come in the alphabet.
fn rule(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: {name}, namespace: {namespace}}}, \
         spec: {{host: one.s.svc.cluster.local{spec}}}}}\n"
    )
}

/// The merged objects in force for a client with a label `app`, or in front of its own service for `None`.
fn in_force(rules: &[String], client: &str, app: Option<&str>) -> String {
    let mesh = snapshot(&format!("{SERVICE}{}", rules.concat()));
    let labels = labels(&[("app", app.unwrap_or("caller"))]);
    let client = Client { namespace: client, labels: &labels, is_gateway: false };
    let scope = Scope::of(&mesh, client);
    let service = scope.service(&Host::service("one", "s")).expect("visible");
    let found = match app {
        Some(_) => scope.destination_rule(service),
        None => scope.inbound_rule(service),
    };
    let mut names = String::new();
    for object in found.map_or(&[][..], |rule| &rule.objects) {
        write!(names, "{} ", object.id.name).expect("a String takes everything");
    }
    names.trim_end().to_owned()
}

#[test]
fn rules_for_some_workloads_come_first_and_stay_at_home() {
    let rules = [
        rule("all", "c", ""),
        rule("callers", "c", ", workloadSelector: {matchLabels: {app: caller}}"),
        rule("callers-too", "c", ", workloadSelector: {matchLabels: {app: caller}}"),
        rule("others", "c", ", workloadSelector: {matchLabels: {app: other}}"),
        rule("service", "s", ", workloadSelector: {matchLabels: {app: caller}}"),
    ];
    assert_eq!(in_force(&rules, "c", Some("caller")), "callers callers-too");
    assert_eq!(in_force(&rules, "c", Some("other")), "others");
    assert_eq!(in_force(&rules, "c", Some("third")), "all");
    assert_eq!(in_force(&rules, "c", None), "all", "whom one calls is not who is called");
    assert_eq!(in_force(&rules, "d", Some("caller")), "", "nothing of it is exported");
}

#[test]
fn rules_merge_where_they_are_exported_alike_or_further() {
    let rules = [
        rule("a", "s", ", exportTo: [c]"),
        rule("b", "s", ", exportTo: [c]"),
        rule("z", "s", ", exportTo: [c, d]"),
    ];
    assert_eq!(in_force(&rules[..2], "c", Some("x")), "a b");
    assert_eq!(in_force(&rules, "d", Some("x")), "z");
    assert_eq!(in_force(&rules[..2], "s", Some("x")), "", "not even its own namespace sees it");
}

#[test]
fn what_the_root_namespace_keeps_to_itself_is_for_itself() {
    let rules = [
        rule("mesh", "istio-system", ""),
        rule("root", "istio-system", ", exportTo: [.]"),
        rule("service", "s", ""),
    ];
    assert_eq!(in_force(&rules, "istio-system", Some("x")), "root");
    assert_eq!(in_force(&[rules[0].clone(), rules[2].clone()], "istio-system", Some("x")), "service");
    assert_eq!(in_force(&rules[..2], "c", Some("x")), "mesh");
}

#[test]
fn the_mesh_says_who_sees_a_silent_rule() {
    let mesh = "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, \
                data: {mesh: 'defaultDestinationRuleExportTo: [.]'}}\n";
    let rules = [rule("service", "s", ""), mesh.to_owned()];
    assert_eq!(in_force(&rules, "s", Some("x")), "service");
    assert_eq!(in_force(&rules, "c", Some("x")), "");
}

#[test]
fn the_mesh_fills_blocks_that_the_rule_leaves_open() {
    let mesh = snapshot(
        "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: 'defaultTrafficPolicy: {connectionPool: {tcp: {maxConnections: 5}}, outlierDetection: {consecutive5xxErrors: 3}}'
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec:
  host: a
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 1}
    proxyProtocol: {version: V1}
    portLevelSettings: [{port: {number: 81}, loadBalancer: {simple: RANDOM}}]
  subsets:
  - name: v1
    trafficPolicy: {portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}
",
    );
    let rule = mesh.config.destination_rules.iter().next().expect("one rule");
    let policy = |rule: Option<&_>, subset: Option<&_>, port| {
        let policy = Policy::in_mesh(&mesh.config.mesh, rule, subset, port);
        let errors = policy.outlier_detection.and_then(|outlier| outlier.consecutive_5xx_errors);
        (policy.connection_pool.is_some(), errors, policy.proxy_protocol.is_some())
    };
    let rule = Some(&**rule);
    let v1 = rule.and_then(|rule| rule.subset("v1"));
    assert_eq!(policy(None, None, 80), (true, Some(3), false));
    assert_eq!(policy(rule, None, 80), (true, Some(1), true));
    assert_eq!(policy(rule, None, 81), (true, Some(3), false), "a port takes nothing from its rule");
    assert_eq!(policy(rule, v1, 80), (false, None, true), "a port of a subset takes what ports do not have");
    assert_eq!(policy(rule, v1, 82), (true, Some(1), true));
}
