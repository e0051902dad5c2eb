//! Who can be asked: the workloads and gateways that the objects describe, and replicas of those that do not run yet.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use meltemi_api::{Object, Spec, kubernetes::Deployment, parse};
use meltemi_snapshot::{Snapshot, labels_match};
use serde_json::{Map, Value as Json, json};

use crate::proxy::{Kind, ProxySpec};

/// First address of replicas that do not run: of the network that RFC 2544 keeps for tests.
const FIRST_REPLICA: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// Replicas of one Deployment that are shown.
const MAX_REPLICAS: u32 = 16;

/// The service account of pods that name none.
const DEFAULT_ACCOUNT: &str = "default";

/// A workload or a gateway, with the facts that decide its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// What proxy it has.
    pub kind: Kind,
    /// Name of the Deployment, of the WorkloadEntry's workload, or of the Gateway.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Service account; empty when not known.
    pub service_account: String,
}

impl Workload {
    /// The proxy of the workload.
    pub(crate) fn proxy(&self, address: Option<&str>) -> ProxySpec {
        ProxySpec {
            kind: self.kind,
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            labels: self.labels.clone(),
            service_account: self.service_account.clone(),
            ip_addresses: address.map(str::to_owned).into_iter().collect(),
            ..ProxySpec::default()
        }
    }

    /// What people call it: `reviews-v1.default`, `gateway/shop.default`.
    pub fn title(&self) -> String {
        let prefix = if self.kind == Kind::Router { "gateway/" } else { "" };
        format!("{prefix}{}.{}", self.name, self.namespace)
    }

    /// Whether somebody means it who says `name`, or `name.namespace`.
    fn answers_to(&self, asked: &str) -> bool {
        let (gateway, asked) = match asked.strip_prefix("gateway/") {
            Some(rest) => (true, rest),
            None => (false, asked),
        };
        let is_kind = gateway == (self.kind == Kind::Router);
        let full = format!("{}.{}", self.name, self.namespace);
        is_kind
            && (asked == self.name || asked == full || asked == format!("{}/{}", self.namespace, self.name))
    }
}

/// Everybody who can be asked, in the order of their names.
pub(crate) fn all(snapshot: &Snapshot) -> Vec<Workload> {
    let mut found: Vec<Workload> = snapshot.objects().filter_map(|object| of_object(object)).collect();
    let gateways: Vec<Workload> = snapshot.objects().filter_map(|object| of_gateway(object)).collect();
    for workload in &mut found {
        // A Deployment that a Gateway selects is a gateway itself.
        let selects = |gateway: &&Workload| labels_match(&gateway.labels, &workload.labels);
        if gateways.iter().any(|gateway| selects(&gateway) && !gateway.labels.is_empty()) {
            workload.kind = Kind::Router;
        }
    }
    found.extend(gateways);
    found.sort_by(|a, b| {
        (a.kind == Kind::Router, &a.namespace, &a.name).cmp(&(b.kind == Kind::Router, &b.namespace, &b.name))
    });
    found.dedup_by(|a, b| a.kind == b.kind && a.name == b.name && a.namespace == b.namespace);
    found
}

/// The one that is meant by a name.
///
/// # Errors
/// If there is none, or several.
pub(crate) fn find(snapshot: &Snapshot, asked: &str) -> Result<Workload, String> {
    let all = all(snapshot);
    let meant: Vec<&Workload> = all.iter().filter(|workload| workload.answers_to(asked)).collect();
    // People say `reviews` and mean any version of it.
    let by_label = || all.iter().find(|workload| workload.labels.get("app").is_some_and(|app| app == asked));
    match meant.as_slice() {
        [only] => Ok((*only).clone()),
        [] => by_label().cloned().ok_or_else(|| {
            let names: Vec<String> = all.iter().map(Workload::title).collect();
            format!("there is no workload `{asked}`; there are {}", names.join(", "))
        }),
        several => {
            let names: Vec<String> = several.iter().map(|workload| workload.title()).collect();
            Err(format!("`{asked}` may be any of {}", names.join(", ")))
        }
    }
}

fn of_object(object: &Object) -> Option<Workload> {
    let (labels, account) = match &object.spec {
        Spec::Deployment(deployment) => {
            let template = &deployment.template;
            (template.metadata.labels.clone(), template.spec.service_account_name.clone())
        }
        _ => return None,
    };
    Some(Workload {
        kind: Kind::Sidecar,
        name: object.id.name.to_string(),
        namespace: object.id.namespace.to_string(),
        labels,
        service_account: account.unwrap_or_else(|| DEFAULT_ACCOUNT.to_owned()),
    })
}

fn of_gateway(object: &Object) -> Option<Workload> {
    let Spec::Gateway(gateway) = &object.spec else { return None };
    Some(Workload {
        kind: Kind::Router,
        name: object.id.name.to_string(),
        namespace: object.id.namespace.to_string(),
        labels: gateway.selector.clone(),
        service_account: String::new(),
    })
}

/// WorkloadEntries for the replicas of Deployments of which none runs, as `meltemi up` would make them: without them no
/// service would have an endpoint.
pub(crate) fn replicas(objects: &[Arc<Object>]) -> Vec<Arc<Object>> {
    let running: Vec<&BTreeMap<String, String>> = objects
        .iter()
        .filter_map(|object| match &object.spec {
            Spec::WorkloadEntry(entry) => Some(&entry.labels),
            _ => None,
        })
        .collect();
    let mut documents = Vec::new();
    let mut address = FIRST_REPLICA;
    for object in objects {
        let Spec::Deployment(deployment) = &object.spec else { continue };
        let labels = &deployment.template.metadata.labels;
        if running.iter().any(|other| labels_match(labels, other)) {
            continue;
        }
        for number in 0..deployment.replicas.unwrap_or(1).min(MAX_REPLICAS) {
            documents.push(replica(object, deployment, number, address));
            address = Ipv4Addr::from(u32::from(address) + 1);
        }
    }
    let text = Json::Array(documents).to_string();
    let (entries, _) = parse(&text, &Arc::from("replicas"));
    entries.into_iter().map(Arc::new).collect()
}

fn replica(object: &Object, deployment: &Deployment, number: u32, address: Ipv4Addr) -> Json {
    let spec = &deployment.template.spec;
    let ports = spec.containers.iter().flat_map(|container| &container.ports);
    let named = ports.filter_map(|port| Some((port.name.clone()?, Json::from(port.container_port))));
    let account = spec.service_account_name.as_deref().unwrap_or(DEFAULT_ACCOUNT);
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": { "name": format!("{}-{number}", object.id.name), "namespace": object.id.namespace },
        "spec": {
            "address": address.to_string(),
            "ports": named.collect::<Map<_, _>>(),
            "labels": deployment.template.metadata.labels,
            "serviceAccount": account,
        },
    })
}
