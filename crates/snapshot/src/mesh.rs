//! [`Snapshot`]: the whole mesh at one moment, built from scratch or by changes.
//!
//! Its parts are shared by `Arc`, so that a readiness flip replaces one pointer.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_api::{Change, Diagnostic, Kind, Object, ObjectId};

use crate::check;
use crate::config::Config;
use crate::destination_rule::{Asking, DestinationRule};
use crate::discovery::Discovered;
use crate::endpoint::Endpoints;
use crate::mesh_config::MeshConfig;
use crate::peer_authentication::PeerAuthentications;
use crate::scope::destination_rule;
use crate::secret::Secrets;
use crate::service::{Service, Services};

/// Everything that a mesh is made of.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// The objects of all sources, in any order. Of two with the same id the last one counts.
    pub objects: Vec<Arc<Object>>,
}

/// The immutable mesh. Cloning copies five pointers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    objects: Arc<BTreeMap<ObjectId, Arc<Object>>>,
    /// Routes, rules, gateways, sidecars and MeshConfig.
    pub config: Arc<Config>,
    /// Services by host.
    pub services: Arc<Services>,
    /// Endpoints by service.
    pub endpoints: Arc<Endpoints>,
    /// Keys and certificates by name.
    pub secrets: Arc<Secrets>,
}

impl Snapshot {
    /// The mesh that the inputs describe, and what is wrong between them. The specification of
    /// [`Snapshot::apply`]. Diagnostics are sorted by object and field.
    pub fn build(inputs: &Inputs) -> (Snapshot, Vec<Diagnostic>) {
        let objects: BTreeMap<_, _> = inputs.objects.iter().map(|o| (o.id.clone(), Arc::clone(o))).collect();
        let mut snapshot = Snapshot { objects: Arc::new(objects), ..Snapshot::default() };
        snapshot.rebuild(Touched::ALL);
        let diagnostics = check::diagnostics(&snapshot);
        (snapshot, diagnostics)
    }

    /// The mesh after the changes: equal to [`Snapshot::build`] of the resulting objects. Parts that no
    /// change concerns are shared with `self`. `Synced` and `Lost` change nothing: a lost source keeps its
    /// last state.
    pub fn apply(&self, changes: &[Change]) -> (Snapshot, Vec<Diagnostic>) {
        let mut objects = (*self.objects).clone();
        let mut touched = Touched::default();
        for change in changes {
            let kind = match change {
                Change::Put(object) => {
                    objects.insert(object.id.clone(), Arc::clone(object));
                    object.id.kind
                }
                Change::Delete(id) => {
                    objects.remove(id);
                    id.kind
                }
                Change::Synced(_) | Change::Lost(..) => continue,
            };
            touched.add(kind);
        }
        let mut next = Snapshot { objects: Arc::new(objects), ..self.clone() };
        next.rebuild(touched);
        let diagnostics = check::diagnostics(&next);
        (next, diagnostics)
    }

    fn rebuild(&mut self, mut touched: Touched) {
        let mesh = match touched.mesh {
            true => MeshConfig::build(self.objects.values()),
            false => self.config.mesh.clone(),
        };
        let before = &self.config.mesh;
        if mesh.discovery_selectors != before.discovery_selectors
            || touched.namespaces && !mesh.discovery_selectors.is_empty()
        {
            touched = Touched::ALL;
        }
        touched.services |= touched.namespaces
            || mesh.default_service_export_to != before.default_service_export_to
            || mesh.trust_domain != before.trust_domain;
        let objects = Arc::clone(&self.objects);
        let discovered = Discovered::of(&objects, &mesh);
        if touched.services {
            self.services = Arc::new(Services::build(discovered.iter(), &mesh));
        }
        if touched.services || touched.endpoints {
            self.endpoints = Arc::new(Endpoints::build(&self.services, discovered.iter()));
        }
        if touched.secrets {
            self.secrets = Arc::new(Secrets::build(discovered.iter()));
        }
        if touched.config || touched.mesh {
            self.config = Arc::new(Config::build(discovered.iter(), mesh));
        }
    }

    /// The objects in the order of their ids.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// This mesh after `before`, as the first step of a change of what callers send: workloads let in both, and callers go
    /// on as before. `None` if callers need not change.
    pub fn loosened_after(&self, before: &Snapshot) -> Option<Snapshot> {
        let earlier = &before.config.peer_authentications;
        Some(self.with(earlier.loosened_for(&self.config.peer_authentications)?))
    }

    /// This mesh as the second step: callers go by it, and workloads let in both until all have heard. `None` after the
    /// second step: then this mesh itself follows.
    pub fn announced_after(&self, before: &Snapshot) -> Option<Snapshot> {
        let earlier = &before.config.peer_authentications;
        Some(self.with(self.config.peer_authentications.announced_after(earlier)?))
    }

    fn with(&self, peer_authentications: PeerAuthentications) -> Snapshot {
        let config = Config { peer_authentications, ..(*self.config).clone() };
        Snapshot { config: Arc::new(config), ..self.clone() }
    }

    /// The DestinationRule in force for a service in the eyes of a client's namespace. Rules for some of its workloads
    /// are not looked at.
    pub fn destination_rule(
        &self,
        client_namespace: &str,
        service: &Service,
    ) -> Option<&Arc<DestinationRule>> {
        let asking = Asking { namespace: client_namespace, labels: None };
        destination_rule(self, asking, &service.host, &service.namespace)
    }

    /// The object of this id.
    pub fn object(&self, id: &ObjectId) -> Option<&Arc<Object>> {
        self.objects.get(id)
    }
}

/// The parts that changes concern.
#[derive(Default, Clone, Copy)]
struct Touched {
    mesh: bool,
    namespaces: bool,
    config: bool,
    services: bool,
    endpoints: bool,
    secrets: bool,
}

impl Touched {
    const ALL: Touched = Touched {
        mesh: true,
        namespaces: true,
        config: true,
        services: true,
        endpoints: true,
        secrets: true,
    };

    fn add(&mut self, kind: Kind) {
        match kind {
            Kind::VirtualService
            | Kind::DestinationRule
            | Kind::Gateway
            | Kind::Sidecar
            | Kind::EnvoyFilter
            | Kind::PeerAuthentication => self.config = true,
            Kind::ConfigMap | Kind::IstioOperator => self.mesh = true,
            Kind::Namespace => self.namespaces = true,
            Kind::Secret => self.secrets = true,
            Kind::Service | Kind::ServiceEntry => self.services = true,
            Kind::WorkloadEntry | Kind::Pod | Kind::Node | Kind::EndpointSlice | Kind::Endpoints => {
                self.endpoints = true;
            }
            Kind::WorkloadGroup
            | Kind::Deployment
            | Kind::StatefulSet
            | Kind::DaemonSet
            | Kind::ReplicaSet
            | Kind::Job
            | Kind::ServiceAccount
            | Kind::ProxyConfig
            | Kind::AuthorizationPolicy
            | Kind::RequestAuthentication
            | Kind::Telemetry
            | Kind::WasmPlugin
            | Kind::TrafficExtension => {}
        }
    }
}
