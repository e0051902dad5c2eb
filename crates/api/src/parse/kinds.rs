//! Which kinds there are: those we read, those Istio and Kubernetes have besides, and misspelt ones. Source: the API
//! lists of Istio 1.30, Gateway API 1.4 and Kubernetes 1.34.

use crate::object::Kind;
use crate::syntax;

/// What `apiVersion` and `kind` stand for.
pub(super) enum Recognised {
    /// A kind we read.
    Known(Kind),
    /// A kind that exists, and that we do not read.
    Later(String),
    /// Nothing that exists.
    Unknown { field: &'static str, message: String, help: String },
}

/// Groups of which we know every kind. Kinds of other groups are somebody else's and none of our business.
const GROUPS: &[(&str, &[&str])] = &[
    (
        "networking.istio.io",
        &[
            "VirtualService",
            "DestinationRule",
            "Gateway",
            "ServiceEntry",
            "WorkloadEntry",
            "WorkloadGroup",
            "Sidecar",
            "EnvoyFilter",
            "ProxyConfig",
        ],
    ),
    ("security.istio.io", &["AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"]),
    ("install.istio.io", &["IstioOperator"]),
    ("telemetry.istio.io", &["Telemetry"]),
    ("extensions.istio.io", &["WasmPlugin", "TrafficExtension"]),
    (
        "",
        &[
            "Service",
            "ServiceAccount",
            "Namespace",
            "ConfigMap",
            "Secret",
            "Pod",
            "Endpoints",
            "Node",
            "Event",
            "PersistentVolume",
            "PersistentVolumeClaim",
            "ReplicationController",
            "ResourceQuota",
            "LimitRange",
            "PodTemplate",
            "Binding",
        ],
    ),
    ("discovery.k8s.io", &["EndpointSlice"]),
    ("batch", &["Job", "CronJob"]),
    ("apps", &["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ControllerRevision"]),
];

/// Looks a kind up.
pub(super) fn recognise(api_version: &str, kind: &str) -> Recognised {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let ours = Kind::ALL.iter().copied().find(|known| known.as_str() == kind && known.group() == group);
    if let Some(known) = ours {
        return match known.versions().contains(&version) {
            true => Recognised::Known(known),
            false => Recognised::Unknown {
                field: "apiVersion",
                message: format!("{kind} has no version `{version}`"),
                help: format!("write `{}`", known.api_version()),
            },
        };
    }
    let Some((_, kinds)) = GROUPS.iter().find(|(known, _)| *known == group) else {
        return other_group(api_version, group, kind);
    };
    if kinds.contains(&kind) {
        return Recognised::Later(format!("objects of kind {kind} ({api_version}) are not supported yet"));
    }
    let message = format!("`{api_version}` has no kind `{kind}`");
    let help = match kind.parse::<Kind>() {
        Ok(known) => format!("{kind} is in `{}`", known.api_version()),
        Err(()) => syntax::did_you_mean(kind, kinds.iter().copied()),
    };
    Recognised::Unknown { field: "kind", message, help }
}

/// A group that is not in the list: one of ours misspelt, or none of ours.
fn other_group(api_version: &str, group: &str, kind: &str) -> Recognised {
    match kind.parse::<Kind>() {
        Ok(known) if syntax::is_close(group, known.group()) => Recognised::Unknown {
            field: "apiVersion",
            message: format!("there is no API group `{group}`"),
            help: format!("{kind} is in `{}`", known.api_version()),
        },
        _ => Recognised::Later(format!("objects of kind {kind} ({api_version}) are not supported yet")),
    }
}
