//! PeerAuthentication: whether a port of a workload demands mutual TLS.
//!
//! Source: Istio `pilot/pkg/security/authn/policy_applier.go` (`ComposePeerAuthentication`) and
//! `pilot/pkg/model/authentication.go`: port, workload, namespace, mesh, in this order; UNSET inherits; of several
//! objects of one level the oldest counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_api::{Object, Spec, istio};

use crate::config::labels_match;
use crate::mesh_config::MeshConfig;

/// Whether mutual TLS is demanded, with nothing left to inherit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MtlsMode {
    /// It is not spoken.
    Disable,
    /// Callers that can speak it, others use plaintext.
    #[default]
    Permissive,
    /// Nothing else is let in.
    Strict,
}

impl MtlsMode {
    /// `None` for what inherits.
    fn of(mtls: Option<&istio::MutualTls>) -> Option<MtlsMode> {
        match mtls?.mode.unwrap_or_default() {
            istio::MutualTlsMode::Unset => None,
            istio::MutualTlsMode::Disable => Some(MtlsMode::Disable),
            istio::MutualTlsMode::Permissive => Some(MtlsMode::Permissive),
            istio::MutualTlsMode::Strict => Some(MtlsMode::Strict),
        }
    }

    /// The name as the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            MtlsMode::Disable => "DISABLE",
            MtlsMode::Permissive => "PERMISSIVE",
            MtlsMode::Strict => "STRICT",
        }
    }
}

/// Most earlier states that a transition remembers: as many changes within one transition, nobody makes by hand. Of more
/// the oldest are forgotten.
const MAX_EARLIER: usize = 16;

/// The PeerAuthentications of the mesh.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerAuthentications {
    /// Namespace whose objects are for the whole mesh.
    root: Arc<str>,
    /// By namespace, oldest first.
    by_namespace: BTreeMap<Arc<str>, Vec<Arc<Object>>>,
    /// What was in force before, while callers may still go by it; oldest first.
    earlier: Vec<PeerAuthentications>,
}

/// The ports of a workload.
#[derive(Debug, Clone, Copy)]
pub struct WorkloadMtls<'a> {
    mode: MtlsMode,
    /// The object that says it; `None` where nothing is said.
    by: Option<&'a Arc<Object>>,
    workload: Option<(&'a Arc<Object>, &'a istio::PeerAuthentication)>,
}

impl Default for PeerAuthentications {
    fn default() -> PeerAuthentications {
        PeerAuthentications::new(MeshConfig::default().root_namespace)
    }
}

impl PeerAuthentications {
    /// None, in a mesh with this root namespace.
    pub(crate) fn new(root: Arc<str>) -> PeerAuthentications {
        PeerAuthentications { root, by_namespace: BTreeMap::new(), earlier: Vec::new() }
    }

    /// Adds an object that is not older than those before it.
    pub(crate) fn add(&mut self, object: &Arc<Object>) {
        self.by_namespace.entry(Arc::clone(&object.id.namespace)).or_default().push(Arc::clone(object));
    }

    /// What is in force for a workload.
    pub fn of_workload(&self, namespace: &str, labels: &BTreeMap<String, String>) -> WorkloadMtls<'_> {
        // A selector means nothing in the root namespace, not even for its own workloads.
        let workload = self
            .of(namespace)
            .filter(|_| namespace != &*self.root)
            .find(|(_, policy)| policy.labels().is_some_and(|selector| labels_match(selector, labels)));
        let of_workload =
            workload.and_then(|(object, policy)| Some((MtlsMode::of(policy.mtls.as_ref())?, object)));
        let said = of_workload.or_else(|| self.said_in(namespace));
        WorkloadMtls {
            mode: said.map_or(MtlsMode::default(), |(mode, _)| mode),
            by: said.map(|(_, object)| object),
            workload,
        }
    }

    /// What a port of a workload lets in: what is in force, and while callers change between mutual TLS and plaintext,
    /// both.
    pub fn let_in(&self, namespace: &str, labels: &BTreeMap<String, String>, port: u16) -> MtlsMode {
        let mode_in = |policies: &PeerAuthentications| policies.of_workload(namespace, labels).at_port(port);
        let mode = mode_in(self);
        let is_off = |mode| mode == MtlsMode::Disable;
        match self.earlier.iter().any(|before| is_off(mode_in(before)) != is_off(mode)) {
            true => MtlsMode::Permissive,
            false => mode,
        }
    }

    /// These after `before`, remembering it; `None` if callers need not change what they send. Modes that let mutual TLS in
    /// may follow each other at once.
    pub(crate) fn in_transition_from(&self, before: &PeerAuthentications) -> Option<PeerAuthentications> {
        let last = before.settled();
        let mut earlier = before.earlier.clone();
        if (&last.root, &last.by_namespace) != (&self.root, &self.by_namespace) && (last.disables() || self.disables()) {
            earlier.push(last);
        }
        earlier.drain(..earlier.len().saturating_sub(MAX_EARLIER));
        (!earlier.is_empty())
            .then(|| PeerAuthentications { earlier, ..self.settled() })
    }

    /// Whether callers may still go by what was in force before.
    pub fn is_in_transition(&self) -> bool {
        !self.earlier.is_empty()
    }

    /// These alone.
    pub(crate) fn settled(&self) -> PeerAuthentications {
        let (root, by_namespace) = (Arc::clone(&self.root), self.by_namespace.clone());
        PeerAuthentications { root, by_namespace, earlier: Vec::new() }
    }

    /// Whether any of them switches mutual TLS off.
    fn disables(&self) -> bool {
        let is_off = |mtls: Option<&istio::MutualTls>| MtlsMode::of(mtls) == Some(MtlsMode::Disable);
        self.iter().any(|(_, policy)| {
            is_off(policy.mtls.as_ref()) || policy.port_level_mtls.values().any(|mtls| is_off(Some(mtls)))
        })
    }

    /// What is in force in a namespace, as far as its workloads say nothing themselves.
    pub fn of_namespace(&self, namespace: &str) -> MtlsMode {
        self.said_in(namespace).map_or(MtlsMode::default(), |(mode, _)| mode)
    }

    /// What is said for a whole namespace or the whole mesh, and by which object.
    fn said_in(&self, namespace: &str) -> Option<(MtlsMode, &Arc<Object>)> {
        let whole = |namespace: &str| {
            let (object, policy) = self.of(namespace).find(|(_, policy)| policy.labels().is_none())?;
            Some((MtlsMode::of(policy.mtls.as_ref())?, object))
        };
        whole(namespace).or_else(|| whole(&self.root))
    }

    /// Every object, by namespace and then oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<Object>, &istio::PeerAuthentication)> {
        self.by_namespace.values().flatten().filter_map(|object| Some((object, spec(object)?)))
    }

    fn of(&self, namespace: &str) -> impl Iterator<Item = (&Arc<Object>, &istio::PeerAuthentication)> {
        let objects = self.by_namespace.get(namespace).into_iter().flatten();
        objects.filter_map(|object| Some((object, spec(object)?)))
    }
}

fn spec(object: &Object) -> Option<&istio::PeerAuthentication> {
    match &object.spec {
        Spec::PeerAuthentication(spec) => Some(spec),
        _ => None,
    }
}

impl<'a> WorkloadMtls<'a> {
    /// What is in force for a port that the workload itself listens on.
    pub fn at_port(&self, port: u16) -> MtlsMode {
        self.said_at_port(port).0
    }

    /// As [`WorkloadMtls::at_port`], with the object that says it; `None` where nothing is said.
    pub fn said_at_port(&self, port: u16) -> (MtlsMode, Option<&'a Arc<Object>>) {
        let of_port = self.workload.and_then(|(object, policy)| {
            let mode = MtlsMode::of(policy.port_level_mtls.get(&port.to_string()))?;
            Some((mode, Some(object)))
        });
        of_port.unwrap_or((self.mode, self.by))
    }

    /// What is in force for ports that nothing is said about.
    pub fn mode(&self) -> MtlsMode {
        self.mode
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Inputs, Snapshot};

    fn policy(namespace: &str, name: &str, created: u32, spec: &str) -> String {
        format!(
            "---\n{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: {name}, namespace: \
             {namespace}, creationTimestamp: '20{created:02}-01-01T00:00:00Z'}}, spec: {spec}}}\n"
        )
    }

    fn mode(policies: &[String], namespace: &str, port: u16) -> &'static str {
        let (objects, broken) = meltemi_api::parse(&policies.concat(), &"pa.yaml".into());
        assert!(broken.is_empty(), "{broken:#?}");
        let inputs = Inputs { objects: objects.into_iter().map(Arc::new).collect() };
        let labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
        let snapshot = Snapshot::build(&inputs).0;
        snapshot.config.peer_authentications.of_workload(namespace, &labels).at_port(port).as_str()
    }

    /// The table of Istio's documentation: the narrowest that says something.
    #[test]
    fn precedence() {
        let mesh = policy("istio-system", "mesh", 20, "{mtls: {mode: STRICT}}");
        let namespace = policy("shop", "ns", 20, "{mtls: {mode: DISABLE}}");
        let workload =
            policy("shop", "w", 20, "{selector: {matchLabels: {app: a}}, mtls: {mode: PERMISSIVE}}");
        let ports = policy(
            "shop",
            "w",
            20,
            "{selector: {matchLabels: {app: a}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {80: {mode: STRICT}, 81: {mode: UNSET}, 82: {}}}",
        );
        assert_eq!(mode(&[], "shop", 80), "PERMISSIVE");
        assert_eq!(mode(std::slice::from_ref(&mesh), "shop", 80), "STRICT");
        assert_eq!(mode(&[mesh.clone(), namespace.clone()], "shop", 80), "DISABLE");
        assert_eq!(mode(&[mesh.clone(), namespace.clone()], "other", 80), "STRICT");
        assert_eq!(mode(&[mesh.clone(), namespace.clone(), workload], "shop", 80), "PERMISSIVE");
        let all = [mesh, namespace, ports];
        assert_eq!(mode(&all, "shop", 80), "STRICT");
        for port in [81, 82, 83] {
            assert_eq!(mode(&all, "shop", port), "PERMISSIVE");
        }
    }

    #[test]
    fn unset_inherits_at_every_level() {
        let mesh = policy("istio-system", "mesh", 20, "{mtls: {mode: STRICT}}");
        let namespace = policy("shop", "ns", 20, "{mtls: {mode: UNSET}}");
        let workload = policy(
            "shop",
            "w",
            20,
            "{selector: {matchLabels: {app: a}}, portLevelMtls: {80: {mode: DISABLE}, 81: {}}}",
        );
        let all = [mesh, namespace, workload];
        assert_eq!(mode(&all, "shop", 80), "DISABLE");
        assert_eq!(mode(&all, "shop", 81), "STRICT");
        assert_eq!(mode(&all, "shop", 82), "STRICT");
        let unset = policy("istio-system", "mesh", 20, "{mtls: {}}");
        assert_eq!(mode(&[unset], "shop", 80), "PERMISSIVE");
    }

    #[test]
    fn the_oldest_of_a_level() {
        let younger = policy("shop", "a", 22, "{mtls: {mode: DISABLE}}");
        let older = policy("shop", "b", 21, "{mtls: {mode: STRICT}}");
        assert_eq!(mode(&[younger, older], "shop", 80), "STRICT");
        let younger = policy("shop", "a", 22, "{selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}}");
        let older = policy("shop", "b", 21, "{selector: {matchLabels: {app: a}}, mtls: {mode: DISABLE}}");
        let elsewhere = policy("shop", "c", 20, "{selector: {matchLabels: {app: b}}, mtls: {mode: STRICT}}");
        assert_eq!(mode(&[younger, older, elsewhere], "shop", 80), "DISABLE");
    }

    fn let_in(states: &[&str]) -> Vec<&'static str> {
        let snapshot = |spec: &&str| {
            let text = policy("shop", "p", 20, &format!("{{mtls: {{mode: {spec}}}}}"));
            let (objects, _) = meltemi_api::parse(&text, &"pa.yaml".into());
            Snapshot::build(&Inputs { objects: objects.into_iter().map(Arc::new).collect() }).0
        };
        let mut in_force: Option<Snapshot> = None;
        let mut modes = Vec::new();
        for next in states.iter().map(snapshot) {
            let transition = in_force.as_ref().and_then(|before| next.in_transition_from(before));
            let now = transition.unwrap_or(next);
            let policies = &now.config.peer_authentications;
            modes.push(policies.let_in("shop", &BTreeMap::new(), 80).as_str());
            in_force = Some(now);
        }
        let settled = in_force.unwrap().settled();
        modes.push(settled.config.peer_authentications.let_in("shop", &BTreeMap::new(), 80).as_str());
        modes
    }

    /// Whoever is called lets both in until callers have changed.
    #[test]
    fn both_are_let_in_while_callers_change() {
        assert_eq!(let_in(&["PERMISSIVE", "STRICT"]), ["PERMISSIVE", "STRICT", "STRICT"]);
        assert_eq!(let_in(&["STRICT", "DISABLE"]), ["STRICT", "PERMISSIVE", "DISABLE"]);
        assert_eq!(let_in(&["DISABLE", "STRICT"]), ["DISABLE", "PERMISSIVE", "STRICT"]);
        // A change of mind while some callers have changed already.
        assert_eq!(
            let_in(&["STRICT", "DISABLE", "STRICT"]),
            ["STRICT", "PERMISSIVE", "PERMISSIVE", "STRICT"]
        );
    }

    #[test]
    fn a_selector_in_the_root_namespace_is_ignored() {
        let rooted =
            policy("istio-system", "w", 20, "{selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}}");
        assert_eq!(mode(std::slice::from_ref(&rooted), "shop", 80), "PERMISSIVE");
        assert_eq!(mode(&[rooted], "istio-system", 80), "PERMISSIVE");
    }
}
