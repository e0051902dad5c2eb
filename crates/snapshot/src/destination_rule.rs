//! DestinationRules by namespace and host: which of them merge, and which one is in force for a client.
//!
//! Source: Istio `pilot/pkg/model/destination_rule.go` (merging), `push_context.go` (`setDestinationRules`,
//! `destinationRule`), `sidecar.go` (`SidecarScope.DestinationRule`).
//! Differs: a rule with a `workloadSelector` never merges with one without, also where both are exported alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meltemi_api::{Object, Spec, istio};

use crate::config::labels_match;
use crate::host::Host;
use crate::mesh_config::MeshConfig;

/// DestinationRules of one host and one namespace that are exported alike and for the same workloads.
#[derive(Debug, Clone, PartialEq)]
pub struct DestinationRule {
    /// `host`, resolved in the namespace of the object.
    pub host: Host,
    /// Namespace of the objects.
    pub namespace: Arc<str>,
    /// `workloadSelector`: the clients that it is for; `None` for all.
    pub selector: Option<BTreeMap<String, String>>,
    /// The merged objects, oldest first; the first one's `trafficPolicy` counts.
    pub objects: Vec<Arc<Object>>,
    /// `exportTo`, with the own namespace in place of `.`; empty where nothing is said.
    exports: BTreeSet<String>,
    /// Nobody outside of its namespace looks at it.
    is_private: bool,
}

/// Every DestinationRule of the mesh.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DestinationRules {
    by_namespace: BTreeMap<Arc<str>, InNamespace>,
}

/// The rules of one namespace, by host; those of one host oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
struct InNamespace {
    exact: BTreeMap<Host, Vec<Arc<DestinationRule>>>,
    /// The most specific host first.
    wildcards: Vec<(Host, Vec<Arc<DestinationRule>>)>,
}

/// Who asks for a rule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) namespace: &'a str,
    /// Of the workload; `None` to ask for all of a namespace, and then rules for some of them are not looked at.
    pub(crate) labels: Option<&'a BTreeMap<String, String>>,
}

impl DestinationRules {
    /// Adds an object; those of a namespace have to come oldest first.
    pub(crate) fn add(&mut self, object: &Arc<Object>, spec: &istio::DestinationRule, mesh: &MeshConfig) {
        let rule = DestinationRule::new(object, spec, mesh);
        let in_namespace = self.by_namespace.entry(Arc::clone(&rule.namespace)).or_default();
        let of_host = in_namespace.of_host(&rule.host);
        let mut stands_alone = true;
        for earlier in of_host.iter_mut().filter(|earlier| earlier.selector == rule.selector) {
            let is_alike = earlier.exports == rule.exports;
            let reaches_further = !earlier.exports.is_empty() && rule.exports.is_superset(&earlier.exports);
            if is_alike || reaches_further {
                Arc::make_mut(earlier).objects.push(Arc::clone(object));
            }
            stands_alone &= !is_alike;
        }
        if stands_alone {
            of_host.push(Arc::new(rule));
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<DestinationRule>> {
        let namespaces = self.by_namespace.values();
        namespaces.flat_map(|rules| {
            let wildcards = rules.wildcards.iter().flat_map(|(_, rules)| rules);
            rules.exact.values().flatten().chain(wildcards)
        })
    }

    /// The rules of a namespace for a host that are for some of its workloads only.
    pub fn for_some_workloads(&self, namespace: &str, host: &Host) -> Vec<&Arc<DestinationRule>> {
        let has_selector = |rule: &DestinationRule| rule.selector.is_some();
        let found =
            self.by_namespace.get(namespace).and_then(|rules| rules.most_specific(host, &has_selector));
        found.unwrap_or_default()
    }

    /// The rule in force for a host: of the client's namespace, then the service's, then the root. In each the most
    /// specific host decides, and there a rule for this workload, then the youngest for all.
    pub(crate) fn find(
        &self,
        asking: Asking<'_>,
        (host, service_namespace): (&Host, &str),
        root: &str,
    ) -> Option<&Arc<DestinationRule>> {
        let in_namespace = |namespace: &str, eligible: &dyn Fn(&DestinationRule) -> bool| {
            self.by_namespace.get(namespace)?.most_specific(host, eligible)
        };
        let exported = |namespace: &str| {
            let rules = in_namespace(namespace, &|rule| !rule.is_private)?;
            let reached: Vec<_> = rules.into_iter().filter(|rule| rule.reaches(asking.namespace)).collect();
            (!reached.is_empty()).then_some(reached)
        };
        // The rules of the root namespace are for everybody, so only what it keeps to itself comes first there.
        let is_root = asking.namespace == root;
        let own = |rule: &DestinationRule| rule.is_local() && (!is_root || rule.is_private);
        let candidates = in_namespace(asking.namespace, &own)
            .or_else(|| exported(service_namespace))
            .or_else(|| exported(root))?;
        let for_workload = candidates.iter().find(|rule| rule.selects(asking));
        for_workload.or_else(|| candidates.iter().rfind(|rule| rule.selector.is_none())).copied()
    }
}

impl<'a> IntoIterator for &'a DestinationRules {
    type Item = &'a Arc<DestinationRule>;
    type IntoIter = Box<dyn Iterator<Item = &'a Arc<DestinationRule>> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

impl InNamespace {
    fn of_host(&mut self, host: &Host) -> &mut Vec<Arc<DestinationRule>> {
        if !host.is_wildcard() {
            return self.exact.entry(host.clone()).or_default();
        }
        let found = self.wildcards.binary_search_by(|(known, _)| known.by_specificity(host));
        let index = found.unwrap_or_else(|index| {
            self.wildcards.insert(index, (host.clone(), Vec::new()));
            index
        });
        &mut self.wildcards[index].1
    }

    fn most_specific(
        &self,
        host: &Host,
        eligible: &dyn Fn(&DestinationRule) -> bool,
    ) -> Option<Vec<&Arc<DestinationRule>>> {
        let admitted = |rules: &'_ [Arc<DestinationRule>]| rules.iter().any(|rule| eligible(rule));
        let exact = self.exact.get(host).filter(|rules| admitted(rules));
        let covering = || {
            let mut wildcards = self.wildcards.iter();
            wildcards.find(|(known, rules)| known.covers(host) && admitted(rules)).map(|(_, rules)| rules)
        };
        let rules = exact.or_else(covering)?;
        Some(rules.iter().filter(|rule| eligible(rule)).collect())
    }
}

impl DestinationRule {
    fn new(object: &Arc<Object>, spec: &istio::DestinationRule, mesh: &MeshConfig) -> DestinationRule {
        let namespace = &object.id.namespace;
        let resolve = |to: &String| if to == "." { namespace.to_string() } else { to.clone() };
        let selector = spec.workload_selector.as_ref().map(|selector| selector.match_labels.clone());
        let exports: BTreeSet<String> = match &selector {
            Some(_) => [namespace.to_string()].into(),
            None => spec.export_to.iter().map(resolve).collect(),
        };
        let is_private = match exports.is_empty() {
            true => mesh.destination_rules_are_private,
            false => exports.iter().all(|to| **to == **namespace),
        };
        DestinationRule {
            host: Host::resolve(&spec.host, namespace),
            namespace: Arc::clone(namespace),
            selector,
            objects: vec![Arc::clone(object)],
            exports,
            is_private,
        }
    }

    /// Whether clients of its own namespace see it.
    fn is_local(&self) -> bool {
        self.reaches(&self.namespace)
    }

    fn reaches(&self, namespace: &str) -> bool {
        self.exports.is_empty() || self.exports.contains("*") || self.exports.contains(namespace)
    }

    /// Whether it is for some workloads, and the client is one of them.
    fn selects(&self, asking: Asking<'_>) -> bool {
        let (Some(selector), Some(labels)) = (&self.selector, asking.labels) else { return false };
        *self.namespace == *asking.namespace && labels_match(selector, labels)
    }

    /// The specs of the merged objects, oldest first.
    pub fn specs(&self) -> impl Iterator<Item = (&Arc<Object>, &istio::DestinationRule)> {
        self.objects.iter().filter_map(|object| match &object.spec {
            Spec::DestinationRule(spec) => Some((object, spec)),
            _ => None,
        })
    }

    /// The subsets of all merged objects with their place in the object; of two with the same name the older
    /// one counts.
    pub fn subsets(&self) -> Vec<(&Arc<Object>, usize, &istio::Subset)> {
        let mut subsets: Vec<(&Arc<Object>, usize, &istio::Subset)> = Vec::new();
        for (object, spec) in self.specs() {
            for (i, subset) in spec.subsets.iter().enumerate() {
                if !subsets.iter().any(|(_, _, known)| known.name == subset.name) {
                    subsets.push((object, i, subset));
                }
            }
        }
        subsets
    }

    /// The subset of this name.
    pub fn subset(&self, name: &str) -> Option<&istio::Subset> {
        self.subsets().into_iter().map(|(_, _, subset)| subset).find(|s| s.name == name)
    }

    /// The policy for all subsets and ports: the oldest object's.
    pub fn traffic_policy(&self) -> Option<&istio::TrafficPolicy> {
        self.specs().find_map(|(_, spec)| spec.traffic_policy.as_ref())
    }

    /// The HTTP proxy that TCP goes through on the way to a subset, or to all of the service where `subset` is empty.
    /// Neither ports nor the rule's own policy have a say for a subset.
    pub fn tunnel(&self, subset: &str) -> Option<&istio::TunnelSettings> {
        let policy = match subset {
            "" => self.traffic_policy(),
            name => self.subset(name)?.traffic_policy.as_ref(),
        };
        policy?.tunnel.as_ref()
    }
}
