//! Services and endpoints from Kubernetes' objects and from ServiceEntries.

use std::collections::BTreeMap;

use meltemi_snapshot::{
    AddressUse, Client, EndpointAddress, Host, Protocol, Resolution, Resolver, Scope, Service, Snapshot,
    TrafficDistribution, Workload,
};

use crate::mesh::{labels, snapshot};

const V4: AddressUse = AddressUse { v4: true, v6: false, allocated: false };
const CAPTURED: AddressUse = AddressUse { v4: true, v6: true, allocated: true };

fn service<'a>(mesh: &'a Snapshot, host: &str) -> &'a Service {
    &mesh.services.of_host(&Host::new(host))[0]
}

/// `address:port locality workload account` of each endpoint.
fn endpoints(mesh: &Snapshot, host: &str, port: u16) -> Vec<String> {
    let address = |address: &EndpointAddress| match address {
        EndpointAddress::Ip(ip) => ip.to_string(),
        EndpointAddress::Name(name) => name.clone(),
        EndpointAddress::Pipe(path) => format!("unix:{path}"),
    };
    let of = mesh.endpoints.of(service(mesh, host), port).iter();
    of.map(|e| {
        format!("{}:{} {} {} {}", address(&e.address), e.port, e.locality, e.workload, e.service_account)
    })
    .collect()
}

const PODS: &str = "
{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: ready, labels: {app: a, pod-template-hash: abc}, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: shop-abc, uid: x, controller: true}]}, spec: {serviceAccountName: clerk, nodeName: n1, containers: [{name: c, image: x, ports: [{name: web, containerPort: 8080}]}]}, status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}], conditions: [{type: Ready, status: 'True', lastProbeTime: null}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: starting, labels: {app: a}}, spec: {containers: [{name: c, ports: [{name: web, containerPort: 8081}]}]}, status: {podIP: 10.0.0.2, conditions: [{type: Ready, status: 'False'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: done, labels: {app: a}}, spec: {containers: [{name: c}]}, status: {phase: Succeeded, podIP: 10.0.0.3, conditions: [{type: Ready, status: 'True'}]}}
";

#[test]
fn ready_pods_are_the_endpoints_of_a_service_without_slices() {
    let mesh = snapshot(&format!(
        "{PODS}---
{{apiVersion: v1, kind: Service, metadata: {{name: a}}, spec: {{selector: {{app: a}}, ports: [{{name: http, port: 80, targetPort: web}}, {{name: tcp, port: 81, targetPort: 9}}]}}}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: early}}, spec: {{selector: {{app: a}}, publishNotReadyAddresses: true, ports: [{{port: 80, targetPort: web}}]}}}}
"
    ));
    assert_eq!(endpoints(&mesh, "a.default.svc.cluster.local", 80), ["10.0.0.1:8080 r/z/ shop clerk"]);
    assert_eq!(endpoints(&mesh, "a.default.svc.cluster.local", 81), ["10.0.0.1:9 r/z/ shop clerk"]);
    assert_eq!(
        endpoints(&mesh, "early.default.svc.cluster.local", 80),
        ["10.0.0.1:8080 r/z/ shop clerk", "10.0.0.2:8081  starting default"]
    );
}

#[test]
fn slices_say_which_endpoints_a_service_has() {
    let mesh = snapshot(&format!(
        "{PODS}---
{{apiVersion: v1, kind: Service, metadata: {{name: a}}, spec: {{selector: {{app: a}}, ports: [{{name: http, port: 80, targetPort: web}}]}}}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: a-1, labels: {{kubernetes.io/service-name: a}}}}
addressType: IPv4
ports: [{{name: http, port: 8080, protocol: TCP}}, {{name: other, port: 1}}]
endpoints:
- {{addresses: [10.0.0.1], conditions: {{ready: true, serving: true, terminating: false}}, targetRef: {{kind: Pod, name: ready, namespace: default}}}}
- {{addresses: [10.0.0.9], conditions: {{}}, nodeName: n1, zone: z}}
- {{addresses: [10.0.0.8], conditions: {{ready: false}}}}
---
apiVersion: v1
kind: Endpoints
metadata: {{name: a}}
subsets: [{{addresses: [{{ip: 10.9.9.9}}], ports: [{{name: http, port: 1}}]}}]
"
    ));
    assert_eq!(
        endpoints(&mesh, "a.default.svc.cluster.local", 80),
        ["10.0.0.1:8080 r/z/ shop clerk", "10.0.0.9:8080 r/z/  "],
        "Endpoints count where there is no slice"
    );
}

#[test]
fn endpoints_stand_for_slices() {
    let mesh = snapshot(
        "
{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {ports: [{port: 5432, name: tcp}]}}
---
{apiVersion: v1, kind: Endpoints, metadata: {name: db}, subsets: [{addresses: [{ip: 10.1.0.1}], notReadyAddresses: [{ip: 10.1.0.2}], ports: [{port: 15432, name: tcp}]}]}
",
    );
    assert_eq!(endpoints(&mesh, "db.default.svc.cluster.local", 5432), ["10.1.0.1:15432   "]);
}

#[test]
fn kubernetes_services_of_every_type() {
    let mesh = snapshot(
        "
{apiVersion: v1, kind: Service, metadata: {name: dual}, spec: {clusterIP: 10.1.1.1, clusterIPs: [10.1.1.1, 'fd00::1'], ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: headless}, spec: {clusterIP: None, clusterIPs: [None], ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: lb}, spec: {type: LoadBalancer, clusterIP: 10.1.1.2, externalIPs: [192.0.2.1], trafficDistribution: PreferClose, internalTrafficPolicy: Local, ports: [{port: 80, nodePort: 30080}]}, status: {loadBalancer: {ingress: [{ip: 192.0.2.2, ipMode: VIP}, {hostname: lb.example}]}}}
---
{apiVersion: v1, kind: Service, metadata: {name: alias}, spec: {type: ExternalName, externalName: hop.default.svc.cluster.local}}
---
{apiVersion: v1, kind: Service, metadata: {name: hop}, spec: {type: ExternalName, externalName: dual.default.svc.cluster.local}}
---
{apiVersion: v1, kind: Service, metadata: {name: circle}, spec: {type: ExternalName, externalName: circle.default.svc.cluster.local}}
",
    );
    let of = |name: &str| service(&mesh, &format!("{name}.default.svc.cluster.local"));
    assert_eq!(of("dual").addresses_for(V4), ["10.1.1.1"]);
    assert_eq!(of("dual").addresses_for(CAPTURED), ["10.1.1.1", "fd00::1"]);
    let aliases: Vec<&str> = of("dual").aliases.iter().map(Host::as_str).collect();
    assert_eq!(aliases, ["alias.default.svc.cluster.local", "hop.default.svc.cluster.local"]);
    assert!(of("circle").aliases.is_empty() && of("circle").resolution == Resolution::Alias);
    assert!(of("headless").is_headless() && of("headless").addresses_for(CAPTURED).is_empty());
    assert_eq!(of("lb").external_addresses, ["192.0.2.1", "192.0.2.2", "lb.example"]);
    assert_eq!(of("lb").traffic_distribution, TrafficDistribution::PreferSameZone);
    assert!(of("lb").is_node_local);
}

#[test]
fn a_service_entry_selects_entries_and_pods() {
    let mesh = snapshot(&format!(
        "{PODS}---
{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: s}}, spec: {{hosts: [s.example], resolution: STATIC, location: MESH_INTERNAL, workloadSelector: {{labels: {{app: a}}}}, ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 8888}}]}}}}
---
{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: vm, labels: {{app: a}}}}, spec: {{address: 10.2.0.1, ports: {{http: 8}}, network: far, locality: eu/b, weight: 5, serviceAccount: vm}}}}
---
{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: named}}, spec: {{address: vm.example, labels: {{app: a}}}}}}
---
{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: unknown, annotations: {{proxy.istio.io/health-checks-enabled: 'true'}}}}, spec: {{address: 10.2.0.9, labels: {{app: a}}}}}}
"
    ));
    assert_eq!(
        endpoints(&mesh, "s.example", 80),
        ["10.0.0.1:8888 r/z/ shop clerk", "10.2.0.1:8 eu/b vm vm"],
        "names need resolution DNS, and health that nobody has told yet is none"
    );
    let far = &mesh.endpoints.of(service(&mesh, "s.example"), 80)[1];
    assert_eq!((far.network.as_str(), far.weight, far.has_mtls), ("far", 5, true));
    assert_eq!(far.labels["topology.kubernetes.io/zone"], "b");
}

#[test]
fn entries_of_one_host_and_namespace_are_one_service() {
    let entry = |name: &str, port: u16, address: &str, more: &str| {
        format!(
            "---\n{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: {name}}}, spec: {{hosts: [one.example], resolution: STATIC, {more} ports: [{{number: {port}, name: p{port}, protocol: HTTP}}], endpoints: [{{address: {address}}}]}}}}\n"
        )
    };
    let both = |more: &str| {
        let mesh = snapshot(&[entry("a", 80, "10.0.0.1", ""), entry("b", 81, "10.0.0.2", more)].concat());
        let own = labels(&[]);
        let scope = Scope::of(&mesh, Client { namespace: "default", labels: &own, is_gateway: false });
        let found = scope.service(&Host::new("one.example")).expect("visible");
        found.ports.iter().map(|port| port.number).collect::<Vec<_>>()
    };
    assert_eq!(both(""), [80, 81]);
    assert_eq!(both("exportTo: ['.'],"), [81], "what is exported to few comes first, and nothing is merged");
    let mesh = snapshot(&[entry("a", 80, "10.0.0.1", ""), entry("b", 80, "10.0.0.2", "")].concat());
    assert_eq!(endpoints(&mesh, "one.example", 80), ["10.0.0.1:80  a-0 ", "10.0.0.2:80  b-0 "]);
}

#[test]
fn hosts_keep_their_letters() {
    let mesh = snapshot(
        "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: a}, spec: {hosts: [serviceA], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [{address: 'unix:///run/a.sock'}]}}",
    );
    assert_eq!(endpoints(&mesh, "serviceA", 80), ["unix:/run/a.sock:0  a-0 "]);
    assert!(mesh.services.of_host(&Host::new("servicea")).is_empty());
}

#[test]
fn addresses_are_allocated_where_there_are_none() {
    let entry = |name: &str, more: &str| {
        format!(
            "---\n{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: {name}, labels: {{l: x}}}}, spec: {{hosts: [{name}.example], ports: [{{number: 80, name: tcp, protocol: TCP}}], {more}}}}}\n"
        )
    };
    let off = entry("opt-out", "resolution: DNS")
        .replace("l: x", "networking.istio.io/enable-autoallocate-ip: 'false'");
    let given = entry("given", "resolution: DNS").replace(
        "}}\n",
        "}, status: {addresses: [{host: given.example, value: 240.240.7.7}, {host: other, value: 240.240.7.8}]}}\n",
    );
    let mesh = snapshot(
        &[
            entry("dns", "resolution: DNS"),
            entry("own", "resolution: STATIC, addresses: [192.0.2.1, 192.0.2.2/32]"),
            entry("none", "resolution: NONE"),
            off,
            given,
        ]
        .concat(),
    );
    let of = |name: &str, used| service(&mesh, &format!("{name}.example")).addresses_for(used);
    assert_eq!(of("dns", CAPTURED), ["240.240.18.137", "2001:2::f0f0:1289"], "as istiod has it");
    assert!(of("dns", V4).is_empty(), "only for proxies whose agent answers with them");
    assert_eq!(of("own", CAPTURED), ["192.0.2.1", "192.0.2.2"]);
    assert!(of("none", CAPTURED).is_empty() && of("opt-out", CAPTURED).is_empty());
    assert_eq!(of("given", CAPTURED), ["240.240.7.7"]);
}

#[test]
fn mesh_config_says_who_sees_services_and_which_namespaces_count() {
    let mesh = snapshot(
        "
{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: '{defaultServiceExportTo: [.], discoverySelectors: [{matchLabels: {mesh: \"on\"}}, {matchExpressions: [{key: team, operator: In, values: [x]}]}]}'}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {mesh: 'on'}, annotations: {networking.istio.io/traffic-distribution: PreferSameNode}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: b, labels: {team: x}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: c}}
---
{apiVersion: v1, kind: Service, metadata: {name: one, namespace: a}, spec: {ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: two, namespace: b, annotations: {networking.istio.io/exportTo: '*'}}, spec: {ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: three, namespace: c, annotations: {networking.istio.io/exportTo: '*'}}, spec: {ports: [{port: 80}]}}
",
    );
    let seen = |namespace| {
        let own = BTreeMap::new();
        let scope = Scope::of(&mesh, Client { namespace, labels: &own, is_gateway: false });
        scope.services().map(|service| service.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(seen("a"), ["one", "two"]);
    assert_eq!(seen("b"), ["two"]);
    assert_eq!(
        service(&mesh, "one.a.svc.cluster.local").traffic_distribution,
        TrafficDistribution::PreferSameNode
    );
}

#[test]
fn protocols_of_ports() {
    let mesh = snapshot(
        "
{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80, name: http}, {port: 81, name: x, appProtocol: grpc}, {port: 3306, name: db}, {port: 82, name: other}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e}, spec: {hosts: [e.example], ports: [{number: 80, name: http}, {number: 3306, name: http-x, protocol: mysql}]}}
",
    );
    let of = |host: &str| service(&mesh, host).ports.iter().map(|port| port.protocol).collect::<Vec<_>>();
    use Protocol::{Grpc, Http, Tcp, Unsupported};
    assert_eq!(of("a.default.svc.cluster.local"), [Http, Grpc, Tcp, Unsupported]);
    assert_eq!(of("e.example"), [Unsupported, Tcp], "an entry says its protocols itself");
}

#[test]
fn a_workload_knows_whose_it_is() {
    let mesh = snapshot(&format!(
        "{PODS}---
{{apiVersion: v1, kind: Service, metadata: {{name: a, creationTimestamp: '2002-01-01T00:00:00Z'}}, spec: {{selector: {{app: a}}, ports: [{{name: http, port: 80, targetPort: web}}, {{name: http-2, port: 81, targetPort: 8080}}, {{name: dns, port: 53, protocol: UDP}}]}}}}
---
{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: s, creationTimestamp: '2001-01-01T00:00:00Z'}}, spec: {{hosts: [s.example], resolution: STATIC, ports: [{{number: 90, name: http, protocol: HTTP}}], endpoints: [{{address: 10.0.0.1, ports: {{http: 9}}}}]}}}}
"
    ));
    let targets = |address: &str, own: &[(&str, &str)]| {
        let (own, addresses) = (labels(own), [address.parse().expect("an address")]);
        let workload = Workload { namespace: "default", labels: &own, addresses: &addresses };
        let found = mesh.service_targets(workload).into_iter();
        found.map(|t| format!("{}:{}->{}", t.service.name, t.port.number, t.target)).collect::<Vec<_>>()
    };
    assert_eq!(targets("10.0.0.1", &[("app", "b")]), ["s.example:90->9", "a:80->8080"]);
    assert_eq!(targets("10.9.0.1", &[("app", "a")]), ["a:81->8080"], "taken at its word");
    assert!(targets("10.9.0.1", &[]).is_empty());
    let found = mesh.workload_labels("default", "10.0.0.1".parse().expect("an address"));
    assert_eq!(found.expect("described")["app"], "a");
}

#[test]
fn names_and_their_addresses() {
    let mesh = snapshot(
        "
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 10.1.1.1, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {clusterIP: None, selector: {app: db}, ports: [{name: a, port: 80}, {name: b, port: 81}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db-0, labels: {app: db}}, spec: {subdomain: db, containers: [{name: c}]}, status: {podIP: 10.0.0.1, conditions: [{type: Ready, status: 'True'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db-1, labels: {app: db, topology.istio.io/network: far}}, spec: {subdomain: db, hostname: other, containers: [{name: c}]}, status: {podIP: 10.0.0.2, conditions: [{type: Ready, status: 'True'}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: a}, spec: {hosts: [a.example], addresses: [192.0.2.1, 198.51.100.0/24], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: b}, spec: {hosts: [b.example], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: squat}, spec: {hosts: [web.default.svc.cluster.local], addresses: [192.0.2.9], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}]}}
",
    );
    let names = |network, is_gateway| {
        let own = BTreeMap::new();
        let scope = Scope::of(&mesh, Client { namespace: "default", labels: &own, is_gateway });
        let table = scope.name_table(Resolver { uses: V4, network });
        let line = |(name, info): (String, meltemi_snapshot::NameInfo)| {
            let addresses: Vec<String> = info.addresses.iter().map(ToString::to_string).collect();
            format!("{name} {} {}/{}", addresses.join(","), info.namespace, info.short_name)
        };
        table.into_iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(
        names("near", false),
        [
            "a.example 192.0.2.1 /",
            "db-0.db.default.svc.cluster.local 10.0.0.1 default/db-0.db",
            "db.default.svc.cluster.local 10.0.0.1 default/db",
            "web.default.svc.cluster.local 10.1.1.1 default/web",
        ]
    );
    assert!(
        names("far", false)
            .contains(&"other.db.default.svc.cluster.local 10.0.0.2 default/other.db".to_owned())
    );
    assert!(names("", true).is_empty());
}
