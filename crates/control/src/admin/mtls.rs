//! Who speaks mutual TLS with whom: for every port of every workload what it lets in, and what callers in the mesh send
//! it. For people and `meltemi up`, which must not know how policies combine.
//!
//! Source of the question: `istioctl authn tls-check`, which istiod answered under `/debug/authenticationz`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use meltemi_api::istio::Subset;
use meltemi_api::{Object, Spec};
use meltemi_snapshot::{
    Call, DestinationRule, EndpointAddress, MtlsMode, Service, ServicePort, Snapshot, Spoken,
};
use serde::Serialize;

use crate::proxies::ProxyStatus;

/// A port of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Port {
    namespace: Arc<str>,
    workload: String,
    address: IpAddr,
    port: u16,
    /// What it lets in, in PeerAuthentication's words; none without a sidecar.
    mode: Option<&'static str>,
    /// The object that says so; none for what is in force by itself.
    by: Option<String>,
    calls: Vec<Calls>,
}

/// What callers that are treated alike send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Calls {
    service: String,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    subset: Option<String>,
    /// Their namespaces.
    from: BTreeSet<String>,
    /// `mtls`, `tls` (as a DestinationRule says), `plaintext`.
    sends: &'static str,
    /// The object that says so; none for what is in force by itself.
    by: Option<String>,
    is_let_in: bool,
}

/// A port in the order of the page.
type Place = (IpAddr, u16);

/// Everything about the workloads of a mesh, in the order of their addresses, and about the callers that are connected.
pub(super) fn page(snapshot: &Snapshot, proxies: &[ProxyStatus]) -> Vec<Port> {
    let callers = proxies.iter().map(|proxy| (proxy.shape.namespace.as_str(), proxy.shape.has_sds)).collect();
    of(snapshot, &callers)
}

fn of(snapshot: &Snapshot, callers: &BTreeSet<(&str, bool)>) -> Vec<Port> {
    let mut ports: BTreeMap<Place, Port> =
        snapshot.objects().flat_map(|object| of_entry(snapshot, object)).collect();
    for service in snapshot.services.iter() {
        for port in &service.ports {
            for (namespace, has_certificate) in callers.iter().filter(|(n, _)| service.export_to.reaches(n)) {
                let caller = Caller { snapshot, namespace, has_certificate: *has_certificate };
                caller.add_calls(service, port, &mut ports);
            }
        }
    }
    ports.into_values().collect()
}

/// The ports that a WorkloadEntry names.
fn of_entry(snapshot: &Snapshot, object: &Object) -> Vec<(Place, Port)> {
    let Spec::WorkloadEntry(entry) = &object.spec else { return Vec::new() };
    let Some(address) = entry.address.as_deref().and_then(|address| address.parse().ok()) else {
        return Vec::new();
    };
    let policies = &snapshot.config.peer_authentications;
    let mtls = policies.of_workload(&object.id.namespace, &entry.labels);
    let has_sidecar = meltemi_snapshot::has_mtls(entry);
    let numbers: BTreeSet<u16> = entry.ports.values().filter_map(|port| u16::try_from(*port).ok()).collect();
    let port = |number| {
        let (mode, by) = mtls.said_at_port(number);
        let port = Port {
            namespace: Arc::clone(&object.id.namespace),
            workload: object.id.name.to_string(),
            address,
            port: number,
            mode: has_sidecar.then(|| mode.as_str()),
            by: by.filter(|_| has_sidecar).map(|by| by.id.to_string()),
            calls: Vec::new(),
        };
        ((address, number), port)
    };
    numbers.into_iter().map(port).collect()
}

/// Callers of one namespace.
struct Caller<'a> {
    snapshot: &'a Snapshot,
    namespace: &'a str,
    has_certificate: bool,
}

impl Caller<'_> {
    fn add_calls(&self, service: &Service, port: &ServicePort, ports: &mut BTreeMap<Place, Port>) {
        let for_all = self.snapshot.destination_rule(self.namespace, service).map(|rule| &**rule);
        let rules = &self.snapshot.config.destination_rules;
        let for_some = rules.for_some_workloads(self.namespace, &service.host);
        for rule in std::iter::once(for_all).chain(for_some.into_iter().map(|rule| Some(&**rule))) {
            self.add_calls_under(rule, (service, port), ports);
        }
    }

    fn add_calls_under(
        &self,
        rule: Option<&DestinationRule>,
        (service, port): (&Service, &ServicePort),
        ports: &mut BTreeMap<Place, Port>,
    ) {
        let subsets = rule.map_or(Vec::new(), |rule| rule.subsets());
        // A subset without TLS of its own is called as its service is.
        let own = subsets.iter().map(|(_, _, subset)| *subset).filter(|subset| has_tls(subset));
        let which: Vec<Option<&Subset>> = std::iter::once(None).chain(own.map(Some)).collect();
        for subset in which {
            let call = Call { snapshot: self.snapshot, rule, service, port: port.number, subset };
            self.add(&call, ports);
        }
    }

    fn add(&self, call: &Call<'_>, ports: &mut BTreeMap<Place, Port>) {
        let labels = call.subset.map(|subset| &subset.labels);
        for endpoint in self.snapshot.endpoints.of(call.service, call.port) {
            let EndpointAddress::Ip(address) = endpoint.address else { continue };
            let is_meant = labels.is_none_or(|l| meltemi_snapshot::labels_match(l, &endpoint.labels));
            let (Some(port), true) = (ports.get_mut(&(address, endpoint.port)), is_meant) else { continue };
            let Some(spoken) = call.spoken(endpoint, self.has_certificate) else { continue };
            let policies = &self.snapshot.config.peer_authentications;
            let mode = match endpoint.has_mtls {
                true => policies.of_workload(&endpoint.namespace, &endpoint.labels).at_port(endpoint.port),
                // A program without a sidecar knows nothing of the mesh's certificates.
                false => MtlsMode::Disable,
            };
            port.add(self.calls(call, spoken, mode));
        }
    }

    fn calls(&self, call: &Call<'_>, spoken: Spoken, mode: MtlsMode) -> Calls {
        let rule = call.rule.filter(|_| call.is_ruled()).and_then(|rule| rule.objects.first());
        Calls {
            service: call.service.host.to_string(),
            port: call.port,
            subset: call.subset.map(|subset| subset.name.clone()),
            from: [self.namespace.to_owned()].into(),
            sends: word(spoken),
            by: rule.map(|object| object.id.to_string()),
            is_let_in: mode.lets_in(spoken),
        }
    }
}

impl Port {
    /// Callers that send the same for the same reason stand together.
    fn add(&mut self, calls: Calls) {
        let same = self
            .calls
            .iter_mut()
            .find(|known| Calls { from: calls.from.clone(), ..(**known).clone() } == calls);
        match same {
            Some(known) => known.from.extend(calls.from),
            None => self.calls.push(calls),
        }
    }
}

fn has_tls(subset: &Subset) -> bool {
    let policy = subset.traffic_policy.as_ref();
    policy.is_some_and(|p| p.tls.is_some() || p.port_level_settings.iter().any(|port| port.tls.is_some()))
}

fn word(spoken: Spoken) -> &'static str {
    match spoken {
        Spoken::Mutual => "mtls",
        Spoken::Tls => "tls",
        Spoken::Plaintext => "plaintext",
    }
}

#[cfg(test)]
mod tests;
