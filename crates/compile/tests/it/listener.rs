//! Listeners: chains, filters, defaults, refusals.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use meltemi_compile::filter::FilterConfig;
use meltemi_compile::format::Op;
use meltemi_compile::program::{
    CodecType, ConnectionFacts, ConnectionFilter, Direction, EscapedSlashes, HttpConnectionManager,
    ListenerFilterKind, LogFormat, NetworkFilter, Reporter, RouteSource, ServerHeader, StripPort,
    TlsInspector,
};
use meltemi_compile::{Rejection, program};
use meltemi_envoy::config::listener::v3::Listener;

use crate::yaml::{message, reason, reasons};

/// A listener of a gateway as a control plane of Istio's kind sends it.
pub(crate) const HTTP: &str = r#"
name: 0.0.0.0_8080
address: {socket_address: {address: 0.0.0.0, port_value: 8080}}
traffic_direction: OUTBOUND
filter_chains:
- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: outbound_0.0.0.0_8080
      rds:
        config_source: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}
        route_config_name: http.8080
      http_filters:
      - name: envoy.filters.http.grpc_stats
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig
          emit_filter_state: true
          stats_for_all_methods: false
      - name: envoy.filters.http.fault
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}
      - name: envoy.filters.http.cors
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}
      - name: istio.stats
        typed_config:
          "@type": type.googleapis.com/udpa.type.v1.TypedStruct
          type_url: type.googleapis.com/stats.PluginConfig
          value: {disable_host_header_fallback: true}
      - name: envoy.filters.http.router
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
      use_remote_address: true
      server_name: istio-envoy
      normalize_path: true
      stream_idle_timeout: 0s
      upgrade_configs: [{upgrade_type: WebSocket}, {upgrade_type: connect, enabled: false}]
      access_log:
      - name: envoy.access_loggers.file
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
          path: /dev/stdout
          log_format: {text_format_source: {inline_string: "%PROTOCOL%\n"}}
access_log:
- name: envoy.access_loggers.file
  filter: {response_flag_filter: {flags: [NR]}}
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
    path: /dev/stdout
"#;

fn compile(yaml: &str) -> Result<program::Listener, Vec<Rejection>> {
    meltemi_compile::listener(&message::<Listener>(yaml))
}

/// A listener with one connection manager of one inline route, and what else is said of either.
fn with_manager(settings: &str) -> String {
    format!(
        r#"
name: l
address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}
filter_chains:
- filters:
  - name: h
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: s
      route_config: {{name: r, virtual_hosts: [{{name: v, domains: ["*"], routes: [{{match: {{prefix: /}}, direct_response: {{status: 200}}}}]}}]}}
      http_filters: [{{name: r, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]
      {settings}
"#
    )
}

fn manager(listener: &program::Listener) -> &HttpConnectionManager {
    match &listener.chains[0].filter {
        NetworkFilter::Http(manager) => manager,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_gateway_listener_is_understood() {
    let listener = compile(HTTP).unwrap();
    assert_eq!(&*listener.name, "0.0.0.0_8080");
    assert_eq!(listener.address, SocketAddr::from(([0, 0, 0, 0], 8080)));
    assert_eq!(listener.direction, Direction::Outbound);
    assert_eq!(listener.access_log.len(), 1);
    let manager = manager(&listener);
    assert!(matches!(&manager.routes, RouteSource::Rds(name) if &**name == "http.8080"));
    assert_eq!(manager.initial_fetch_timeout, None);
    assert_eq!(manager.istio_stats, Some(Reporter::Source));
    let kinds: Vec<_> = manager.filters.iter().map(|filter| &filter.config).collect();
    assert!(matches!(kinds[..], [FilterConfig::GrpcStats(_), FilterConfig::Fault(_), FilterConfig::Cors]));
    assert!(manager.forwarding.use_remote_address && manager.forwarding.generate_request_id);
    assert_eq!(manager.server_name, "istio-envoy");
    assert!(manager.normalize_path);
    assert_eq!(manager.stream_idle_timeout, None);
    assert_eq!(manager.upgrades, ["websocket".into()]);
    match &manager.access_log[0].format {
        LogFormat::Text(format) => assert_eq!(format.ops, [Op::Protocol, Op::Literal("\n".into())]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_connection_manager_without_settings_has_those_of_envoy() {
    let listener = compile(&with_manager("")).unwrap();
    assert_eq!(listener.per_connection_buffer_limit_bytes, 1024 * 1024);
    assert_eq!(listener.listener_filters_timeout, Some(Duration::from_secs(15)));
    let manager = manager(&listener);
    assert_eq!(manager.codec, CodecType::Auto);
    assert_eq!(manager.server_name, "envoy");
    assert_eq!(manager.server_header, ServerHeader::Overwrite);
    assert_eq!(manager.escaped_slashes, EscapedSlashes::Keep);
    assert_eq!(manager.strip_port, StripPort::Keep);
    assert_eq!(manager.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(manager.stream_idle_timeout, Some(Duration::from_secs(300)));
    assert_eq!((manager.request_timeout, manager.request_headers_timeout), (None, None));
    assert_eq!(manager.delayed_close_timeout, Duration::from_secs(1));
    assert_eq!((manager.max_headers_count, manager.max_request_headers_bytes), (100, 60 * 1024));
    assert!(manager.allow_absolute_url && !manager.accept_http_10 && !manager.normalize_path);
    assert!(!manager.forwarding.use_remote_address && manager.forwarding.generate_request_id);
    assert!(manager.istio_stats.is_none() && manager.upgrades.is_empty());
    assert_eq!(manager.http2.max_concurrent_streams, 1024);
}

#[test]
fn equal_messages_have_equal_digests() {
    let digest = |yaml: &str| compile(yaml).unwrap().digest;
    assert_eq!(digest(HTTP), digest(HTTP));
    assert_ne!(digest(HTTP), digest(&with_manager("")));
}

#[test]
fn refused_settings_are_named_by_path() {
    const MANAGER: &str = "filter_chains[0].filters[0].typed_config.";
    let one = |settings: &str| {
        let reason = reason(compile(&with_manager(settings)));
        reason.strip_prefix(MANAGER).unwrap_or(&reason).to_owned()
    };
    assert_eq!(one("tracing: {}"), "tracing: not supported yet");
    assert_eq!(one("codec_type: HTTP3"), "codec_type: not supported yet: HTTP3");
    assert_eq!(
        one("local_reply_config: {mappers: [{filter: {not_health_check_filter: {}}, status_code: 600}]}"),
        "local_reply_config.mappers[0].status_code: must be from 200 to 599"
    );
    assert_eq!(
        one("local_reply_config: {mappers: [{status_code: 500}]}"),
        "local_reply_config.mappers[0].filter: must be set"
    );
    assert_eq!(
        one("http_protocol_options: {header_key_format: {}}"),
        "http_protocol_options.header_key_format: a format must be set"
    );
    assert_eq!(
        one("scheme_header_transformation: {scheme_to_overwrite: ftp}"),
        "scheme_header_transformation.scheme_to_overwrite: \"ftp\" is neither http nor https"
    );
    assert_eq!(
        one("common_http_protocol_options: {max_connection_duration_jitter: {value: 1}}"),
        "common_http_protocol_options.max_connection_duration_jitter: not supported yet"
    );
    assert_eq!(
        one("http2_protocol_options: {max_concurrent_streams: 0}"),
        "http2_protocol_options.max_concurrent_streams: 0 is not between 1 and 2147483647"
    );
    assert_eq!(
        one(
            "access_log: [{name: a, filter: {traceable_filter: {}}, typed_config: {'@type': type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog}}]"
        ),
        "access_log[0].filter.traceable_filter: not supported yet"
    );
    assert_eq!(
        one(
            "access_log: [{name: a, typed_config: {'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /x, log_format: {text_format: '%NO%'}}}]"
        ),
        "access_log[0].typed_config.log_format.text_format: unknown or not supported operator %NO%"
    );
}

#[test]
fn filters_of_unknown_type_are_refused_by_name_unless_optional() {
    let filters = |filters: &str| compile(&HTTP.replace("      - name: envoy.filters.http.cors", filters));
    let wasm = r#"      - name: w
        typed_config:
          "@type": type.googleapis.com/udpa.type.v1.TypedStruct
          type_url: type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
      - name: envoy.filters.http.cors"#;
    assert_eq!(
        reason(filters(wasm)),
        "filter_chains[0].filters[0].typed_config.http_filters[2].typed_config: \
         extension \"w\" of type \"envoy.extensions.filters.http.wasm.v3.Wasm\" is not supported"
    );
    let optional = wasm.replacen("name: w", "name: w\n        is_optional: true", 1);
    assert_eq!(manager(&filters(&optional).unwrap()).filters.len(), 3);
    let disabled = wasm.replacen("name: w", "name: w\n        disabled: true", 1);
    assert!(reason(filters(&disabled)).ends_with("is not supported"));
    let disabled = "      - disabled: true\n        name: envoy.filters.http.cors";
    assert!(manager(&filters(disabled).unwrap()).filters[2].disabled);
    let changed = HTTP.replace("{disable_host_header_fallback: true}", "{metrics: []}");
    assert!(
        reason(compile(&changed))
            .ends_with("http_filters[3].typed_config.value[\"metrics\"]: not supported yet")
    );
}

#[test]
fn the_router_ends_the_filters() {
    let router = r#"{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"#;
    let cors = r#"{name: c, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}"#;
    let with = |filters: &str| {
        compile(
            &with_manager("")
                .replace(&format!("http_filters: [{router}]"), &format!("http_filters: [{filters}]")),
        )
    };
    assert!(reason(with("")).ends_with("the last filter must be the router"));
    assert!(reason(with(cors)).ends_with("the last filter must be the router"));
    assert!(
        reason(with(&format!("{router}, {router}"))).contains("http_filters[0]: the router must be the last")
    );
}

/// A listener whose chains answer as TCP proxies to the cluster of their name.
fn chains(chains: &[(&str, &str)], default: Option<&str>) -> String {
    let chain = |name: &str, matches: &str| {
        format!(
            r#"{{name: "{name}", filter_chain_match: {matches}, filters: [{{name: t, typed_config: {{
               "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy,
               stat_prefix: s, cluster: c}}}}]}}"#
        )
    };
    let listed: Vec<_> = chains.iter().map(|(name, matches)| chain(name, matches)).collect();
    let default =
        default.map(|name| format!("default_filter_chain: {}", chain(name, "{}"))).unwrap_or_default();
    format!(
        "address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}\nfilter_chains: [{}]\n{default}",
        listed.join(", ")
    )
}

fn facts() -> ConnectionFacts<'static> {
    ConnectionFacts {
        destination: SocketAddr::from(([10, 0, 0, 1], 80)),
        source: SocketAddr::from(([192, 168, 0, 1], 1000)),
        direct_source: IpAddr::from([192, 168, 0, 1]),
        server_name: "",
        transport_protocol: "raw_buffer",
        application_protocols: &[],
    }
}

#[test]
fn chains_are_chosen_by_the_criteria_in_envoys_order() {
    let listener = compile(&chains(
        &[
            ("port", "{destination_port: 81}"),
            ("port and sni", "{destination_port: 81, server_names: [a.b]}"),
            ("net8", "{prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}"),
            ("net24", "{prefix_ranges: [{address_prefix: 10.0.1.0, prefix_len: 24}], source_ports: [7]}"),
            ("exact", "{server_names: [x.a.b]}"),
            ("wild", "{server_names: ['*.a.b', '*.c']}"),
            ("wild long", "{server_names: ['*.x.a.b']}"),
            ("tls", "{transport_protocol: tls}"),
            ("h2c", "{application_protocols: [h2c]}"),
            ("direct", "{direct_source_prefix_ranges: [{address_prefix: 172.16.0.1, prefix_len: 32}]}"),
            ("local", "{source_type: SAME_IP_OR_LOOPBACK}"),
            ("source", "{source_prefix_ranges: [{address_prefix: 192.168.9.0, prefix_len: 24}]}"),
            ("source port", "{source_ports: [9]}"),
        ],
        Some("default"),
    ))
    .unwrap();
    let chosen = |change: &dyn Fn(&mut ConnectionFacts<'static>)| {
        // Outside of 10.0.0.0/8, which would go to "net8".
        let mut facts = ConnectionFacts { destination: "11.0.0.1:80".parse().unwrap(), ..facts() };
        change(&mut facts);
        listener.chains[listener.choose(&facts).unwrap()].name.to_string()
    };
    assert_eq!(chosen(&|_| {}), "default");
    assert_eq!(chosen(&|f| f.destination.set_port(81)), "port");
    assert_eq!(chosen(&|f| f.destination = "10.0.0.1:81".parse().unwrap()), "port");
    assert_eq!(
        chosen(&|f| {
            f.destination.set_port(81);
            f.server_name = "a.b";
        }),
        "port and sni"
    );
    assert_eq!(chosen(&|f| f.destination = "10.0.0.1:80".parse().unwrap()), "net8");
    assert_eq!(
        chosen(&|f| f.destination = "10.0.1.1:80".parse().unwrap()),
        "default",
        "there is no way back"
    );
    assert_eq!(
        chosen(&|f| {
            f.destination = "10.0.1.1:80".parse().unwrap();
            f.source.set_port(7);
        }),
        "net24"
    );
    assert_eq!(chosen(&|f| f.server_name = "x.a.b"), "exact");
    assert_eq!(chosen(&|f| f.server_name = "y.a.b"), "wild");
    assert_eq!(chosen(&|f| f.server_name = "y.x.a.b"), "wild long");
    assert_eq!(chosen(&|f| f.server_name = "a.b"), "default");
    assert_eq!(chosen(&|f| f.transport_protocol = "tls"), "tls");
    assert_eq!(chosen(&|f| f.application_protocols = &["x", "h2c"]), "h2c");
    assert_eq!(chosen(&|f| f.direct_source = "172.16.0.1".parse().unwrap()), "direct");
    assert_eq!(chosen(&|f| f.source = "127.0.0.1:1".parse().unwrap()), "local");
    assert_eq!(chosen(&|f| f.source = "11.0.0.1:1".parse().unwrap()), "local");
    assert_eq!(chosen(&|f| f.source = "192.168.9.1:1".parse().unwrap()), "source");
    assert_eq!(chosen(&|f| f.source.set_port(9)), "source port");
}

#[test]
fn without_a_default_a_connection_may_find_no_chain() {
    let listener = compile(&chains(&[("tls", "{transport_protocol: tls}")], None)).unwrap();
    assert!(listener.choose(&facts()).is_none());
    let tls = ConnectionFacts { transport_protocol: "tls", ..facts() };
    assert!(listener.choose(&tls).is_some());
}

#[test]
fn chains_that_ask_for_the_same_are_rejected() {
    assert!(
        reason(compile(&chains(&[("a", "{}"), ("b", "{}")], None)))
            .starts_with("filter_chains[1].filter_chain_match")
    );
    let overlapping = chains(
        &[("a", "{server_names: [x, y]}"), ("b", "{server_names: [y, z]}"), ("c", "{server_names: [z1]}")],
        None,
    );
    assert!(reason(compile(&overlapping)).starts_with("filter_chains[1].filter_chain_match"));
    assert!(compile(&chains(&[("a", "{}"), ("b", "{server_names: [y]}")], None)).is_ok());
}

#[test]
fn tcp_proxies_have_one_cluster_or_weights() {
    let tcp = |settings: &str| {
        compile(&chains(&[("a", "{}")], None).replace("cluster: c", settings)).map(|listener| match &listener
            .chains[0]
            .filter
        {
            NetworkFilter::Tcp(tcp) => {
                let clusters: Vec<_> = tcp.clusters.iter().map(|c| (c.name.to_string(), c.weight)).collect();
                (clusters, tcp.idle_timeout, tcp.max_connect_attempts)
            }
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(tcp("cluster: c"), Ok((vec![("c".into(), 1)], Some(Duration::from_secs(3600)), 1)));
    assert_eq!(
        tcp(
            "weighted_clusters: {clusters: [{name: a, weight: 9}, {name: b, weight: 1}]}, idle_timeout: 0s, max_connect_attempts: 3"
        ),
        Ok((vec![("a".into(), 9), ("b".into(), 1)], None, 3))
    );
    assert!(reason(tcp("weighted_clusters: {clusters: [{name: a}]}")).contains("clusters[0].weight"));
    assert!(
        reason(tcp("cluster: c, tunneling_config: {hostname: h, post_path: /p}"))
            .contains("tunneling_config.post_path: ")
    );
}

#[test]
fn tls_is_refused_without_a_certificate() {
    let yaml = chains(&[("a", "{}")], None).replace(
        "filters: [",
        r#"transport_socket: {name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext}}, filters: ["#,
    );
    assert_eq!(
        reason(compile(&yaml)),
        "filter_chains[0].transport_socket.typed_config.common_tls_context.tls_certificates: no TLS certificates found \
         for server context"
    );
    let raw = yaml.replace("tls.v3.DownstreamTlsContext", "raw_buffer.v3.RawBuffer");
    assert!(compile(&raw).is_ok());
}

#[test]
fn listener_filters_are_known_by_type() {
    let with = |filters: &str| compile(&format!("{}\nlistener_filters: [{filters}]", with_manager("")));
    let listener = with(
        r#"{name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}},
           {name: b, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector, initial_read_buffer_size: 512}},
           {name: c, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}}"#,
    )
    .unwrap();
    let kinds: Vec<_> = listener.listener_filters.iter().map(|filter| &filter.kind).collect();
    assert_eq!(
        kinds,
        [
            &ListenerFilterKind::OriginalDst,
            &ListenerFilterKind::TlsInspector(TlsInspector {
                max_client_hello_bytes: 16384,
                closes_on_errors: false
            }),
            &ListenerFilterKind::HttpInspector
        ]
    );
    let proxy = |settings: &str| {
        with(&format!(
            r#"{{name: p, filter_disabled: {{not_match: {{destination_port_range: {{start: 80, end: 90}}}}}}, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol{settings}}}}}"#
        ))
    };
    let listener =
        proxy(", rules: [{tlv_type: 2, on_tlv_present: {key: authority}}], disallowed_versions: [V1]")
            .unwrap();
    let filter = &listener.listener_filters[0];
    let disabled = filter.disabled.as_ref().unwrap();
    assert_eq!([79, 80, 89, 90].map(|port| disabled.holds(port)), [true, false, false, true]);
    let ListenerFilterKind::ProxyProtocol(settings) = &filter.kind else { panic!("{filter:?}") };
    assert!(settings.refuses_v1 && !settings.refuses_v2 && !settings.pass_through.includes(2));
    assert_eq!(&*settings.rules[0].namespace, "envoy.filters.listener.proxy_protocol");
    assert!(reason(proxy(", tlv_location: FILTER_STATE")).ends_with("tlv_location: not supported yet"));
}

#[test]
fn network_filters_stand_before_the_last_one() {
    let with = |filters: &str| {
        let yaml = chains(&[("a", "{}")], None);
        compile(&yaml.replacen("filters: [", &format!("filters: [{filters}"), 1))
    };
    let limit = r#"{name: l, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit, stat_prefix: l, max_connections: 1, delay: 1s}}, "#;
    let sni = r#"{name: s, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.sni_cluster.v3.SniCluster}}, "#;
    let listener = with(&format!("{limit}{sni}")).unwrap();
    assert!(matches!(
        listener.chains[0].before[..],
        [ConnectionFilter::ConnectionLimit(_), ConnectionFilter::SniCluster]
    ));
    assert!(
        reason(with(&limit.replace("max_connections: 1", "max_connections: 0"))).contains("max_connections")
    );
    let early = r#"{name: d, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config}}, "#;
    assert!(reason(with(early)).contains("filters[0]: a terminal filter must be the last one"));
}

#[test]
fn a_change_of_chains_keeps_the_frame() {
    let one = compile(&chains(&[("a", "{}")], None)).unwrap();
    let two = compile(&chains(&[("a", "{}"), ("b", "{server_names: [x]}")], None)).unwrap();
    assert_eq!(one.frame_digest, two.frame_digest);
    assert_eq!(one.chains[0].digest, two.chains[0].digest);
    assert_ne!(one.digest, two.digest);
}

#[test]
fn a_listener_needs_an_address_and_chains() {
    assert_eq!(
        reasons(compile("{name: l}")),
        ["address: must be set", "filter_chains: no filter chains specified"]
    );
    let pipe = with_manager("")
        .replace("{socket_address: {address: 127.0.0.1, port_value: 1}}", "{pipe: {path: /x}}");
    assert_eq!(reason(compile(&pipe)), "address.pipe: not supported yet");
    let nameless = with_manager("").replace("name: l\n", "");
    assert_eq!(&*compile(&nameless).unwrap().name, "127.0.0.1:1");
}

#[test]
fn istio_stats_before_a_tcp_proxy_report_tcp() {
    let yaml = chains(&[("a", "{}")], None).replace(
        "filters: [",
        r#"filters: [{name: istio.stats, typed_config: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/stats.PluginConfig, value: {}}}, "#,
    );
    match &compile(&yaml).unwrap().chains[0].filter {
        NetworkFilter::Tcp(tcp) => assert!(tcp.istio_stats),
        other => panic!("{other:?}"),
    }
}
