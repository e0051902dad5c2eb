//! The exchange of metadata: proxies tell each other which workload they are, for metrics that name both.
//!
//! Only for nodes that name the extension `istio.metadata_exchange`, which a stock Envoy lacks. Source: Istio
//! `pilot/pkg/xds/filters/filters.go`, `pilot/pkg/networking/core/networkfilter.go`, `cluster_builder.go`.

use meltemi_envoy::Any;
use meltemi_envoy::config::cluster::v3::{Cluster, Filter};
use meltemi_envoy::udpa::r#type::v1::TypedStruct;

use crate::connection_manager::Place;
use crate::message::{boolean, fields, list, structure, text};
use crate::{METADATA_EXCHANGE, ProxyShape};

const HTTP_CONFIG: &str = "type.googleapis.com/io.istio.http.peer_metadata.Config";
const NETWORK_CONFIG: &str = "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange";

/// ALPN of connections that begin with the exchange.
pub(crate) const PEER_EXCHANGE: &str = "istio-peer-exchange";

/// The HTTP filter: before a workload it believes requests, elsewhere only responses of those whom it chose to call.
/// `only_in_mesh`: services outside of the mesh are told nothing.
pub(crate) fn http(place: Place, only_in_mesh: bool) -> Any {
    let method = |name| structure([(name, structure([]))]);
    let discovery = list([method("istio_headers"), method("workload_discovery")]);
    let is_outbound = matches!(place, Place::Outbound | Place::Edge { .. });
    let propagation = match only_in_mesh && is_outbound {
        true => structure([("istio_headers", structure([("skip_external_clusters", boolean(true))]))]),
        false => method("istio_headers"),
    };
    let propagation = list([propagation]);
    let value = match place {
        Place::Inbound { .. } => {
            fields([("downstream_discovery", discovery), ("downstream_propagation", propagation)])
        }
        Place::Outbound | Place::Edge { .. } => {
            fields([("upstream_discovery", discovery), ("upstream_propagation", propagation)])
        }
    };
    Any::pack(&TypedStruct { type_url: HTTP_CONFIG.to_owned(), value: Some(value) })
}

/// The filter of connections, on either side.
pub(crate) fn network() -> Any {
    let value = fields([("protocol", text(PEER_EXCHANGE)), ("enable_discovery", boolean(true))]);
    Any::pack(&TypedStruct { type_url: NETWORK_CONFIG.to_owned(), value: Some(value) })
}

/// Lets the connections of a cluster that leads out of the proxy begin with the exchange.
pub(crate) fn exchange_upstream(shape: &ProxyShape, cluster: &mut Cluster) {
    if shape.has_extension(METADATA_EXCHANGE) {
        cluster.filters.push(Filter {
            name: METADATA_EXCHANGE.to_owned(),
            typed_config: Some(network()),
            ..Default::default()
        });
    }
}

/// The protocols that a node may offer or agree to: a peer that heard of the exchange waits for it.
pub(crate) fn spoken<'a>(shape: &ProxyShape, alpn: &[&'a str]) -> Vec<&'a str> {
    let exchanges = shape.has_extension(METADATA_EXCHANGE);
    alpn.iter().copied().filter(|name| exchanges || *name != PEER_EXCHANGE).collect()
}
