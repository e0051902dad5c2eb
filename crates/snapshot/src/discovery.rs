//! `discoverySelectors`: the namespaces whose objects count.
//!
//! Source: Istio `pkg/kube/namespace/filter.go`. MeshConfig itself counts wherever it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meltemi_api::{Object, ObjectId, Spec};

use crate::mesh_config::MeshConfig;

/// The objects of the namespaces that are looked at.
pub(crate) struct Discovered<'a> {
    objects: &'a BTreeMap<ObjectId, Arc<Object>>,
    /// `None` for all.
    namespaces: Option<BTreeSet<Arc<str>>>,
}

impl<'a> Discovered<'a> {
    /// With the namespaces that MeshConfig selects.
    pub(crate) fn of(objects: &'a BTreeMap<ObjectId, Arc<Object>>, mesh: &MeshConfig) -> Discovered<'a> {
        let selectors = &mesh.discovery_selectors;
        if selectors.is_empty() {
            return Discovered { objects, namespaces: None };
        }
        let namespaces = objects.values().filter(|object| matches!(object.spec, Spec::Namespace(_)));
        let selected =
            namespaces.filter(|namespace| selectors.iter().any(|s| s.matches(&namespace.meta.labels)));
        let namespaces = selected.map(|namespace| Arc::clone(&namespace.id.name)).collect();
        Discovered { objects, namespaces: Some(namespaces) }
    }

    /// Those that count.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a Arc<Object>> {
        let counts = move |object: &&Arc<Object>| match &self.namespaces {
            None => true,
            Some(names) => object.id.namespace.is_empty() || names.contains(&object.id.namespace),
        };
        self.objects.values().filter(counts)
    }
}
