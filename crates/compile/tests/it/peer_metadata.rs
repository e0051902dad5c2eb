//! `istio.metadata_exchange` as a control plane of Istio's kind sends it, and what of it is refused.

use meltemi_compile::program::{
    Cluster, ConnectionFilter, Listener, NetworkFilter, PeerMetadata, PeerTold, Propagation,
};
use meltemi_compile::{Rejection, cluster, listener};
use meltemi_envoy::config::cluster::v3::Cluster as ClusterMessage;
use meltemi_envoy::config::listener::v3::Listener as ListenerMessage;

use crate::yaml::{message, reason};

const INBOUND: &str = "{downstream_discovery: [{istio_headers: {}}, {workload_discovery: {}}], downstream_propagation: [{istio_headers: {}}]}";
const OUTBOUND: &str = "{upstream_discovery: [{istio_headers: {}}, {workload_discovery: {}}], upstream_propagation: [{istio_headers: {skip_external_clusters: true}}]}";
const NETWORK: &str = "{protocol: istio-peer-exchange, enable_discovery: true}";

fn typed(name: &str, value: &str) -> String {
    format!(
        r#"{{name: istio.metadata_exchange, typed_config: {{"@type": type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/{name}, value: {value}}}}}"#
    )
}

fn network(value: &str) -> String {
    typed("envoy.tcp.metadataexchange.config.MetadataExchange", value)
}

/// A listener whose connection manager has these filters before its router.
fn http(filters: &[&str]) -> Result<Listener, Vec<Rejection>> {
    let filters: String =
        filters.iter().map(|value| typed("io.istio.http.peer_metadata.Config", value) + ", ").collect();
    listener(&message::<ListenerMessage>(&format!(
        r#"{{name: l, address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}, filter_chains: [{{filters: [{{name: h, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: s, route_config: {{}}, http_filters: [{filters}{{name: r, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}]}}]}}"#
    )))
}

fn does(filters: &[&str]) -> PeerMetadata {
    let listener = http(filters).expect("supported");
    match &listener.chains[0].filter {
        NetworkFilter::Http(manager) => manager.peer_metadata,
        other => panic!("{other:?}"),
    }
}

fn tcp(filters: &str) -> Result<Listener, Vec<Rejection>> {
    listener(&message::<ListenerMessage>(&format!(
        r#"{{name: l, address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}, filter_chains: [{{filters: [{filters}, {{name: t, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: s, cluster: c}}}}]}}]}}"#
    )))
}

fn upstream(name: &str, fields: &str) -> Result<Cluster, Vec<Rejection>> {
    let message = message::<ClusterMessage>(&format!("{{name: {name}, type: STATIC, {fields}}}"));
    cluster(&message).map(|(cluster, _)| cluster)
}

#[test]
fn what_istio_sends_to_sidecars_and_gateways_is_understood() {
    let everywhere = Some(Propagation { skips_external: false });
    let inbound =
        PeerMetadata { reads_requests: true, writes_responses: everywhere, ..PeerMetadata::default() };
    assert_eq!(does(&[INBOUND]), inbound);
    let outbound = PeerMetadata {
        reads_responses: true,
        writes_requests: Some(Propagation { skips_external: true }),
        ..PeerMetadata::default()
    };
    assert_eq!(does(&[OUTBOUND]), outbound);
    assert_eq!(
        does(&[INBOUND, OUTBOUND]),
        PeerMetadata { reads_requests: true, writes_responses: everywhere, ..outbound }
    );
    assert_eq!(does(&["{shared_with_upstream: false, additional_labels: []}"]), PeerMetadata::default());
    let only_by_address = "{downstream_discovery: [{workload_discovery: {}}]}";
    assert_eq!(does(&[only_by_address]), PeerMetadata::default());
    assert_eq!(does(&[]), PeerMetadata::default());
}

#[test]
fn the_rest_is_refused_by_its_path() {
    for (config, path) in [
        (
            "{downstream_discovery: [{istio_headers: {}}, {baggage: {}}]}",
            r#"value["downstream_discovery"].values[1].fields["baggage"]"#,
        ),
        (
            "{downstream_propagation: [{baggage: {}}]}",
            r#"value["downstream_propagation"].values[0].fields["baggage"]"#,
        ),
        (
            "{upstream_discovery: [{upstream_filter_state: {peer_metadata_key: k}}]}",
            r#"value["upstream_discovery"].values[0].fields["upstream_filter_state"]"#,
        ),
        ("{shared_with_upstream: true}", r#"value["shared_with_upstream"]"#),
        ("{additional_labels: [role]}", r#"value["additional_labels"]"#),
        ("{unknown: 1}", r#"value["unknown"]"#),
    ] {
        let expected = format!(
            "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.{path}: not supported yet"
        );
        assert_eq!(reason(http(&[config])), expected);
    }
    let both = "{downstream_discovery: [{istio_headers: {}, baggage: {}}]}";
    assert!(reason(http(&[both])).ends_with("must have exactly one method"));
}

#[test]
fn connections_exchange_under_their_protocol() {
    let listener = tcp(&network(NETWORK)).expect("supported");
    assert!(matches!(
        &listener.chains[0].before[..],
        [ConnectionFilter::PeerExchange(protocol)] if **protocol == *"istio-peer-exchange"
    ));
    let place = "filter_chains[0].filters[0].typed_config";
    assert_eq!(reason(tcp(&network("{}"))), format!(r#"{place}.value["protocol"]: must be set"#));
    let labels = network("{protocol: p, additional_labels: [a]}");
    assert_eq!(reason(tcp(&labels)), format!(r#"{place}.value["additional_labels"]: not supported yet"#));
    let twice = format!("{0}, {0}", network(NETWORK));
    assert_eq!(reason(tcp(&twice)), "filter_chains[0].filters: only one exchange of metadata");
}

#[test]
fn a_cluster_may_exchange_and_have_no_other_filter() {
    let with = |filter: &str| upstream("c", &format!("filters: [{filter}]"));
    assert_eq!(
        with(&network(NETWORK)).expect("supported").peer_exchange.as_deref(),
        Some("istio-peer-exchange")
    );
    assert_eq!(upstream("c", "").expect("supported").peer_exchange, None);
    let other = typed("envoy.extensions.network_filters.peer_metadata.UpstreamConfig", "{}");
    assert_eq!(
        reason(with(&other)),
        "filters[0].typed_config: extension \"istio.metadata_exchange\" of type \
         \"envoy.extensions.network_filters.peer_metadata.UpstreamConfig\" is not supported"
    );
    assert_eq!(reason(with("{name: x}")), "filters[0].typed_config: must be set");
    let twice = format!("{0}, {0}", network(NETWORK));
    assert_eq!(reason(with(&twice)), "filters: only one exchange of metadata");
}

#[test]
fn who_is_told_depends_on_the_cluster() {
    let told = |name: &str, istio: &str| {
        let fields = format!("metadata: {{filter_metadata: {{istio: {istio}}}}}");
        upstream(name, &fields).expect("supported").peer_told
    };
    assert_eq!(told("c", "{}"), PeerTold::Always);
    assert_eq!(told("c", "{external: false}"), PeerTold::Always);
    assert_eq!(told("c", "{external: true}"), PeerTold::UnlessSkipped);
    assert_eq!(told("PassthroughCluster", "{}"), PeerTold::UnlessSkipped);
    assert_eq!(told("c", "{external: true, disable_mx: true}"), PeerTold::Never);
    let (all, mesh) = (Propagation { skips_external: false }, Propagation { skips_external: true });
    let reached = |how: Propagation| {
        [PeerTold::Always, PeerTold::UnlessSkipped, PeerTold::Never].map(|t| how.reaches(t))
    };
    assert_eq!((reached(all), reached(mesh)), ([true, true, false], [true, false, false]));
}
