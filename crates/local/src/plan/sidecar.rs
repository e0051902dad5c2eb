//! What a workload's sidecar takes over from a `Sidecar` of the user's. `up` writes one `Sidecar` per Deployment, and only
//! one is in force for a workload, so the user's own would otherwise have no effect.
//!
//! Source: Istio's choice of the `Sidecar` in force: a matching selector, else the namespace's one without, else the root
//! namespace's.

use std::sync::Arc;

use meltemi_api::istio::{MeshConfig, Sidecar};
use meltemi_api::{Diagnostic, Object, Spec, codes};
use serde_json::{Value, json};

use crate::plan::ports::selects;
use crate::plan::{OutboundPort, Workload, sidecar_labels};

/// `rootNamespace` where MeshConfig says none.
const ROOT_NAMESPACE: &str = "istio-system";

/// The user's part of a workload's `Sidecar`, as JSON of the API.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Inherited {
    /// Listeners; empty: all services are visible.
    pub(crate) egress: Vec<Value>,
    /// `None`: the mesh's.
    pub(crate) outbound_traffic_policy: Option<Value>,
}

/// The Sidecars of the user.
pub(crate) struct Sidecars<'a> {
    /// Oldest first.
    all: Vec<(&'a Object, &'a Sidecar)>,
    /// The namespace whose Sidecar is for all.
    root: &'a str,
}

impl<'a> Sidecars<'a> {
    pub(crate) fn of(objects: &'a [Arc<Object>]) -> Sidecars<'a> {
        let mut all: Vec<_> = objects
            .iter()
            .filter_map(|object| match &object.spec {
                Spec::Sidecar(sidecar) => Some((&**object, sidecar)),
                _ => None,
            })
            .collect();
        all.sort_by_key(|(object, _)| {
            let created = object.meta.created_unix_seconds;
            (created.is_none(), created, object.id.name.clone())
        });
        let mesh = MeshConfig::candidates(objects).first().and_then(|object| MeshConfig::of(object));
        Sidecars { all, root: mesh.and_then(|mesh| mesh.root_namespace.as_deref()).unwrap_or(ROOT_NAMESPACE) }
    }
}

/// What the workload takes over. Its inbound listeners are those of its container, so a user's are left out and that is
/// told.
pub(crate) fn inherit(
    workload: &Workload,
    sidecars: &Sidecars<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Inherited {
    let Some((object, sidecar)) = in_force(workload, sidecars) else { return Inherited::default() };
    if !sidecar.ingress.is_empty() {
        let message = format!("`ingress` has no effect on {}", workload.id);
        let help = "on one machine a sidecar listens on the ports of its container; declare them there";
        diagnostics
            .push(Diagnostic::new(&codes::INGRESS_IGNORED, message).at(object, "spec.ingress").help(help));
    }
    let mut spec = object.spec.to_json();
    let egress = match spec["egress"].take() {
        Value::Array(egress) => egress,
        _ => Vec::new(),
    };
    let policy = spec["outboundTrafficPolicy"].take();
    Inherited { egress, outbound_traffic_policy: Some(policy).filter(|policy| !policy.is_null()) }
}

fn in_force<'a>(workload: &Workload, sidecars: &Sidecars<'a>) -> Option<(&'a Object, &'a Sidecar)> {
    let labels = sidecar_labels(workload);
    let selector = |sidecar: &'a Sidecar| {
        sidecar
            .workload_selector
            .as_ref()
            .map(|selector| &selector.labels)
            .filter(|labels| !labels.is_empty())
    };
    let of = |namespace: &str| {
        let namespace = namespace.to_owned();
        sidecars.all.iter().filter(move |(object, _)| *object.id.namespace == *namespace)
    };
    of(&workload.id.namespace)
        .find(|(_, sidecar)| selector(sidecar).is_some_and(|wanted| selects(wanted, &labels)))
        .or_else(|| of(&workload.id.namespace).find(|(_, sidecar)| selector(sidecar).is_none()))
        .or_else(|| of(sidecars.root).find(|(_, sidecar)| selector(sidecar).is_none()))
        .copied()
}

impl Inherited {
    /// All outbound listeners: those of single services, then the user's, whose one without a port comes last. Where both
    /// name a port, the user's stands.
    pub(crate) fn egress(
        &self,
        of_services: &[OutboundPort],
        listener: fn(&OutboundPort) -> Value,
    ) -> Vec<Value> {
        let is_taken = |number: u16| self.egress.iter().any(|entry| entry["port"]["number"] == number);
        let mut listeners: Vec<Value> =
            of_services.iter().filter(|port| !is_taken(port.number)).map(listener).collect();
        match self.egress.as_slice() {
            [] => listeners.push(json!({ "hosts": ["*/*"] })),
            own => listeners.extend_from_slice(own),
        }
        listeners
    }
}
