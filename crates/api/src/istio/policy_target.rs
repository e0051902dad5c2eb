//! What a policy attaches to instead of workloads by label. Leaves out whether it exists. Source: Istio
//! `type.v1beta1.PolicyTargetReference`.

use crate::check;
use crate::decode::wire;
use crate::syntax;

wire! {
    /// A reference to a Service, a ServiceEntry, a Gateway of the Gateway API or a GatewayClass.
    pub struct PolicyTargetReference {
        /// API group of the target; absent: Kubernetes' own.
        group: Option<String>, "group" => syntax::dns_name;
        /// Its kind.
        kind: String, "kind", required;
        /// Its name.
        name: String, "name", required => syntax::dns_name;
        /// Its namespace; only that of the policy itself is allowed, and so it stays empty.
        namespace: Option<String>, "namespace";
    }
    rule check::policy_target;
}
