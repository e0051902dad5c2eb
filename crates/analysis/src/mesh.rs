//! The objects as analyzers look at them: by kind, with the workloads that they describe.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meltemi_api::{Object, ObjectId, Spec};
use meltemi_snapshot::{Snapshot, labels_match};

use crate::hosts::Hosts;

/// Labels of a kind that selectors and workloads have.
pub(crate) type Labels = BTreeMap<String, String>;

/// The namespace whose objects are Istio's own.
pub(crate) const SYSTEM: &str = "istio-system";

/// The label, of pods, and the annotation by which one of them gets a sidecar or not.
pub(crate) const INJECT: &str = "sidecar.istio.io/inject";

/// The label of a namespace whose pods get one.
pub(crate) const INJECTION: &str = "istio-injection";

/// The name of the sidecar's container.
const PROXY: &str = "istio-proxy";

/// The annotation of pods whose traffic the node redirects.
const REDIRECTION: &str = "ambient.istio.io/redirection";

/// Workloads that stand for those that an installation of Istio, or `meltemi up`, brings.
const PROVIDED: [&str; 2] = ["ingressgateway", "egressgateway"];

/// Something that runs, or is to run.
pub(crate) struct Workload<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: String,
    pub(crate) labels: &'a Labels,
    /// Whether it has a sidecar, or is to get one.
    pub(crate) is_in_mesh: bool,
    /// Whether its traffic is redirected by the node, without a sidecar.
    pub(crate) is_ambient: bool,
}

/// The objects of a mesh, and what is derived from them for all analyzers.
pub(crate) struct Mesh<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) workloads: Vec<Workload<'a>>,
    pub(crate) hosts: Hosts<'a>,
    objects: BTreeMap<&'a ObjectId, &'a Arc<Object>>,
    provided: &'a [Labels],
}

/// The labels of the gateways that are taken to be there.
pub(crate) fn provided() -> Vec<Labels> {
    PROVIDED.iter().map(|value| Labels::from([("istio".to_owned(), (*value).to_owned())])).collect()
}

impl<'a> Mesh<'a> {
    pub(crate) fn new(
        snapshot: &'a Snapshot,
        unsound: &'a [Arc<Object>],
        provided: &'a [Labels],
    ) -> Mesh<'a> {
        let objects: BTreeMap<_, _> =
            unsound.iter().chain(snapshot.objects()).map(|object| (&object.id, object)).collect();
        let all = || objects.values().copied();
        let namespaces = all().filter(|object| matches!(object.spec, Spec::Namespace(_)));
        let namespaces = namespaces.map(|object| (&*object.id.name, &object.meta.labels)).collect();
        let workloads = all().flat_map(|object| workloads(object, &namespaces)).collect();
        Mesh { snapshot, workloads, hosts: Hosts::of(all()), objects, provided }
    }

    /// All objects, sound or not, in the order of their ids.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &'a Arc<Object>> + '_ {
        self.objects.values().copied()
    }

    /// The workloads of a namespace that a selector finds.
    pub(crate) fn select<'m>(
        &'m self,
        namespace: &'m str,
        selector: &'m Labels,
    ) -> impl Iterator<Item = &'m Workload<'a>> {
        let here = self.workloads.iter().filter(move |workload| workload.namespace == namespace);
        here.filter(|workload| labels_match(selector, workload.labels))
    }

    /// The workloads of all namespaces that a selector finds; those of a gateway may be in any.
    pub(crate) fn select_anywhere<'m>(
        &'m self,
        selector: &'m Labels,
    ) -> impl Iterator<Item = &'m Workload<'a>> {
        self.workloads.iter().filter(|workload| labels_match(selector, workload.labels))
    }

    /// Whether a gateway that is taken to be there has these labels.
    pub(crate) fn is_provided(&self, selector: &Labels) -> bool {
        self.provided.iter().any(|labels| labels_match(selector, labels))
    }

    /// The namespaces that some object speaks of, `default` and that of Istio itself.
    pub(crate) fn namespaces(&self) -> BTreeSet<&'a str> {
        let known = self.objects().map(|object| match &object.spec {
            Spec::Namespace(_) => &*object.id.name,
            _ => &*object.id.namespace,
        });
        known.filter(|name| !name.is_empty()).chain(["default", SYSTEM]).collect()
    }

    /// The labels of a namespace, if it is an object.
    pub(crate) fn namespace_labels(&self, name: &str) -> Option<&'a Labels> {
        let mut all = self.objects().filter(|object| matches!(object.spec, Spec::Namespace(_)));
        all.find(|object| &*object.id.name == name).map(|object| &object.meta.labels)
    }
}

/// The workloads that an object describes.
fn workloads<'a>(object: &'a Arc<Object>, namespaces: &BTreeMap<&str, &'a Labels>) -> Vec<Workload<'a>> {
    let namespace = &*object.id.namespace;
    let name = object.id.name.to_string();
    let plain = |name, labels| Workload { namespace, name, labels, is_in_mesh: true, is_ambient: false };
    match &object.spec {
        Spec::WorkloadEntry(entry) => vec![plain(name, &entry.labels)],
        Spec::ServiceEntry(entry) => {
            let endpoints = entry.endpoints.iter().enumerate();
            endpoints.map(|(index, endpoint)| plain(format!("{name}[{index}]"), &endpoint.labels)).collect()
        }
        _ => pods(object)
            .map(|pods| {
                let of_namespace = namespaces.get(namespace).copied();
                let is_in_mesh = pods.has_proxy || is_injected(of_namespace, pods.labels, pods.annotations);
                let is_ambient = pods.annotations.get(REDIRECTION).is_some_and(|value| value == "enabled");
                Workload { is_in_mesh, is_ambient, ..plain(name, pods.labels) }
            })
            .into_iter()
            .collect(),
    }
}

/// What the pods are like that an object is, or makes.
pub(crate) struct Pods<'a> {
    pub(crate) labels: &'a Labels,
    pub(crate) annotations: &'a Labels,
    /// Whether they have a sidecar already.
    pub(crate) has_proxy: bool,
}

/// The pods of a Kubernetes object.
pub(crate) fn pods(object: &Object) -> Option<Pods<'_>> {
    let metadata = match &object.spec {
        Spec::Pod(pod) => {
            let mut containers = pod.containers.iter().chain(&pod.init_containers);
            let has_proxy = containers.any(|container| container.name == PROXY);
            return Some(Pods {
                labels: &object.meta.labels,
                annotations: &object.meta.annotations,
                has_proxy,
            });
        }
        Spec::Deployment(spec) => {
            let metadata = &spec.template.metadata;
            let has_proxy = spec.template.spec.containers.iter().any(|container| container.name == PROXY);
            return Some(Pods { labels: &metadata.labels, annotations: &metadata.annotations, has_proxy });
        }
        Spec::StatefulSet(spec) => &spec.template.metadata,
        Spec::DaemonSet(spec) => &spec.template.metadata,
        _ => return None,
    };
    Some(Pods { labels: &metadata.labels, annotations: &metadata.annotations, has_proxy: false })
}

/// Whether pods with these labels and annotations get a sidecar. `meltemi up` gives one to all; a Namespace that is an
/// object says it for a cluster.
pub(crate) fn is_injected(namespace: Option<&Labels>, labels: &Labels, annotations: &Labels) -> bool {
    let own = labels.get(INJECT).or_else(|| annotations.get(INJECT));
    match (own, namespace) {
        (Some(value), _) => value == "true",
        (None, Some(namespace)) => namespace.get(INJECTION).is_some_and(|value| value == "enabled"),
        (None, None) => true,
    }
}

/// A selector as text, `a=1,b=2`.
pub(crate) fn selector_text(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// `namespace/name`.
pub(crate) fn full_name(object: &Object) -> String {
    format!("{}/{}", object.id.namespace, object.id.name)
}
