//! Where workloads stand: localities from labels and from the nodes that they are on.
//!
//! Source: Istio `pilot/pkg/serviceregistry/kube/controller` (`getPodLocality`), `util/label` (labels of endpoints),
//! `pkg/model/proxy.go` (locality labels).

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_api::{Object, Spec};

/// The cluster that all workloads are in.
const CLUSTER: &str = "Kubernetes";

/// Labels with a whole locality, the parts divided by `.`; the first one wins.
const LOCALITY_LABELS: [&str; 2] = ["topology.istio.io/locality", "istio-locality"];

/// Labels of nodes with the parts of a locality, newest first.
const REGION_LABELS: [&str; 2] =
    ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"];
const ZONE_LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];
const SUBZONE_LABEL: &str = "topology.istio.io/subzone";

/// The label with the network of a workload.
pub(super) const NETWORK_LABEL: &str = "topology.istio.io/network";
const CLUSTER_LABEL: &str = "topology.istio.io/cluster";
const NODE_LABEL: &str = "kubernetes.io/hostname";

/// The nodes of the cluster.
pub(super) struct Topology<'a> {
    nodes: BTreeMap<&'a str, String>,
}

impl<'a> Topology<'a> {
    pub(super) fn of(objects: &[&'a Arc<Object>]) -> Topology<'a> {
        let nodes = objects.iter().filter(|object| matches!(object.spec, Spec::Node(_)));
        Topology { nodes: nodes.map(|node| (&*node.id.name, locality_of_node(node))).collect() }
    }

    /// The locality of a node; empty when it is not known.
    pub(super) fn of_node(&self, node: &str) -> &str {
        self.nodes.get(node).map_or("", String::as_str)
    }

    /// The locality of something that is in a zone and on no known node.
    pub(super) fn of_zone(&self, zone: &str) -> String {
        let is_there = |locality: &&String| locality.split('/').nth(1) == Some(zone);
        let known = self.nodes.values().find(is_there);
        known.map_or_else(String::new, |locality| {
            locality.rsplitn(2, '/').last().unwrap_or_default().to_owned()
        })
    }
}

fn locality_of_node(node: &Object) -> String {
    let first =
        |names: &[&str]| names.iter().find_map(|name| node.meta.labels.get(*name)).map_or("", String::as_str);
    let (region, zone, subzone) = (first(&REGION_LABELS), first(&ZONE_LABELS), first(&[SUBZONE_LABEL]));
    match (region, zone, subzone) {
        ("", "", "") => String::new(),
        _ => format!("{region}/{zone}/{subzone}"),
    }
}

/// The locality that labels say; labels cannot hold `/`.
pub(super) fn of_labels(labels: &BTreeMap<String, String>) -> Option<String> {
    let text = LOCALITY_LABELS.iter().find_map(|name| labels.get(*name)).filter(|text| !text.is_empty())?;
    Some(if text.contains('/') { text.clone() } else { text.replace('.', "/") })
}

/// The labels of a workload with those that say where it stands, for subsets and failover.
pub(super) fn augmented(
    labels: &BTreeMap<String, String>,
    locality: &str,
    node: &str,
    network: &str,
) -> Arc<BTreeMap<String, String>> {
    let mut all = labels.clone();
    let mut parts = locality.splitn(3, '/');
    let mut part = || parts.next().unwrap_or_default();
    let places = [
        (REGION_LABELS[0], part()),
        (ZONE_LABELS[0], part()),
        (SUBZONE_LABEL, part()),
        (CLUSTER_LABEL, CLUSTER),
        (NODE_LABEL, node),
    ];
    for (name, value) in places.into_iter().filter(|(_, value)| !value.is_empty()) {
        all.insert(name.to_owned(), value.to_owned());
    }
    if !network.is_empty() {
        all.entry(NETWORK_LABEL.to_owned()).or_insert_with(|| network.to_owned());
    }
    Arc::new(all)
}
