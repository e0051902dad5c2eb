//! WorkloadEntry: one workload instance outside Kubernetes, and the endpoint of a ServiceEntry. Leaves out its health,
//! which is status. Source: Istio `networking.WorkloadEntry`.

use std::collections::BTreeMap;

use crate::decode::wire;
use crate::syntax;

wire! {
    /// One workload instance.
    pub struct WorkloadEntry {
        /// IP address, or DNS name, or `unix:///path`.
        address: Option<String>, "address", required => syntax::workload_address;
        /// Its ports by the names of the service's ports.
        ports: BTreeMap<String, u32>, "ports" => syntax::port;
        /// Labels.
        labels: BTreeMap<String, String>, "labels" => syntax::label_value;
        /// `region/zone/subzone`.
        locality: Option<String>, "locality";
        /// Load balancing weight; absent: 1.
        weight: Option<u32>, "weight";
        /// Service account.
        service_account: Option<String>, "serviceAccount";
    }
    later NO_EFFECT_YET "network";
}
