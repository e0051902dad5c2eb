//! The part of `status` that the mesh reads: the health of a WorkloadEntry, the addresses and readiness of a Pod, the
//! addresses that were given to a ServiceEntry or to the load balancer of a Service. Leaves out every other kind's status,
//! and what else is in these: it is bookkeeping of whoever wrote it.

use crate::decode::wire;

wire! {
    /// What was last observed.
    pub struct Status {
        /// Conditions by type.
        conditions: Vec<Condition>, "conditions";
        /// The first address of a Pod.
        pod_ip: Option<String>, "podIP";
        /// All addresses of a Pod.
        pod_ips: Vec<PodIp>, "podIPs";
        /// Where a Pod is in its life (`Running`, `Succeeded`, …).
        phase: Option<String>, "phase";
        /// Addresses given to a ServiceEntry.
        addresses: Vec<ServiceEntryAddress>, "addresses";
        /// Addresses of the load balancer of a Service.
        load_balancer: Option<LoadBalancerStatus>, "loadBalancer";
    }
    ignored "validationMessages", "observedGeneration", "containerStatuses", "ephemeralContainerStatuses",
        "extendedResourceClaimStatus", "hostIP", "hostIPs", "initContainerStatuses", "message", "nominatedNodeName",
        "qosClass", "reason", "resize", "resourceClaimStatuses", "startTime", "allocatedResources", "resources";
}

wire! {
    /// One observed condition.
    pub struct Condition {
        /// What is observed: `Healthy` for a WorkloadEntry, `Ready` for a Pod.
        kind: String, "type", required;
        /// `True`, `False` or `Unknown`.
        status: String, "status", required;
    }
    ignored "lastProbeTime", "lastTransitionTime", "reason", "message", "observedGeneration";
}

wire! {
    /// An address of a Pod.
    pub struct PodIp {
        /// The address.
        ip: String, "ip";
    }
}

wire! {
    /// An address given to a host of a ServiceEntry.
    pub struct ServiceEntryAddress {
        /// The address.
        value: String, "value";
        /// The host.
        host: String, "host";
    }
}

wire! {
    /// The load balancer of a Service.
    pub struct LoadBalancerStatus {
        /// Where it takes traffic.
        ingress: Vec<LoadBalancerIngress>, "ingress";
    }
}

wire! {
    /// Where a load balancer takes traffic.
    pub struct LoadBalancerIngress {
        /// Its address.
        ip: Option<String>, "ip";
        /// Its name.
        hostname: Option<String>, "hostname";
    }
    ignored "ipMode", "ports";
}

impl Status {
    /// Whether the condition of this type holds; `None` when it has not been observed.
    pub fn condition(&self, kind: &str) -> Option<bool> {
        let condition = self.conditions.iter().find(|condition| condition.kind == kind)?;
        match condition.status.as_str() {
            "True" => Some(true),
            "False" => Some(false),
            _ => None,
        }
    }
}
