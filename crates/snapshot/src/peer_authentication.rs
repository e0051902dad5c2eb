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
    /// What callers may still go by, or will next; oldest first.
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

    /// The first step of a change to `next`: callers go on as before, and whoever is called lets in both; `None` if callers
    /// need not change what they send. Modes that let mutual TLS in may follow each other at once.
    pub(crate) fn loosened_for(&self, next: &PeerAuthentications) -> Option<PeerAuthentications> {
        let mut loosened = self.clone();
        let changes = !self.says_the_same(next) && (self.disables() || next.disables());
        if changes && !self.earlier.contains(next) {
            loosened.remember(next.clone());
        }
        (!loosened.earlier.is_empty()).then_some(loosened)
    }

    /// The second step of a change from `before`: callers go by these, and both are let in until all of them have heard.
    /// `None` if they do already.
    pub(crate) fn announced_after(&self, before: &PeerAuthentications) -> Option<PeerAuthentications> {
        let last = PeerAuthentications { earlier: Vec::new(), ..before.clone() };
        let mut announced = PeerAuthentications { earlier: before.earlier.clone(), ..self.clone() };
        announced.remember(last);
        (!before.says_the_same(self)).then_some(announced)
    }

    /// Whether they are equal, whatever callers may go by.
    fn says_the_same(&self, other: &PeerAuthentications) -> bool {
        (&self.root, &self.by_namespace) == (&other.root, &other.by_namespace)
    }

    fn remember(&mut self, other: PeerAuthentications) {
        self.earlier.push(other);
        self.earlier.drain(..self.earlier.len().saturating_sub(MAX_EARLIER));
    }

    /// Whether not all callers go by these alone.
    pub fn is_in_transition(&self) -> bool {
        !self.earlier.is_empty()
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

    /// The ports that the workload's own policy speaks of.
    pub fn ports(&self) -> Vec<u16> {
        let policy = self.workload.map(|(_, policy)| policy);
        let ports = policy.into_iter().flat_map(|policy| policy.port_level_mtls.keys());
        let mut ports: Vec<u16> = ports.filter_map(|port| port.parse().ok()).collect();
        ports.sort_unstable();
        ports
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

    /// Generation by generation what a workload lets in, and what its callers go by.
    fn steps(states: &[&str]) -> Vec<String> {
        let snapshot = |spec: &&str| {
            let text = policy("shop", "p", 20, &format!("{{mtls: {{mode: {spec}}}}}"));
            let (objects, _) = meltemi_api::parse(&text, &"pa.yaml".into());
            Snapshot::build(&Inputs { objects: objects.into_iter().map(Arc::new).collect() }).0
        };
        let told = |snapshot: &Snapshot| {
            let policies = &snapshot.config.peer_authentications;
            let lets_in = policies.let_in("shop", &BTreeMap::new(), 80);
            format!("{} {}", lets_in.as_str(), policies.of_namespace("shop").as_str())
        };
        let states: Vec<Snapshot> = states.iter().map(snapshot).collect();
        let mut in_force = states[0].clone();
        let mut steps = Vec::new();
        for next in &states[1..] {
            in_force = next.loosened_after(&in_force).unwrap_or_else(|| next.clone());
            steps.push(told(&in_force));
        }
        let last = states.last().unwrap();
        while let Some(next) = last.announced_after(&in_force) {
            steps.push(told(&next));
            in_force = next;
        }
        steps.push(told(last));
        steps
    }

    /// Whoever is called lets both in before its callers change, and until they have changed.
    #[test]
    fn both_are_let_in_while_callers_change() {
        assert_eq!(steps(&["PERMISSIVE", "STRICT"]), ["STRICT STRICT", "STRICT STRICT"]);
        assert_eq!(
            steps(&["STRICT", "DISABLE"]),
            ["PERMISSIVE STRICT", "PERMISSIVE DISABLE", "DISABLE DISABLE"]
        );
        assert_eq!(
            steps(&["DISABLE", "STRICT"]),
            ["PERMISSIVE DISABLE", "PERMISSIVE STRICT", "STRICT STRICT"]
        );
        // A change of mind before callers have heard.
        assert_eq!(
            steps(&["STRICT", "DISABLE", "STRICT"]),
            ["PERMISSIVE STRICT", "PERMISSIVE STRICT", "STRICT STRICT"]
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
