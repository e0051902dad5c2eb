//! What `up` would run of a set of manifests, without running it: for commands that tell what a configuration means before
//! it is in force. The same plan as the real thing, with every replica ready.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use meltemi_api::{Diagnostic, Object};
use serde_json::Value;

use crate::plan::{Memory, documents, instance_name, plan};
use crate::programs::{gateway_spec, sidecar_spec};

/// The block whose addresses are given out. None is bound.
const BLOCK: Ipv4Addr = Ipv4Addr::new(127, 64, 0, 1);

/// The first `$PORT`.
const FIRST_PORT: u16 = 20_000;

/// Where gateways listen, as `up` has it unless told otherwise.
const BIND: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Imagines one mesh after the other; what is in both has the same address in both.
#[derive(Debug)]
pub struct Imagination {
    memory: Memory,
}

/// A mesh that could run.
#[derive(Debug, Clone, PartialEq)]
pub struct Imagined {
    /// Its sidecars and gateways, by name.
    pub proxies: Vec<ImaginedProxy>,
    /// What `up` would tell the control plane of them, as manifests: a WorkloadEntry for each replica and a Sidecar for each
    /// Deployment.
    pub manifests: String,
    /// What cannot run, and why.
    pub findings: Vec<Diagnostic>,
}

/// A proxy that could run.
#[derive(Debug, Clone, PartialEq)]
pub struct ImaginedProxy {
    /// Its instance, as a table of `up` has it.
    pub name: String,
    /// The node as which it would ask for its configuration, in the JSON of protobuf.
    pub node: Value,
}

impl Default for Imagination {
    fn default() -> Imagination {
        Imagination { memory: Memory::new(BLOCK, FIRST_PORT) }
    }
}

impl Imagination {
    /// The mesh of these objects.
    pub fn mesh(&mut self, objects: &[Arc<Object>]) -> Imagined {
        let (plan, findings) = plan(objects, &mut self.memory);
        // Nothing has sockets here; that there would be some decides what a proxy is sent.
        let sockets = PathBuf::new();
        let sidecars = plan.workloads.iter().flat_map(|workload| {
            workload.replicas.iter().map(|replica| sidecar_spec(workload, replica, sockets.clone()))
        });
        let gateways = plan.gateways.iter().map(|gateway| gateway_spec(gateway, BIND, sockets.clone()));
        let proxies: Vec<ImaginedProxy> = sidecars
            .chain(gateways)
            .map(|spec| ImaginedProxy {
                name: instance_name(&spec.namespace, &spec.name),
                node: meltemi_agent::bootstrap(&spec)["node"].take(),
            })
            .collect();
        let ready: BTreeSet<String> = proxies.iter().map(|proxy| proxy.name.clone()).collect();
        Imagined { manifests: documents(&plan, &ready), proxies, findings }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(replicas: u32) -> Vec<Arc<Object>> {
        let text = format!(
            "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{containers: [{{name: web, command: [web], ports: [{{containerPort: 8080}}]}}]}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge}}
spec: {{selector: {{istio: edge}}, servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [\"*\"]}}]}}
"
        );
        let (objects, diagnostics) = meltemi_api::parse(&text, &"a.yaml".into());
        assert_eq!(diagnostics, []);
        objects.into_iter().map(Arc::new).collect()
    }

    #[test]
    fn what_is_in_both_has_the_same_address() {
        let mut imagination = Imagination::default();
        let (one, two) = (imagination.mesh(&objects(1)), imagination.mesh(&objects(2)));
        let names = |mesh: &Imagined| mesh.proxies.iter().map(|proxy| proxy.name.clone()).collect::<Vec<_>>();
        assert_eq!(
            (names(&one), names(&two)),
            (
                vec!["web-0".into(), "edge-0".into()],
                vec!["web-0".to_owned(), "web-1".into(), "edge-0".into()]
            )
        );
        assert_eq!(one.proxies[0], two.proxies[0]);
        assert!(
            two.manifests.contains("\"True\"") && !two.manifests.contains("\"False\""),
            "{}",
            two.manifests
        );
        let id = one.proxies[0].node["id"].as_str().unwrap();
        assert!(id.starts_with("sidecar~127.64.0.") && id.contains("~web-0.default~"), "{id}");
    }
}
