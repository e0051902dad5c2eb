//! The own node, as labels name it and as others are told of it.

use bytes::Bytes;
use http::HeaderValue;
use meltemi_compile::program::Reporter;
use meltemi_envoy::config::core::v3::Node;
use meltemi_http::peer_exchange;
use prost_types::Struct;

use super::Workload;
use super::metadata::{self, LATEST, structure, text};

/// What is known of the own node, from its metadata. Made once, before anything is served.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    own: Workload,
    is_router: bool,
    service_cluster: Box<str>,
    /// Value of `x-envoy-peer-metadata`.
    metadata: Option<HeaderValue>,
    /// Value of `x-envoy-peer-metadata-id`.
    id: Option<HeaderValue>,
    /// The frame of `istio-peer-exchange`.
    frame: Bytes,
}

impl NodeFacts {
    /// Reads the metadata keys that Istio's agent writes.
    pub fn new(node: &Node) -> NodeFacts {
        let empty = Struct::default();
        let fields = node.metadata.as_ref().unwrap_or(&empty);
        let own = own(fields);
        let locality = node.locality.as_ref();
        let (region, zone) = locality.map_or(("", ""), |place| (&*place.region, &*place.zone));
        let told = metadata::of_node(fields, region, zone, &own);
        NodeFacts {
            own,
            is_router: node.id.starts_with("router~"),
            service_cluster: node.cluster.as_str().into(),
            metadata: HeaderValue::try_from(metadata::to_header(&told)).ok(),
            id: HeaderValue::try_from(&node.id).ok(),
            // A node that has more to say than anyone reads says nothing.
            frame: peer_exchange::frame(&metadata::to_frame(&told, &node.id))
                .or_else(|| peer_exchange::frame(&[]))
                .unwrap_or_default(),
        }
    }

    /// `node.cluster`.
    pub(crate) fn service_cluster(&self) -> &str {
        &self.service_cluster
    }

    /// The own workload.
    pub(crate) fn own(&self) -> &Workload {
        &self.own
    }

    /// What a header says of us.
    pub(crate) fn metadata(&self) -> Option<&HeaderValue> {
        self.metadata.as_ref()
    }

    /// Our name in a header.
    pub(crate) fn id(&self) -> Option<&HeaderValue> {
        self.id.as_ref()
    }

    /// What a frame says of us.
    pub(crate) fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// Whether the `Host` header stands for a service that is not known: as Istio configures its filter, only on
    /// the outbound side of sidecars, where the workload itself chose the header.
    pub(crate) fn falls_back_to_host(&self, reporter: Reporter) -> bool {
        reporter == Reporter::Source && !self.is_router
    }
}

fn own(fields: &Struct) -> Workload {
    let empty = Struct::default();
    let labels = structure(fields, "LABELS").unwrap_or(&empty);
    let label = |keys: &[&str]| keys.iter().find_map(|key| text(labels, key)).map(Box::from);
    let workload: Option<Box<str>> = text(fields, "WORKLOAD_NAME").map(Into::into);
    let canonical_service = label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let canonical_revision =
        label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    Workload {
        namespace: text(fields, "NAMESPACE").map(Into::into),
        app: label(&["app"]),
        version: label(&["version"]),
        canonical_service: canonical_service.or_else(|| workload.clone()),
        canonical_revision: canonical_revision.or_else(|| workload.as_ref().map(|_| LATEST.into())),
        cluster: text(fields, "CLUSTER_ID").map(Into::into),
        workload,
    }
}
