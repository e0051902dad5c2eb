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

#[test]
fn peer_authentications() {
    let policy = |namespace: &str, name: &str, spec: &str| {
        format!(
            "---\n{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: {name}, namespace: {namespace}}}, spec: {spec}}}\n"
        )
    };
    let strict = "{mtls: {mode: STRICT}}";
    let selected = "{selector: {matchLabels: {app: reviews}}, mtls: {mode: STRICT}}";
    assert_eq!(
        found(
            &[
                policy("default", "a", strict),
                policy("default", "b", strict),
                policy("default", "c", selected)
            ]
            .concat()
        ),
        ["MEL0215 PeerAuthentication b spec.selector"]
    );
    assert_eq!(found(&policy("istio-system", "a", selected)), ["MEL0216 PeerAuthentication a spec.selector"]);
}

#[test]
fn rules_that_contradict_the_workloads() {
    let entry = "---\n{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: reviews-v2-0}, spec: {address: 10.0.0.2, serviceAccount: r, labels: {app: reviews}}}\n";
    let with = |mode: &str, client: &str| {
        found(&format!(
            "{entry}---\n{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: p}}, spec: {{mtls: {{mode: {mode}}}}}}}
---\n{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: d}}, spec: {{host: reviews, trafficPolicy: {{tls: {{mode: {client}}}}}}}}}\n"
        ))
    };
    let finding = ["MEL0220 DestinationRule d spec.trafficPolicy.tls.mode"];
    assert_eq!(with("STRICT", "DISABLE"), finding);
    assert_eq!(with("DISABLE", "ISTIO_MUTUAL"), finding);
    assert_eq!(with("PERMISSIVE", "DISABLE"), Vec::<String>::new());
    assert_eq!(with("STRICT", "ISTIO_MUTUAL"), Vec::<String>::new());
}

/// Plain text may join TLS on a port, but TLS does not join plain text.
#[test]
fn servers_and_secrets() {
    let text = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g}
spec:
  selector: {istio: edge}
  servers:
  - {port: {number: 443, name: a, protocol: HTTPS}, hosts: [a.org], tls: {mode: SIMPLE, credentialName: whole}}
  - {port: {number: 443, name: b, protocol: HTTPS}, hosts: [b.org], tls: {mode: MUTUAL, credentialName: whole}}
  - {port: {number: 443, name: c, protocol: HTTPS}, hosts: [c.org, a.org], tls: {mode: SIMPLE, credentialName: half}}
  - {port: {number: 443, name: d, protocol: HTTP}, hosts: [d.org]}
  - {port: {number: 443, name: e, protocol: TLS}, hosts: [e.org], tls: {mode: PASSTHROUGH}}
  - {port: {number: 443, name: f, protocol: HTTPS}, hosts: [f.org], tls: {mode: SIMPLE, credentialNames: [whole, nobody]}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: edge-0, namespace: infra}, spec: {address: 10.0.0.9, labels: {istio: edge}}}
---
{apiVersion: v1, kind: Secret, metadata: {name: whole, namespace: infra}, stringData: {tls.crt: a, tls.key: b}}
---
{apiVersion: v1, kind: Secret, metadata: {name: half, namespace: infra}, stringData: {tls.crt: a}}
";
    assert_eq!(
        found(text),
        [
            "MEL0218 Gateway g spec.servers[1].tls.credentialName",
            "MEL0219 Gateway g spec.servers[2].hosts[1]",
            "MEL0218 Gateway g spec.servers[2].tls.credentialName",
            "MEL0211 Gateway g spec.servers[4].port.protocol",
            "MEL0211 Gateway g spec.servers[5].port.protocol",
            "MEL0217 Gateway g spec.servers[5].tls.credentialNames[1]",
        ]
    );
}

/// A condition is left out whole, and told once, whichever gateway brings it.
#[test]
fn server_names_belong_to_the_oldest() {
    let gateway = "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: g}, spec: {selector: {istio: edge}, servers: [\
        {port: {number: 443, name: a, protocol: TLS}, hosts: ['*.org'], tls: {mode: PASSTHROUGH}}, \
        {port: {number: 444, name: b, protocol: TLS}, hosts: ['*.org'], tls: {mode: PASSTHROUGH}}]}}\n---\n";
    let route = |port: u16, names: &str| {
        format!(
            "{{hosts: ['*.org'], gateways: [g], tls: [{{match: [{{port: {port}, sniHosts: [{names}]}}], route: [{{destination: {{host: reviews, port: {{number: 9080}}}}}}]}}]}}"
        )
    };
    let of = |port, names| {
        let (a, b) = (virtual_service("a", &route(443, "a.org")), virtual_service("b", &route(port, names)));
        found(&format!("{gateway}{a}---\n{b}"))
    };
    assert_eq!(of(443, "b.org, a.org"), ["MEL0231 VirtualService b spec.tls[0].match[0].sniHosts"]);
    assert_eq!(of(443, "b.org"), Vec::<String>::new());
    assert_eq!(of(444, "a.org"), Vec::<String>::new());
}

#[test]
fn tls_of_an_ingress_listener_needs_the_port_for_itself() {
    let sidecar = "{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: s}, spec: {workloadSelector: {labels: {app: reviews}}, \
        ingress: [{port: {number: 8443, protocol: HTTPS, name: a}, tls: {mode: SIMPLE, serverCertificate: /c, privateKey: /k}}]}}\n";
    let off = "---\n{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p}, spec: {selector: {matchLabels: {app: reviews}}, portLevelMtls: {8443: {mode: DISABLE}}}}\n";
    assert_eq!(found(sidecar), ["MEL0121 Sidecar s spec.ingress[0].tls"]);
    assert_eq!(found(&format!("{sidecar}{off}")), Vec::<String>::new());
}

#[test]
fn hosts_of_services() {
    let entry = |name: &str, hosts: &str, more: &str| {
        format!(
            "---\n{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: {name}}}, spec: {{hosts: {hosts}, ports: [{{number: 80, name: http, protocol: HTTP}}], {more}}}}}\n"
        )
    };
    let squat = entry("squat", "[x.example, reviews.default.svc.cluster.local]", "resolution: DNS");
    assert_eq!(found(&squat), ["MEL0250 ServiceEntry squat spec.hosts[1]"]);
    let twice =
        |more: &str| [entry("a", "[x.example]", "resolution: DNS"), entry("b", "[x.example]", more)].concat();
    assert_eq!(found(&twice("resolution: NONE")), ["MEL0250 ServiceEntry b spec.hosts[0]"]);
    assert_eq!(found(&twice("resolution: DNS")), Vec::<String>::new());
    let elsewhere =
        entry("b", "[x.example]", "resolution: NONE").replace("{name: b}", "{name: b, namespace: b}");
    let both = [entry("a", "[x.example]", "resolution: DNS"), elsewhere].concat();
    assert_eq!(found(&both), Vec::<String>::new(), "each namespace sees its own");
}

#[test]
fn names_without_dots_are_not_those_of_entries() {
    let text = format!(
        "{}---\n{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: a}}, spec: {{hosts: [serviceA], resolution: DNS, ports: [{{number: 80, name: http, protocol: HTTP}}]}}}}",
        virtual_service("v", "{hosts: [v.example], http: [{route: [{destination: {host: serviceA}}]}]}"),
    );
    assert_eq!(found(&text), ["MEL0202 VirtualService v spec.http[0].route[0].destination.host"]);
}

#[test]
fn a_service_with_slices_has_endpoints() {
    let service = "{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {selector: {app: db}, ports: [{name: tcp, port: 1}]}}";
    assert_eq!(found(service), ["MEL0214 Service db spec.selector"]);
    let slice = "---\n{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: db-1, labels: {kubernetes.io/service-name: db}}, addressType: IPv4, ports: [{name: tcp, port: 1}], endpoints: [{addresses: [10.0.0.1]}]}";
    assert_eq!(found(&format!("{service}\n{slice}")), Vec::<String>::new());
    let set = "---\n{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db}, spec: {serviceName: db, selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, image: x}]}}}}";
    assert_eq!(found(&format!("{service}\n{set}")), Vec::<String>::new(), "it is to run");
}
