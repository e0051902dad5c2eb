//! A folder in, what applies out.

use super::*;

const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews-v1}
spec:
  selector: {matchLabels: {app: reviews}}
  template:
    metadata: {labels: {app: reviews, version: v1}}
    spec: {containers: [{name: web, command: [web], ports: [{containerPort: 9080}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy: {connectionPool: {http: {http1MaxPendingRequests: 5}}}
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  gateways: [mesh, edge]
  http: [{route: [{destination: {host: reviews, subset: v2}}]}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec: {selector: {istio: edge}, servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ['*']}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: others}
spec: {selector: {matchLabels: {app: ratings}}, mtls: {mode: DISABLE}}
";

fn described(name: &str) -> anyhow::Result<Description> {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::write(scratch.path().join("mesh.yaml"), MESH).unwrap();
    let mesh = Mesh::of_folder(scratch.path(), &mut Imagination::default()).unwrap();
    let snapshot = Snapshot::build(&Inputs { objects: mesh.all() }).0;
    let args = DescribeArgs {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        file: None,
        output: Format::Table,
        mesh: MeshArgs::default(),
    };
    find(&args, &mesh.all(), &snapshot)
}

#[test]
fn a_service_has_ports_rules_routes_and_gateways() {
    let description = described("reviews").unwrap();
    assert_eq!(description.kind, "service");
    let told = text::of(&description);
    for part in [
        "service reviews.default.svc.cluster.local, Service default/reviews (mesh.yaml:2)",
        "  port 9080 (http) speaks HTTP, 1 endpoint\n",
        "    subset v1, 1 endpoint\n",
        "    subset v2, 0 endpoints\n",
        "    connectionPool\n",
        "VirtualService default/reviews (mesh.yaml:24): routes calls of it, 1 route\n",
        "    to the subsets v2\n",
        "    through the gateway default/edge (port 8080)\n",
    ] {
        assert!(told.contains(part), "{part:?} is not in\n{told}");
    }
    assert_eq!(text::of(&described("svc/reviews.default").unwrap()), told.clone());
}

#[test]
fn a_workload_has_services_policies_and_what_it_lets_in() {
    for name in ["reviews-v1", "workload/reviews-v1", "deploy/reviews-v1.default", "reviews-v1-0"] {
        let description = described(name).unwrap();
        assert_eq!((description.kind, description.services.len()), ("workload", 1), "{name}");
        let told = text::of(&description);
        assert!(told.contains("port 9080 lets in STRICT by PeerAuthentication default/strict"), "{told}");
        assert!(told.contains("selected by PeerAuthentication default/strict"), "{told}");
        assert!(!told.contains("default/others"), "{told}");
    }
}

#[test]
fn who_does_not_exist_is_told_who_does() {
    let refusal = described("ratings").unwrap_err().to_string();
    assert!(refusal.contains("services: reviews.default; workloads: reviews-v1.default"), "{refusal}");
    assert!(described("route/reviews").unwrap_err().to_string().contains("service/NAME or workload/NAME"));
}
