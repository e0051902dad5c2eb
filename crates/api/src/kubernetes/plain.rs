//! Kinds that are little more than a name. Source: Kubernetes core/v1.

use std::collections::BTreeMap;

use crate::decode::wire;

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
    /// Named texts.
    pub struct ConfigMap {
        /// The texts.
        data: BTreeMap<String, String>, "data";
    }
    ignored "apiVersion", "kind", "metadata", "binaryData", "immutable";
}
