//! Istio's `istio.metadata_exchange` filters: which sides of a call are told who is on the other.
//!
//! Source: `io.istio.http.peer_metadata.Config` for HTTP and `envoy.tcp.metadataexchange.config.MetadataExchange` for
//! connections, each in a `TypedStruct`. Leaves out: baggage, which is for waypoints, and additional labels.

use std::collections::BTreeMap;

use meltemi_envoy::config::cluster::v3 as cluster_proto;
use prost_types::value::Kind;
use prost_types::{Struct, Value};

use crate::coverage;
use crate::extension::{typed_struct, unknown};
use crate::ledger::{At, Harmless, refuse};

/// Name of the configuration message of the HTTP filter.
pub(crate) const HTTP_CONFIG: &str = "io.istio.http.peer_metadata.Config";

/// Name of the configuration message of the network filter.
pub(crate) const NETWORK_CONFIG: &str = "envoy.tcp.metadataexchange.config.MetadataExchange";

/// A cluster that stands for every destination that is not known.
const PASSTHROUGH_CLUSTER: &str = "PassthroughCluster";

/// What the HTTP filter does; nothing by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerMetadata {
    /// `downstream_discovery` by headers: requests say who sends them, and nobody behind us reads that.
    pub reads_requests: bool,
    /// `upstream_discovery` by headers: the same of responses.
    pub reads_responses: bool,
    /// `downstream_propagation`: responses say who we are to those who said it themselves.
    pub writes_responses: Option<Propagation>,
    /// `upstream_propagation`: requests say who we are.
    pub writes_requests: Option<Propagation>,
}

/// How we tell who we are (`istio_headers`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// `skip_external_clusters`: not where the cluster is outside of the mesh.
    pub skips_external: bool,
}

/// Whether those behind a cluster are told who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerTold {
    /// They are.
    Always,
    /// `filter_metadata.istio.external`, or `PassthroughCluster`: unless [`Propagation::skips_external`].
    UnlessSkipped,
    /// `filter_metadata.istio.disable_mx`: they are not.
    Never,
}

impl Propagation {
    /// Whether those behind a cluster are told.
    pub fn reaches(self, told: PeerTold) -> bool {
        match told {
            PeerTold::Always => true,
            PeerTold::UnlessSkipped => !self.skips_external,
            PeerTold::Never => false,
        }
    }
}

impl PeerMetadata {
    /// What two filters in one chain do.
    pub(crate) fn and(self, other: PeerMetadata) -> PeerMetadata {
        PeerMetadata {
            reads_requests: self.reads_requests || other.reads_requests,
            reads_responses: self.reads_responses || other.reads_responses,
            writes_responses: self.writes_responses.or(other.writes_responses),
            writes_requests: self.writes_requests.or(other.writes_requests),
        }
    }
}

/// Compiles the configuration of the HTTP filter.
pub(crate) fn http(at: &At<'_>, config: &Struct) -> PeerMetadata {
    let mut compiled = PeerMetadata::default();
    for (name, value) in &config.fields {
        let at = &at.key("value", name);
        match (name.as_str(), &value.kind) {
            ("downstream_discovery", Some(Kind::ListValue(list))) => {
                compiled.reads_requests = discovers(at, &list.values);
            }
            ("upstream_discovery", Some(Kind::ListValue(list))) => {
                compiled.reads_responses = discovers(at, &list.values);
            }
            ("downstream_propagation", Some(Kind::ListValue(list))) => {
                compiled.writes_responses = propagates(at, &list.values);
            }
            ("upstream_propagation", Some(Kind::ListValue(list))) => {
                compiled.writes_requests = propagates(at, &list.values);
            }
            _ if is_default(value) => {}
            _ => at.reject("not supported yet"),
        }
    }
    compiled
}

/// Whether one of the methods reads headers.
fn discovers(at: &At<'_>, methods: &[Value]) -> bool {
    let each = |at: &At<'_>, name: &str, options: &BTreeMap<String, Value>| match name {
        "istio_headers" => headers(at, options),
        "workload_discovery" if options.is_empty() => {
            coverage::note(Harmless::NoWorkloadDiscovery, "workload_discovery", true);
            None
        }
        _ => at.none("not supported yet"),
    };
    !at.each("values", methods, |at, method| of_method(at, method, each)).is_empty()
}

fn propagates(at: &At<'_>, methods: &[Value]) -> Option<Propagation> {
    let each = |at: &At<'_>, name: &str, options: &BTreeMap<String, Value>| match name {
        "istio_headers" => headers(at, options),
        _ => at.none("not supported yet"),
    };
    at.each("values", methods, |at, method| of_method(at, method, each)).into_iter().next()
}

/// A message with one field, which names the method.
fn of_method<T>(
    at: &At<'_>,
    method: &Value,
    read: impl Fn(&At<'_>, &str, &BTreeMap<String, Value>) -> Option<T>,
) -> Option<T> {
    let Some(Kind::StructValue(method)) = &method.kind else { return at.none("must be a message") };
    let mut fields = method.fields.iter();
    let (Some((name, options)), None) = (fields.next(), fields.next()) else {
        return at.none("must have exactly one method");
    };
    let at = &at.key("fields", name);
    match &options.kind {
        Some(Kind::StructValue(options)) => read(at, name, &options.fields),
        _ => at.none("must be a message"),
    }
}

fn headers(at: &At<'_>, options: &BTreeMap<String, Value>) -> Option<Propagation> {
    let mut skips_external = false;
    for (name, value) in options {
        match (name.as_str(), &value.kind) {
            ("skip_external_clusters", Some(Kind::BoolValue(skips))) => skips_external = *skips,
            _ if is_default(value) => {}
            _ => at.key("fields", name).reject("not supported yet"),
        }
    }
    Some(Propagation { skips_external })
}

/// Compiles the configuration of the network filter: the protocol of TLS under which it acts.
pub(crate) fn network(at: &At<'_>, config: &Struct) -> Option<Box<str>> {
    let mut protocol = "";
    for (name, value) in &config.fields {
        match (name.as_str(), &value.kind) {
            ("protocol", Some(Kind::StringValue(name))) => protocol = name,
            ("enable_discovery", Some(Kind::BoolValue(is_on))) => {
                coverage::note(Harmless::NoWorkloadDiscovery, "enable_discovery", *is_on);
            }
            _ if is_default(value) => {}
            _ => at.key("value", name).reject("not supported yet"),
        }
    }
    if protocol.is_empty() {
        return at.key("value", "protocol").none("must be set");
    }
    Some(protocol.into())
}

fn is_default(value: &Value) -> bool {
    match &value.kind {
        None | Some(Kind::NullValue(_) | Kind::BoolValue(false)) => true,
        Some(Kind::ListValue(list)) => list.values.is_empty(),
        Some(Kind::StringValue(text)) => text.is_empty(),
        Some(Kind::StructValue(_) | Kind::NumberValue(_) | Kind::BoolValue(true)) => false,
    }
}

/// `Cluster.filters`: the exchange is the only filter that connections of ours can have.
pub(crate) fn upstream_filters(at: &At<'_>, filters: &[cluster_proto::Filter]) -> Option<Box<str>> {
    let mut protocols = at.each("filters", filters, |at, filter| {
        let cluster_proto::Filter { name, typed_config, config_discovery } = filter;
        at.required("name", name);
        refuse!(at; config_discovery);
        let Some(any) = typed_config else { return at.field("typed_config").none("must be set") };
        let at = &at.field("typed_config");
        match typed_struct(at, any) {
            Some(inner) if inner.type_name == NETWORK_CONFIG => network(at, &inner.value),
            _ => unknown(at, name, any),
        }
    });
    if protocols.len() > 1 {
        at.field("filters").reject("only one exchange of metadata");
    }
    protocols.pop()
}

/// Reads `filter_metadata.istio` of a cluster.
pub(crate) fn told(name: &str, istio: Option<&Struct>) -> PeerTold {
    let is_set = |key| {
        let value = istio.and_then(|istio| istio.fields.get(key)).and_then(|value| value.kind.as_ref());
        matches!(value, Some(Kind::BoolValue(true)))
    };
    match () {
        () if is_set("disable_mx") => PeerTold::Never,
        () if is_set("external") || name == PASSTHROUGH_CLUSTER => PeerTold::UnlessSkipped,
        () => PeerTold::Always,
    }
}
