//! What a proxy sees, and which of several objects is in force for it.

use std::collections::BTreeMap;

use meltemi_api::istio::SimpleLb;
use meltemi_snapshot::{Client, EndpointAddress, Host, Policy, Protocol, Resolution, Scope, Snapshot};

use crate::mesh::{labels, snapshot};

fn with_scope<T>(
    snapshot: &Snapshot,
    namespace: &str,
    own: &[(&str, &str)],
    f: impl FnOnce(Scope<'_>) -> T,
) -> T {
    let own: BTreeMap<String, String> = labels(own);
    f(Scope::of(snapshot, Client { namespace, labels: &own, is_gateway: false }))
}

fn hosts(snapshot: &Snapshot, namespace: &str, own: &[(&str, &str)]) -> Vec<String> {
    let mut hosts: Vec<String> =
        with_scope(snapshot, namespace, own, |s| s.services().map(|s| s.host.to_string()).collect());
    hosts.sort();
    hosts
}

#[test]
fn exports_come_first() {
    let mesh = snapshot(
        "
{apiVersion: v1, kind: Service, metadata: {name: open, namespace: a}, spec: {ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: private, namespace: a, annotations: {networking.istio.io/exportTo: .}}, spec: {ports: [{port: 80}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: x, namespace: a}, spec: {hosts: [x.org], exportTo: [c], ports: [{number: 80, name: http}], resolution: DNS}}
",
    );
    assert_eq!(hosts(&mesh, "a", &[]), ["open.a.svc.cluster.local", "private.a.svc.cluster.local"]);
    assert_eq!(hosts(&mesh, "b", &[]), ["open.a.svc.cluster.local"]);
    assert_eq!(hosts(&mesh, "c", &[]), ["open.a.svc.cluster.local", "x.org"]);
}

#[test]
fn a_sidecar_narrows_and_its_selector_decides() {
    let mesh = snapshot(
        "
{apiVersion: v1, kind: Service, metadata: {name: one, namespace: a}, spec: {ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: two, namespace: b}, spec: {ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: three, namespace: b}, spec: {ports: [{port: 80}]}}
---
{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: root, namespace: istio-system}, spec: {egress: [{hosts: [b/two.b.svc.cluster.local]}]}}
---
{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: own, namespace: a}, spec: {egress: [{hosts: [./*]}]}}
---
{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: chosen, namespace: a}, spec: {workloadSelector: {labels: {app: x}}, egress: [{hosts: [./*, b/two.b.svc.cluster.local]}]}}
",
    );
    assert_eq!(hosts(&mesh, "a", &[("app", "x")]), ["one.a.svc.cluster.local", "two.b.svc.cluster.local"]);
    assert_eq!(hosts(&mesh, "a", &[("app", "y")]), ["one.a.svc.cluster.local"]);
    assert_eq!(hosts(&mesh, "c", &[]), ["two.b.svc.cluster.local"]);
}

#[test]
fn a_visible_virtual_service_pulls_its_destinations_in() {
    let mesh = snapshot(
        "
{apiVersion: v1, kind: Service, metadata: {name: one, namespace: a}, spec: {ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: two, namespace: b}, spec: {ports: [{port: 80}]}}
---
{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: own, namespace: a}, spec: {egress: [{hosts: [./*]}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: one, namespace: a}, spec: {hosts: [one], http: [{route: [{destination: {host: two.b.svc.cluster.local}}]}]}}
",
    );
    assert_eq!(hosts(&mesh, "a", &[]), ["one.a.svc.cluster.local", "two.b.svc.cluster.local"]);
}

#[test]
fn nobody_claims_the_host_of_a_kubernetes_service() {
    let mesh = snapshot(
        "
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: squat, namespace: b, creationTimestamp: '2001-01-01T00:00:00Z'}, spec: {hosts: [one.a.svc.cluster.local], ports: [{number: 80, name: http}], resolution: DNS}}
---
{apiVersion: v1, kind: Service, metadata: {name: one, namespace: a}, spec: {ports: [{port: 80}]}}
",
    );
    let resolution = |namespace| {
        with_scope(&mesh, namespace, &[], |s| s.service(&Host::service("one", "a")).map(|s| s.resolution))
    };
    assert_eq!(resolution("a"), Some(Resolution::Static));
    assert_eq!(resolution("c"), Some(Resolution::Static));
    assert_eq!(resolution("b"), Some(Resolution::Dns), "but in its own namespace");
}

#[test]
fn the_most_specific_then_the_oldest_virtual_service() {
    let mesh = snapshot(
        "
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a}, spec: {hosts: ['*.org'], http: [{directResponse: {status: 200}}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: b}, spec: {hosts: [x.org], http: [{directResponse: {status: 200}}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: c, creationTimestamp: '2020-01-01T00:00:00Z'}, spec: {hosts: [x.org], http: [{directResponse: {status: 200}}]}}
",
    );
    let name = |host: &str| {
        with_scope(&mesh, "default", &[], |s| {
            s.views()[0].virtual_service(&Host::new(host)).map(|v| v.object.id.name.to_string())
        })
    };
    assert_eq!(name("x.org").as_deref(), Some("c"));
    assert_eq!(name("y.org").as_deref(), Some("a"));
    assert_eq!(name("y.com"), None);
}

#[test]
fn destination_rules_by_namespace_and_host() {
    let rule = |name: &str, namespace: &str, host: &str| {
        format!(
            "---\n{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{host: {host}}}}}\n"
        )
    };
    let service =
        "{apiVersion: v1, kind: Service, metadata: {name: one, namespace: s}, spec: {ports: [{port: 80}]}}\n";
    let found = |rules: &[String], client: &str| {
        let mesh = snapshot(&format!("{service}{}", rules.concat()));
        with_scope(&mesh, client, &[], |s| {
            let service = s.service(&Host::service("one", "s")).expect("visible");
            s.destination_rule(service).map(|r| r.objects[0].id.name.to_string())
        })
    };
    let root = rule("root", "istio-system", "'*.local'");
    let at_service = rule("service", "s", "one");
    let at_client = rule("client", "c", "'*.svc.cluster.local'");
    let exact = rule("exact", "c", "one.s.svc.cluster.local");
    assert_eq!(found(std::slice::from_ref(&root), "c").as_deref(), Some("root"));
    assert_eq!(found(&[root.clone(), at_service.clone()], "c").as_deref(), Some("service"));
    assert_eq!(found(&[root.clone(), at_service.clone(), at_client.clone()], "c").as_deref(), Some("client"));
    assert_eq!(found(&[root.clone(), at_service.clone(), at_client, exact], "c").as_deref(), Some("exact"));
    let hidden = at_service.replace("spec: {", "spec: {exportTo: [.], ");
    assert_eq!(found(&[root, hidden], "c").as_deref(), Some("root"));
}

#[test]
fn policies_merge_by_block_and_port() {
    let mesh = snapshot(
        "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec:
  host: a
  trafficPolicy:
    loadBalancer: {simple: RANDOM}
    outlierDetection: {consecutive5xxErrors: 1}
    portLevelSettings: [{port: {number: 81}, loadBalancer: {simple: ROUND_ROBIN}}]
  subsets:
  - name: v1
    trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST}}
  - name: v2
    trafficPolicy:
      portLevelSettings: [{port: {number: 80}, connectionPool: {tcp: {maxConnections: 1}}}]
",
    );
    let rule = mesh.config.destination_rules.iter().next().expect("one rule");
    let policy = |subset: Option<&str>, port| {
        let p = Policy::of(Some(rule), subset.and_then(|s| rule.subset(s)), port);
        (p.load_balancer.and_then(|l| l.simple), p.outlier_detection.is_some(), p.connection_pool.is_some())
    };
    assert_eq!(policy(None, 80), (Some(SimpleLb::Random), true, false));
    assert_eq!(policy(None, 81), (Some(SimpleLb::RoundRobin), false, false));
    assert_eq!(policy(Some("v1"), 80), (Some(SimpleLb::LeastRequest), true, false));
    assert_eq!(policy(Some("v1"), 81), (Some(SimpleLb::LeastRequest), false, false));
    assert_eq!(policy(Some("v2"), 80), (None, false, true));
    assert_eq!(policy(Some("v2"), 81), (Some(SimpleLb::RoundRobin), false, false));
}

#[test]
fn endpoints_by_selector_readiness_and_port() {
    let mesh = snapshot(
        "
{apiVersion: v1, kind: Service, metadata: {name: one}, spec: {selector: {app: one}, ports: [{name: http, port: 80, targetPort: web}, {name: grpc-x, port: 81, targetPort: 9000}, {name: tcp, port: 82}]}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: one-0}, spec: {address: 10.0.0.2, ports: {web: 8080}, labels: {app: one}}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: one-1}, spec: {address: 10.0.0.1, labels: {app: one}}, status: {conditions: [{type: Healthy, status: 'True'}]}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: one-2}, spec: {address: 10.0.0.3, labels: {app: one}}, status: {conditions: [{type: Healthy, status: 'False'}]}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: one-3, namespace: other}, spec: {address: 10.0.0.4, labels: {app: one}}}
",
    );
    let service = &mesh.services.of_host(&Host::service("one", "default"))[0];
    let of = |port| -> Vec<(String, u16)> {
        let address = |a: &EndpointAddress| match a {
            EndpointAddress::Ip(ip) => ip.to_string(),
            other => panic!("not an IP address: {other:?}"),
        };
        mesh.endpoints.of(service, port).iter().map(|e| (address(&e.address), e.port)).collect()
    };
    assert_eq!(of(80), [("10.0.0.2".to_owned(), 8080)], "a workload without the named port is left out");
    assert_eq!(of(81), [("10.0.0.1".to_owned(), 9000), ("10.0.0.2".to_owned(), 9000)]);
    assert_eq!(of(82), [("10.0.0.1".to_owned(), 82), ("10.0.0.2".to_owned(), 82)]);
    assert_eq!(mesh.endpoints.of(service, 80)[0].workload, "one");
    assert_eq!(
        service.ports.iter().map(|p| p.protocol).collect::<Vec<_>>(),
        [Protocol::Http, Protocol::Grpc, Protocol::Tcp]
    );
}

#[test]
fn endpoints_of_service_entries() {
    let mesh = snapshot(
        "
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: s}, spec: {hosts: [s.org], resolution: STATIC, ports: [{number: 80, name: http, targetPort: 8080}], endpoints: [{address: 10.0.0.1, ports: {http: 1234}}, {address: 10.0.0.2, locality: eu/a}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: d}, spec: {hosts: [d.org], resolution: DNS, ports: [{number: 443, name: tls}]}}
",
    );
    let of = |host: &str, port| {
        let service = &mesh.services.of_host(&Host::new(host))[0];
        let endpoints = mesh.endpoints.of(service, port).iter();
        endpoints.map(|e| format!("{:?} {} {}", e.address, e.port, e.locality)).collect::<Vec<_>>()
    };
    assert_eq!(of("s.org", 80), ["Ip(10.0.0.1) 1234 ", "Ip(10.0.0.2) 8080 eu/a"]);
    assert_eq!(of("d.org", 443), ["Name(\"d.org\") 443 "]);
}
