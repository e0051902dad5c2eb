//! PeerAuthentication: whether workloads demand mutual TLS of their callers. Leaves out which of several objects
//! counts. Source: Istio `security.PeerAuthentication`.

use std::collections::BTreeMap;

use crate::check;
use crate::decode::{wire, wire_enum};
use crate::syntax;

wire! {
    /// What workloads demand of their callers.
    pub struct PeerAuthentication {
        /// Workloads it applies to; absent: all of the namespace, or of the mesh in the root namespace.
        selector: Option<PodSelector>, "selector";
        /// For all ports.
        mtls: Option<MutualTls>, "mtls";
        /// By port of the workload, which is a number.
        port_level_mtls: BTreeMap<String, MutualTls>, "portLevelMtls";
    }
    rule check::peer_authentication;
}

wire! {
    /// Workloads by label.
    pub struct PodSelector {
        /// Labels they carry; all of them.
        match_labels: BTreeMap<String, String>, "matchLabels" => syntax::label_value;
    }
    rule check::pod_selector;
}

wire! {
    /// Mutual TLS.
    pub struct MutualTls {
        /// Whether it is demanded.
        mode: Option<MutualTlsMode>, "mode";
    }
}

wire_enum! {
    /// Whether mutual TLS is demanded.
    pub enum MutualTlsMode {
        /// As the namespace, or the mesh, says.
        Unset = "UNSET",
        /// It is not spoken.
        Disable = "DISABLE",
        /// It is spoken with callers that can; others may use plaintext.
        Permissive = "PERMISSIVE",
        /// It is demanded.
        Strict = "STRICT",
    }
}

impl PeerAuthentication {
    /// The labels that workloads must have; `None` for all of the namespace.
    pub fn labels(&self) -> Option<&BTreeMap<String, String>> {
        let labels = &self.selector.as_ref()?.match_labels;
        (!labels.is_empty()).then_some(labels)
    }
}
