//! Which EnvoyFilters are for a workload, and in which order they apply.
//!
//! Source: Istio `pilot/pkg/model/push_context.go` (`EnvoyFilters`) and `policyattachment.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_api::{Object, Spec, istio};

use crate::config::{labels_match, oldest_first};

/// The EnvoyFilters of the mesh.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EnvoyFilters {
    /// In the order in which they apply, but for the root namespace.
    objects: Vec<Arc<Object>>,
}

impl EnvoyFilters {
    /// Of objects that come oldest first.
    pub(crate) fn add(&mut self, object: &Arc<Object>) {
        self.objects.push(Arc::clone(object));
    }

    /// Those that are for a workload: of the root namespace and of its own, lower priority first, in each the root
    /// namespace first, in each the oldest first.
    pub fn of_workload(
        &self,
        root_namespace: &str,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Vec<(&Arc<Object>, &istio::EnvoyFilter)> {
        let applies = |object: &Object, filter: &istio::EnvoyFilter| {
            let is_near = *object.id.namespace == *root_namespace || *object.id.namespace == *namespace;
            let is_selected = filter.labels().is_none_or(|selector| labels_match(selector, labels));
            // What `targetRefs` names is a gateway of the Gateway API, never a workload by label.
            is_near && is_selected && filter.target_refs.is_empty()
        };
        let mut found: Vec<_> = self.all().filter(|(object, filter)| applies(object, filter)).collect();
        found.sort_by(|(a, first), (b, second)| {
            let rank = |object: &Object, filter: &istio::EnvoyFilter| {
                (filter.priority.unwrap_or_default(), *object.id.namespace != *root_namespace)
            };
            rank(a, first).cmp(&rank(b, second)).then_with(|| oldest_first(a, b))
        });
        found
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (&Arc<Object>, &istio::EnvoyFilter)> {
        self.objects.iter().filter_map(|object| match &object.spec {
            Spec::EnvoyFilter(filter) => Some((object, filter)),
            _ => None,
        })
    }
}
