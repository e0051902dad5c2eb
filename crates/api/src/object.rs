//! The object: identity, metadata, typed spec, and where it was written. Leaves out how text becomes one (`parse.rs`)
//! and what it means (the snapshot).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value as Json, json};

use crate::decode::Wire;
use crate::istio::{
    AuthorizationPolicy, DestinationRule, EnvoyFilter, Gateway, IstioOperator, PeerAuthentication,
    ProxyConfig, RequestAuthentication, ServiceEntry, Sidecar, Telemetry, TrafficExtension, VirtualService,
    WasmPlugin, WorkloadEntry, WorkloadGroup,
};
use crate::kubernetes::{
    ConfigMap, DaemonSet, Deployment, EndpointSlice, Endpoints, Job, Namespace, Node, Pod, ReplicaSet,
    Secret, Service, ServiceAccount, StatefulSet, Status,
};
use crate::span::Spans;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $group:literal, $versions:expr;)*) => {
        /// The kinds of object that are understood.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// Every kind, in declaration order.
            pub const ALL: &[Kind] = &[$(Kind::$kind),*];

            /// The name as in the `kind` field.
            pub fn as_str(self) -> &'static str {
                match self { $(Kind::$kind => stringify!($kind),)* }
            }

            /// The API group, empty for Kubernetes core.
            pub fn group(self) -> &'static str {
                match self { $(Kind::$kind => $group,)* }
            }

            /// The versions of the group that are read, newest first.
            pub fn versions(self) -> &'static [&'static str] {
                match self { $(Kind::$kind => $versions,)* }
            }
        }

        /// The typed content of an object: its wire type, field for field.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Spec { $($(#[$doc])* $kind($kind),)* }

        impl Spec {
            /// The kind this spec belongs to.
            pub fn kind(&self) -> Kind {
                match self { $(Spec::$kind(_) => Kind::$kind,)* }
            }

            /// The content as the API's JSON; an object without content is `{}`.
            pub fn to_json(&self) -> Json {
                let json = match self { $(Spec::$kind(spec) => spec.encode(),)* };
                json.unwrap_or_else(|| Json::Object(Map::new()))
            }
        }
    };
}

/// Versions of Istio's networking group.
const ISTIO: &[&str] = &["v1", "v1beta1", "v1alpha3"];

/// Versions of Istio's security group.
const SECURITY: &[&str] = &["v1", "v1beta1"];

kinds! {
    /// How requests for a host are routed.
    VirtualService, "networking.istio.io", ISTIO;
    /// How traffic behaves once its destination is chosen.
    DestinationRule, "networking.istio.io", ISTIO;
    /// What a gateway workload listens on.
    Gateway, "networking.istio.io", ISTIO;
    /// A service that no registry knows.
    ServiceEntry, "networking.istio.io", ISTIO;
    /// One workload instance outside Kubernetes.
    WorkloadEntry, "networking.istio.io", ISTIO;
    /// What the workload instances of a group have in common.
    WorkloadGroup, "networking.istio.io", ISTIO;
    /// What one sidecar listens on and may see.
    Sidecar, "networking.istio.io", ISTIO;
    /// How proxies are to be set up.
    ProxyConfig, "networking.istio.io", &["v1beta1"];
    /// Patches on the Envoy configuration of proxies.
    EnvoyFilter, "networking.istio.io", &["v1alpha3"];
    /// Whether workloads demand mutual TLS.
    PeerAuthentication, "security.istio.io", SECURITY;
    /// Who may call workloads.
    AuthorizationPolicy, "security.istio.io", SECURITY;
    /// Which tokens workloads accept.
    RequestAuthentication, "security.istio.io", SECURITY;
    /// What proxies measure, trace and log.
    Telemetry, "telemetry.istio.io", &["v1", "v1alpha1"];
    /// A WebAssembly module in the proxies.
    WasmPlugin, "extensions.istio.io", &["v1alpha1"];
    /// A WebAssembly module or a Lua program in the proxies.
    TrafficExtension, "extensions.istio.io", &["v1alpha1"];
    /// How Istio is to be installed, with MeshConfig.
    IstioOperator, "install.istio.io", &["v1alpha1"];
    /// A Kubernetes service.
    Service, "", &["v1"];
    /// A Kubernetes deployment.
    Deployment, "apps", &["v1"];
    /// A Kubernetes service account.
    ServiceAccount, "", &["v1"];
    /// A Kubernetes namespace.
    Namespace, "", &["v1"];
    /// A Kubernetes config map.
    ConfigMap, "", &["v1"];
    /// A Kubernetes secret.
    Secret, "", &["v1"];
    /// A running instance in Kubernetes.
    Pod, "", &["v1"];
    /// A machine of a Kubernetes cluster.
    Node, "", &["v1"];
    /// A part of the addresses behind a Kubernetes service.
    EndpointSlice, "discovery.k8s.io", &["v1"];
    /// The addresses behind a Kubernetes service, in the older form.
    Endpoints, "", &["v1"];
    /// A Kubernetes stateful set.
    StatefulSet, "apps", &["v1"];
    /// A Kubernetes daemon set.
    DaemonSet, "apps", &["v1"];
    /// A Kubernetes replica set.
    ReplicaSet, "apps", &["v1"];
    /// A Kubernetes job.
    Job, "batch", &["v1"];
}

impl Kind {
    /// The newest `apiVersion`.
    pub fn api_version(self) -> String {
        let version = self.versions().first().expect("invariant: every kind has a version");
        match self.group() {
            "" => (*version).to_owned(),
            group => format!("{group}/{version}"),
        }
    }

    /// Whether objects of the kind are read and checked, and nothing acts by them yet.
    pub fn is_later(self) -> bool {
        matches!(
            self,
            Kind::ProxyConfig
                | Kind::AuthorizationPolicy
                | Kind::RequestAuthentication
                | Kind::Telemetry
                | Kind::WasmPlugin
                | Kind::TrafficExtension
        )
    }

    /// Whether the content stands below `spec`; otherwise it stands beside `metadata`.
    pub fn has_spec(self) -> bool {
        !matches!(
            self,
            Kind::ServiceAccount
                | Kind::Namespace
                | Kind::ConfigMap
                | Kind::Secret
                | Kind::Node
                | Kind::EndpointSlice
                | Kind::Endpoints
        )
    }

    /// Whether its objects are in no namespace.
    pub fn is_cluster_wide(self) -> bool {
        matches!(self, Kind::Namespace | Kind::Node)
    }

    /// Whether its `status` says something to the mesh.
    pub fn has_status(self) -> bool {
        matches!(self, Kind::WorkloadEntry | Kind::ServiceEntry | Kind::Pod | Kind::Service)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Kind::ALL.iter().copied().find(|kind| kind.as_str() == name).ok_or(())
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What an object is called. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectId {
    /// The kind.
    pub kind: Kind,
    /// The namespace; empty for cluster-wide kinds (Namespace, Node), `default` when the text names none.
    pub namespace: Arc<str>,
    /// The name, unique in kind and namespace.
    pub name: Arc<str>,
}

impl ObjectId {
    /// An identity from its parts.
    pub fn new(kind: Kind, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

/// `VirtualService default/reviews`.
impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.is_empty() {
            true => write!(f, "{} {}", self.kind, self.name),
            false => write!(f, "{} {}/{}", self.kind, self.namespace, self.name),
        }
    }
}

/// The part of `metadata` that means something to a mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// `creationTimestamp` in seconds since the Unix epoch, when the text has one. Where Istio prefers the older of
    /// two objects, an object with a timestamp is older than one without; ties go by namespace and name.
    pub created_unix_seconds: Option<i64>,
    /// `generation`, when the text has one.
    pub generation: Option<i64>,
    /// Kind and name of the object that made this one, when the text says so (`ownerReferences` with `controller`).
    pub controller: Option<(String, String)>,
    /// It is about to end (`deletionTimestamp`).
    pub is_terminating: bool,
}

/// Where an object was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The file, as the source names it.
    pub file: Arc<str>,
    /// Position among the objects of the file, from 0; members of a `List` count one by one.
    pub document: usize,
    /// Line on which the object starts, from 1.
    pub line: u32,
}

/// One object of the mesh's configuration, free of errors of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Kind, namespace and name.
    pub id: ObjectId,
    /// Labels, annotations and age.
    pub meta: Meta,
    /// The typed content.
    pub spec: Spec,
    /// What was last observed of it, as far as it matters ([`Kind::has_status`]).
    pub status: Status,
    /// Where it was written.
    pub origin: Origin,
    /// Where each of its fields was written.
    pub spans: Spans,
}

impl Object {
    /// Whether two versions of an object say the same, wherever they are written.
    pub fn same_content(&self, other: &Object) -> bool {
        self.id == other.id
            && self.meta == other.meta
            && self.spec == other.spec
            && self.status == other.status
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.id.kind
    }

    /// The object as the API's JSON, in the newest version of its kind.
    pub fn to_json(&self) -> Json {
        let mut metadata = Map::from_iter([("name".to_owned(), json!(self.id.name))]);
        if !self.id.namespace.is_empty() {
            metadata.insert("namespace".to_owned(), json!(self.id.namespace));
        }
        let maps = [("labels", self.meta.labels.encode()), ("annotations", self.meta.annotations.encode())];
        let created = self.meta.created_unix_seconds.and_then(|at| jiff::Timestamp::from_second(at).ok());
        let rest = [
            ("creationTimestamp", created.map(|at| Json::String(at.to_string()))),
            ("generation", self.meta.generation.map(Json::from)),
        ];
        let present = maps.into_iter().chain(rest).filter_map(|(key, value)| Some((key.to_owned(), value?)));
        metadata.extend(present);
        let mut object = Map::from_iter([
            ("apiVersion".to_owned(), json!(self.id.kind.api_version())),
            ("kind".to_owned(), json!(self.id.kind)),
            ("metadata".to_owned(), Json::Object(metadata)),
        ]);
        match (self.spec.to_json(), self.id.kind.has_spec()) {
            (spec, true) => _ = object.insert("spec".to_owned(), spec),
            (Json::Object(fields), false) => object.extend(fields),
            _ => {}
        }
        if let Some(status) = self.status.encode() {
            object.insert("status".to_owned(), status);
        }
        Json::Object(object)
    }
}
