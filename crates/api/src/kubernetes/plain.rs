//! Kinds that are little more than a name. Source: Kubernetes core/v1.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::decode::{Decoder, Leaf, Wire, wire};
use crate::istio::MeshConfig;
use crate::node::Node;

wire! {
    /// An identity for workloads. Only its name counts.
    pub struct ServiceAccount {}
    ignored "apiVersion", "kind", "metadata", "secrets", "imagePullSecrets", "automountServiceAccountToken";
}

wire! {
    /// A namespace. Only its name and labels count.
    pub struct Namespace {}
    ignored "apiVersion", "kind", "metadata", "spec", "status";
}

wire! {
    /// Named texts, as they are written.
    struct Texts {
        /// The texts.
        data: BTreeMap<String, String>, "data";
    }
    ignored "apiVersion", "kind", "metadata", "binaryData", "immutable";
}

/// Named texts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigMap {
    /// The texts.
    pub data: BTreeMap<String, String>,
    /// What the text `mesh` says, in the ConfigMap of Istio's MeshConfig.
    pub mesh: Option<Box<MeshConfig>>,
}

impl Wire for ConfigMap {
    const EXPECTED: &'static str = Texts::EXPECTED;

    fn decode(node: &Node, decoder: &mut Decoder, leaf: Option<Leaf>) -> Option<Self> {
        Texts::decode(node, decoder, leaf).map(|Texts { data }| ConfigMap { data, mesh: None })
    }

    fn encode(&self) -> Option<Json> {
        Texts { data: self.data.clone() }.encode()
    }
}
