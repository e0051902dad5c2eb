//! [`Mesh`]: the configuration that calls are explained in.

use std::sync::Arc;

use meltemi_api::{Diagnostic, Object, parse};
use meltemi_snapshot::{Inputs, Snapshot};
use meltemi_translate::{MeshIdentity, Options, check_patches, translate};
use serde_json::Value as Json;

use crate::proxy::{Proxy, ProxySpec};
use crate::workload::{self, Workload};

/// Istio's default trust domain.
const TRUST_DOMAIN: &str = "cluster.local";

/// Where Istio has its MeshConfig.
const MESH_CONFIG_OBJECT: (&str, &str) = ("istio", "istio-system");

/// A mesh, and what is wrong with its configuration.
#[derive(Debug)]
pub struct Mesh {
    /// The mesh.
    pub snapshot: Snapshot,
    /// What was found in its objects, one by one and together.
    pub diagnostics: Vec<Diagnostic>,
    options: Options,
}

impl Mesh {
    /// The mesh of these objects; `found` is what was wrong with them one by one.
    pub fn new(objects: Vec<Arc<Object>>, found: Vec<Diagnostic>) -> Mesh {
        let (snapshot, across) = Snapshot::build(&Inputs { objects });
        let identity = MeshIdentity { trust_domain: TRUST_DOMAIN.to_owned(), aliases: Vec::new() };
        let options = Options { identity: Some(identity), ..Options::default() };
        let of_patches = check_patches(&snapshot);
        let diagnostics = found.into_iter().chain(across).chain(of_patches).collect();
        Mesh { snapshot, diagnostics, options }
    }

    /// The same, with the replicas that its Deployments would have.
    pub fn with_replicas(mut objects: Vec<Arc<Object>>, found: Vec<Diagnostic>) -> Mesh {
        objects.extend(workload::replicas(&objects));
        Mesh::new(objects, found)
    }

    /// Everybody whose proxy can be asked.
    pub fn workloads(&self) -> Vec<Workload> {
        workload::all(&self.snapshot)
    }

    /// The workload or gateway of this name.
    pub(crate) fn find(&self, name: &str) -> Result<Workload, String> {
        workload::find(&self.snapshot, name)
    }

    /// The mesh of a text with any number of YAML documents, called `file` in origins. `mesh_config` is a MeshConfig
    /// that counts instead of one in the text.
    pub fn of_text(text: &str, file: &str, mesh_config: Option<&Json>) -> Mesh {
        let (mut objects, mut found) = parse(text, &Arc::from(file));
        if let Some(mesh_config) = mesh_config {
            let (name, namespace) = MESH_CONFIG_OBJECT;
            let object = serde_json::json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": name, "namespace": namespace },
                "data": { "mesh": mesh_config.to_string() },
            });
            let (of_mesh, wrong) = parse(&object.to_string(), &Arc::from("mesh_config"));
            objects.retain(|o| (&*o.id.name, &*o.id.namespace) != MESH_CONFIG_OBJECT);
            objects.extend(of_mesh);
            found.extend(wrong);
        }
        Mesh::new(objects.into_iter().map(Arc::new).collect(), found)
    }

    /// A proxy in it, with everything that the control plane would send it.
    ///
    /// # Errors
    /// If there can be no such proxy.
    pub fn proxy(&self, spec: &ProxySpec) -> Result<Proxy, String> {
        let shape = spec.shape()?;
        Ok(Proxy::new(self.snapshot.clone(), translate(&self.snapshot, &shape, &self.options)))
    }
}
