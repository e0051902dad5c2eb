//! Patches on clusters.
//!
//! Source: Istio `pilot/pkg/networking/core/envoyfilter/cluster_patch.go`.

use meltemi_api::istio::{PatchContext, PatchOperation};
use meltemi_envoy::config::cluster::v3::Cluster;
use meltemi_envoy::config::core::v3::TransportSocket;
use meltemi_envoy::config::core::v3::transport_socket::ConfigType;
use prost_types::value::Kind;

use super::patch::{Patch, merge_config};
use super::{Patches, matching};
use crate::cluster::Built;

/// The cluster for redirected connections to ports that nothing says more of.
const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";

impl Patches<'_> {
    pub(super) fn clusters(&self, clusters: &mut Vec<Built>) {
        if self.clusters.is_empty() {
            return;
        }
        clusters.retain_mut(|built| self.cluster(&mut built.cluster));
        for place in self.places() {
            let added = self.clusters.iter().filter(|patch| patch.adds_to(*place));
            clusters.extend(added.map(|patch| Built {
                cluster: patch.value.clone(),
                endpoints: None,
                origin: Some(patch.origin()),
            }));
        }
    }

    /// Whether the cluster stays.
    fn cluster(&self, cluster: &mut Cluster) -> bool {
        let is_inbound = cluster.name.starts_with("inbound|") || cluster.name == INBOUND_PASSTHROUGH;
        let place = if is_inbound { PatchContext::SidecarInbound } else { self.outwards() };
        let hosts = services(cluster);
        for patch in self.clusters.iter().filter(|patch| patch.is_for(place)) {
            if !matching::cluster(patch.cluster(), &cluster.name, &hosts) {
                continue;
            }
            if patch.operation == PatchOperation::Remove {
                return false;
            }
            if patch.merges() && !has_merged_socket(cluster, patch) {
                patch.merge_into(cluster);
            }
        }
        true
    }
}

/// The hosts of the services that a cluster stands for, as its metadata says.
fn services(cluster: &Cluster) -> Vec<String> {
    let metadata = cluster.metadata.as_ref().and_then(|m| m.filter_metadata.get("istio"));
    let services = metadata.and_then(|istio| istio.fields.get("services"));
    let Some(Kind::ListValue(services)) = services.and_then(|value| value.kind.as_ref()) else {
        return Vec::new();
    };
    let host = |value: &prost_types::Value| match &value.kind {
        Some(Kind::StructValue(service)) => match &service.fields.get("host")?.kind {
            Some(Kind::StringValue(host)) => Some(host.clone()),
            _ => None,
        },
        _ => None,
    };
    services.values.iter().filter_map(host).collect()
}

/// A patch with a transport socket is for that alone: its configuration is merged into the one of the same name, be it
/// the cluster's own or one of those that it chooses from.
fn has_merged_socket(cluster: &mut Cluster, patch: &Patch<'_, Cluster>) -> bool {
    let Some(wanted) = &patch.value.transport_socket else { return false };
    let choices = &mut cluster.transport_socket_matches;
    if choices.is_empty() {
        match cluster.transport_socket.as_mut().filter(|own| own.name == wanted.name) {
            Some(own) => merge_socket(own, wanted),
            None => cluster.transport_socket = Some(wanted.clone()),
        }
    } else {
        let sockets = choices.iter_mut().filter_map(|choice| choice.transport_socket.as_mut());
        if let Some(own) = sockets.into_iter().find(|own| own.name == wanted.name) {
            merge_socket(own, wanted);
        }
    }
    true
}

pub(super) fn merge_socket(own: &mut TransportSocket, wanted: &TransportSocket) {
    if let (Some(ConfigType::TypedConfig(own)), Some(ConfigType::TypedConfig(wanted))) =
        (&mut own.config_type, &wanted.config_type)
    {
        merge_config(own, wanted);
    }
}
