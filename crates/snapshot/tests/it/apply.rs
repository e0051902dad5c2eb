//! `apply(changes) == build(union)`, whatever the changes and however they are cut into batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_api::{Change, Object, ObjectId};
use meltemi_snapshot::{Inputs, Snapshot};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::mesh;

/// Two versions of some objects; a change takes one of them or deletes.
const POOL: &str = "
{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: a}, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: b}, ports: [{name: http, port: 80, targetPort: 81}]}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: a-0}, spec: {address: 10.0.0.1, labels: {app: a, version: v1}}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: a-0}, spec: {address: 10.0.0.1, labels: {app: a}}, status: {conditions: [{type: Healthy, status: 'False'}]}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: b-0}, spec: {address: 10.0.0.2, labels: {app: b}}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: a}, spec: {host: a, subsets: [{name: v1, labels: {version: v1}}]}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: b, creationTimestamp: '2020-01-01T00:00:00Z'}, spec: {host: a, subsets: [{name: v2, labels: {version: v1}}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a}, spec: {hosts: [a], http: [{route: [{destination: {host: a, subset: v1}}]}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a}, spec: {hosts: ['*'], gateways: [g], http: [{route: [{destination: {host: x}}]}]}}
---
{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: g}, spec: {servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: x}, spec: {hosts: [a.default.svc.cluster.local, x.org], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}}
---
{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: s}, spec: {egress: [{hosts: ['./*']}]}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p}, spec: {mtls: {mode: STRICT}}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p}, spec: {mtls: {mode: DISABLE}}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: q, creationTimestamp: '2020-01-01T00:00:00Z'}, spec: {mtls: {}}}
---
{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: g}, spec: {servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: MUTUAL, credentialName: s}}]}}
---
{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {tls.crt: a, tls.key: b}}
---
{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {tls.crt: a, tls.key: c, ca.crt: d}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: 'rootNamespace: default'}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: '{enableAutoMtls: false, h2UpgradePolicy: UPGRADE}'}}
---
{apiVersion: install.istio.io/v1alpha1, kind: IstioOperator, spec: {meshConfig: {rootNamespace: default}}}
---
{apiVersion: install.istio.io/v1alpha1, kind: IstioOperator, metadata: {name: other}, spec: {meshConfig: {accessLogFile: /dev/stdout}}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: '{defaultServiceExportTo: [.], discoverySelectors: [{matchLabels: {mesh: in}}]}'}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: default, labels: {mesh: in}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: default, annotations: {networking.istio.io/traffic-distribution: PreferClose}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {app: a}}, spec: {nodeName: n, containers: [{name: c}]}, status: {podIP: 10.0.0.9, conditions: [{type: Ready, status: 'True'}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n, labels: {topology.kubernetes.io/region: r}}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: e, labels: {kubernetes.io/service-name: a}}, addressType: IPv4, ports: [{name: http, port: 8080}], endpoints: [{addresses: [10.0.0.9], targetRef: {kind: Pod, name: p}}]}
---
{apiVersion: v1, kind: Endpoints, metadata: {name: a}, subsets: [{addresses: [{ip: 10.0.0.7}], ports: [{name: http, port: 8080}]}]}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: y}, spec: {hosts: [x.org], ports: [{number: 81, name: http, protocol: HTTP}], resolution: DNS}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadGroup, metadata: {name: g}, spec: {template: {labels: {app: a}}}}
";

proptest! {
    #[test]
    fn equals_build(steps in prop::collection::vec((any::<Index>(), any::<bool>(), any::<bool>()), 0..60)) {
        let pool = mesh::objects(POOL);
        let mut objects: BTreeMap<ObjectId, Arc<Object>> = BTreeMap::new();
        let (mut snapshot, mut diagnostics) = Snapshot::build(&Inputs::default());
        let mut batch = Vec::new();
        for (which, put, ends_batch) in steps {
            let object = which.get(&pool);
            if put {
                objects.insert(object.id.clone(), Arc::clone(object));
                batch.push(Change::Put(Arc::clone(object)));
            } else {
                objects.remove(&object.id);
                batch.push(Change::Delete(object.id.clone()));
            }
            if ends_batch {
                (snapshot, diagnostics) = snapshot.apply(&std::mem::take(&mut batch));
            }
        }
        if !batch.is_empty() {
            (snapshot, diagnostics) = snapshot.apply(&batch);
        }
        let mut all: Vec<_> = objects.into_values().collect();
        all.reverse();
        let built = Snapshot::build(&Inputs { objects: all });
        prop_assert_eq!((snapshot, diagnostics), built);
    }
}

#[test]
fn readiness_replaces_the_endpoints_only() {
    let pool = mesh::objects(POOL);
    let (before, _) = Snapshot::build(&Inputs { objects: vec![Arc::clone(&pool[0]), Arc::clone(&pool[2])] });
    let (after, _) = before.apply(&[Change::Put(Arc::clone(&pool[3]))]);
    assert!(Arc::ptr_eq(&before.config, &after.config) && Arc::ptr_eq(&before.services, &after.services));
    assert_ne!(before.endpoints, after.endpoints);
}

#[test]
fn a_lost_source_changes_nothing() {
    let (before, _) = Snapshot::build(&Inputs { objects: mesh::objects(POOL) });
    let (after, _) =
        before.apply(&[Change::Lost("files".into(), "gone".to_owned()), Change::Synced("files".into())]);
    assert!(before == after && Arc::ptr_eq(&before.endpoints, &after.endpoints));
}
