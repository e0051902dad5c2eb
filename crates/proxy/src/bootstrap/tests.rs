//! What is taken, noted and refused.

use clap::Parser;
use meltemi_xds::Mode;

use super::{read, start};
use crate::command_line::ProxyArgs;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: ProxyArgs,
}

const ADS: &str = r#"
node: {id: "sidecar~1~a.b~b", cluster: c}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 15000}}}
dynamic_resources:
  lds_config: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}
  cds_config: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services: [{envoy_grpc: {cluster_name: xds-grpc}}]
static_resources:
  clusters:
  - name: xds-grpc
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: xds-grpc
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 15010}}}}]}]
"#;

fn args(yaml: &str, more: &[&str]) -> ProxyArgs {
    let line = ["proxy", "--config-yaml", yaml].into_iter().chain(more.iter().copied());
    Line::try_parse_from(line).expect("valid command line").args
}

/// What is refused, as text.
fn refused(yaml: &str) -> Vec<String> {
    let message = read(&args(yaml, &[])).expect("readable");
    start(message).expect_err("refused").iter().map(ToString::to_string).collect()
}

#[test]
fn a_bootstrap_with_ads_names_its_server_and_its_extensions() {
    let message = read(&args(ADS, &[])).expect("readable");
    let node = message.node.as_ref().expect("node");
    assert_eq!(node.user_agent_name, "meltemi");
    assert!(node.extensions.iter().any(|extension| extension.name == "istio.stats"));
    let start = start(message).expect("taken");
    let ads = start.dynamic.ads.expect("ADS").options;
    assert_eq!((ads.uri.as_str(), ads.mode), ("http://127.0.0.1:15010", Mode::Delta));
    assert_eq!(start.admin.map(|address| address.to_string()).as_deref(), Some("127.0.0.1:15000"));
}

#[test]
fn the_command_line_fills_in_the_node_and_text_is_merged_over_the_file() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("bootstrap.json");
    std::fs::write(&path, r#"{"node": {"cluster": "from-file", "metadata": {"A": "1"}}}"#).expect("written");
    let path = path.to_str().expect("text");
    let more = ["-c", path, "--service-node", "n", "--service-cluster", "ignored", "--service-zone", "z"];
    let node = read(&args("{node: {metadata: {B: 2}}}", &more)).expect("readable").node.expect("node");
    assert_eq!((node.id.as_str(), node.cluster.as_str()), ("n", "from-file"));
    assert_eq!(node.locality.map(|locality| locality.zone).as_deref(), Some("z"));
    assert!(node.metadata.is_some_and(|metadata| metadata.fields.contains_key("B")));
}

#[test]
fn all_problems_are_told_at_once_and_by_name() {
    let yaml = r#"
hds_config: {api_type: GRPC}
tracing: {}
admin: {address: {pipe: {path: /x}}}
static_resources:
  clusters:
  - {name: a, type: STATIC, lb_policy: CLUSTER_PROVIDED, load_assignment: {cluster_name: a}}
  - {name: b, type: STATIC, load_assignment: {cluster_name: b}}
  - {name: b, type: STATIC, load_assignment: {cluster_name: b}}
"#;
    let refused = refused(yaml);
    for expected in [
        "bootstrap: hds_config: not supported yet",
        "bootstrap: tracing: not supported yet",
        "bootstrap: admin.address: only socket_address is supported",
        "a: lb_policy",
        "b: name: two static resources have this name",
    ] {
        assert!(refused.iter().any(|line| line.starts_with(expected)), "{expected} is not in {refused:#?}");
    }
}

#[test]
fn an_ads_server_that_cannot_be_used_is_told() {
    for (from, to, expected) in [
        ("api_type: DELTA_GRPC", "api_type: REST", "dynamic_resources.ads_config.api_type"),
        ("cluster_name: xds-grpc}}]", "cluster_name: nope}}]", "no static cluster 'nope'"),
        ("http2_protocol_options", "http_protocol_options", "does not speak HTTP/2"),
        ("lds_config: {ads: {}", "lds_config: {path: /x", "dynamic_resources.lds_config: paths must refer"),
        ("id: \"sidecar~1~a.b~b\", ", "", "bootstrap: node: id and cluster are required"),
    ] {
        let refused = refused(&ADS.replace(from, to));
        assert!(refused.iter().any(|line| line.contains(expected)), "{expected} is not in {refused:#?}");
    }
}

#[test]
fn unknown_fields_and_tags_of_the_command_line() {
    let yaml = "{no_such_field: 1}";
    assert!(read(&args(yaml, &[])).expect_err("refused").root_cause().to_string().contains("no_such_field"));
    let message =
        read(&args(yaml, &["--allow-unknown-static-fields", "--stats-tag", "a:b:c"])).expect("taken");
    let tags = message.stats_config.expect("tags").stats_tags;
    assert_eq!(tags[0].tag_name, "a");
    assert!(format!("{:?}", tags[0].tag_value).contains("b:c"));
}

#[test]
fn fields_without_effect_are_noted() {
    let yaml = "{stats_flush_interval: 5s, layered_runtime: {}, admin: {access_log_path: /dev/null}}";
    let start = start(read(&args(yaml, &[])).expect("readable")).expect("taken");
    let paths: Vec<_> = start.notes.iter().map(|(path, _)| *path).collect();
    assert_eq!(paths, ["stats_flush_interval", "layered_runtime", "admin.access_log_path"]);
}

/// A bootstrap whose overload manager has these limits of downstream connections.
fn with_connection_limits(limits: &[i64]) -> String {
    let monitor = |limit| {
        format!(
            "{{name: m{limit}, typed_config: {{'@type': type.googleapis.com/envoy.extensions.resource_monitors.\
             downstream_connections.v3.DownstreamConnectionsConfig, max_active_downstream_connections: {limit}}}}}"
        )
    };
    let monitors: Vec<_> = limits.iter().map(monitor).collect();
    format!("{{overload_manager: {{resource_monitors: [{}]}}}}", monitors.join(","))
}

#[test]
fn the_limit_of_connections_is_read() {
    let yaml = with_connection_limits(&[7]);
    let start = start(read(&args(&yaml, &[])).expect("readable")).expect("taken");
    assert_eq!(start.max_downstream_connections, Some(7));
    assert!(start.notes.is_empty());
}

#[test]
fn a_limit_of_connections_is_positive_and_the_only_one() {
    for (limits, at) in [(&[0_i64][..], 0), (&[-1], 0), (&[7, 8], 1)] {
        let yaml = with_connection_limits(limits);
        let refused = start(read(&args(&yaml, &[])).expect("readable")).expect_err("refused");
        let path = format!(
            "overload_manager.resource_monitors[{at}].typed_config.max_active_downstream_connections"
        );
        assert_eq!(refused.iter().map(|one| &*one.path).collect::<Vec<_>>(), [path], "{limits:?}");
    }
}

#[test]
fn the_most_detailed_component_level_counts() {
    let args = args("{}", &["-l", "warn", "--component-log-level", "rbac:info,router:debug"]);
    assert_eq!(args.effective_log_level().expect("levels"), meltemi_runtime::logging::Level::Debug);
}

/// What Istio's agent writes for a sidecar, without tracing.
const OF_ISTIOS_AGENT: &str = r#"{
  "node": {"id": "sidecar~10.0.0.1~a.default~default.svc.cluster.local", "cluster": "a.default", "locality": {},
    "metadata": {"CLUSTER_ID": "Kubernetes", "ISTIO_VERSION": "1.30.0", "PILOT_SAN": ["istiod.istio-system.svc"]}},
  "layered_runtime": {"layers": [
    {"name": "global config", "static_layer": {"overload.global_downstream_max_connections": "2147483647"}},
    {"name": "admin", "admin_layer": {}}]},
  "bootstrap_extensions": [{"name": "envoy.bootstrap.internal_listener", "typed_config": {
    "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
    "type_url": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
    "value": {"buffer_size_kb": 64}}}],
  "stats_config": {"use_all_default_tags": false,
    "stats_tags": [{"tag_name": "cluster_name", "regex": "^cluster\\.((.+?(\\..+?\\.svc\\.cluster\\.local)?)\\.)"},
      {"tag_name": "http_conn_manager_listener_prefix",
       "regex": "^listener(?=\\.).*?\\.http\\.(((?:[_.[:digit:]]*|[_\\[\\]aAbBcCdDeEfF[:digit:]]*))\\.)"}],
    "stats_matcher": {"inclusion_list": {"patterns": [{"prefix": "reporter="}, {"suffix": "rbac.allowed"},
      {"safe_regex": {"regex": "vhost.*.route.*"}}, {"prefix": "component"}, {"prefix": "istio"}]}}},
  "admin": {"access_log": [{"name": "envoy.access_loggers.file", "typed_config": {
      "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": "/dev/null"}}],
    "profile_path": "/var/lib/istio/data/envoy.prof",
    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 15000}}},
  "dynamic_resources": {
    "lds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
    "cds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
    "ads_config": {"api_type": "DELTA_GRPC", "set_node_on_first_message_only": true,
      "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]}},
  "static_resources": {
    "clusters": [
      {"name": "sds-grpc", "type": "STATIC", "connect_timeout": "1s", "lb_policy": "ROUND_ROBIN",
       "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
         "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
         "explicit_http_config": {"http2_protocol_options": {}}}},
       "load_assignment": {"cluster_name": "sds-grpc", "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
         {"pipe": {"path": "./var/run/secrets/workload-spiffe-uds/socket"}}}}]}]}},
      {"name": "xds-grpc", "type": "STATIC", "connect_timeout": "1s", "lb_policy": "ROUND_ROBIN",
       "load_assignment": {"cluster_name": "xds-grpc", "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
         {"pipe": {"path": "./etc/istio/proxy/XDS"}}}}]}]},
       "circuit_breakers": {"thresholds": [
         {"priority": "DEFAULT", "max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000},
         {"priority": "HIGH", "max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}]},
       "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 300}},
       "max_requests_per_connection": 1,
       "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
         "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
         "explicit_http_config": {"http2_protocol_options": {}}}}}],
    "listeners": [{"address": {"socket_address": {"protocol": "TCP", "address": "0.0.0.0", "port_value": 15090}},
      "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "codec_type": "AUTO", "stat_prefix": "stats",
        "route_config": {"virtual_hosts": [{"name": "backend", "domains": ["*"], "routes": [
          {"match": {"prefix": "/stats/prometheus"}, "route": {"cluster": "prometheus_stats"}}]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
          "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}]}]}}"#;

#[test]
fn the_bootstrap_of_istios_agent_is_taken_and_its_socket_is_the_control_plane() {
    let message = meltemi_envoy::json::Codec::new().parse(OF_ISTIOS_AGENT).expect("the bootstrap parses");
    let start = super::start(message).unwrap_or_else(|refused| panic!("{refused:#?}"));
    let server = start.dynamic.ads.expect("there is a control plane").options;
    assert_eq!(server.uri, "unix:./etc/istio/proxy/XDS");
    assert_eq!(server.authority.as_deref(), Some("xds-grpc"));
    // Traffic cannot go to a socket, so routes do not see these clusters.
    assert!(start.store.program().clusters.is_empty());
}
