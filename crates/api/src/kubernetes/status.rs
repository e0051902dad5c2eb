//! The part of `status` that the mesh reads: the health of a WorkloadEntry. Leaves out every other kind's status,
//! which is bookkeeping of whoever wrote it.

use crate::decode::wire;

wire! {
    /// What was last observed.
    pub struct Status {
        /// Conditions by type.
        conditions: Vec<Condition>, "conditions";
    }
    ignored "validationMessages", "observedGeneration";
}

wire! {
    /// One observed condition.
    pub struct Condition {
        /// What is observed: `Healthy` for a WorkloadEntry.
        kind: String, "type", required;
        /// `True`, `False` or `Unknown`.
        status: String, "status", required;
    }
    ignored "lastProbeTime", "lastTransitionTime", "reason", "message", "observedGeneration";
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
