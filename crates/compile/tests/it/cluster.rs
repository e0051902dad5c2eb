//! Clusters and endpoints: discovery, protocols, balancing, limits, refusals.

use std::time::Duration;

use meltemi_compile::load_balancing::{HashFunction, LbPolicy, LeastRequest, SubsetFallback};
use meltemi_compile::program::{
    CircuitBreaker, Cluster, ClusterService, Discovery, DnsFamily, DnsResolver, Endpoints, HealthCheckKind,
    Http2Options, UpstreamHttp,
};
use meltemi_compile::tls::Versions;
use meltemi_compile::{Rejection, cluster, endpoints};
use meltemi_envoy::config::cluster::v3::Cluster as ClusterMessage;
use meltemi_envoy::config::endpoint::v3::ClusterLoadAssignment;

use crate::yaml::{message, reason, reasons};

/// A cluster as a control plane of Istio's kind sends it.
pub(crate) const FULL: &str = r#"
name: outbound|9080|v1|reviews.default.svc.cluster.local
type: EDS
eds_cluster_config:
  eds_config: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}
  service_name: outbound|9080|v1|reviews.default.svc.cluster.local
connect_timeout: 10s
lb_policy: LEAST_REQUEST
circuit_breakers:
  thresholds: [{max_connections: 4294967295, max_pending_requests: 4294967295, max_requests: 4294967295, max_retries: 4294967295, track_remaining: true}]
common_lb_config: {healthy_panic_threshold: {}}
outlier_detection: {consecutive_gateway_failure: 3, enforcing_consecutive_gateway_failure: 100, enforcing_consecutive_5xx: 0, enforcing_success_rate: 0, interval: 5s}
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    common_http_protocol_options: {idle_timeout: 30s, max_requests_per_connection: 10}
    explicit_http_config: {http2_protocol_options: {max_concurrent_streams: 7}}
metadata:
  filter_metadata:
    istio:
      config: /apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews
      services: [{host: reviews.default.svc.cluster.local, name: reviews, namespace: default}]
      subset: v1
"#;

fn compile(yaml: &str) -> Result<(Cluster, Option<Endpoints>), Vec<Rejection>> {
    cluster(&message::<ClusterMessage>(yaml))
}

/// An assignment of these `lb_endpoints`.
fn assignment(members: &str) -> String {
    format!("load_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{members}]}}]}}")
}

const ONE: &str = "{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 80}}}}";
const NAMED: &str = "{endpoint: {address: {socket_address: {address: example.com, port_value: 80}}}}";

fn least_request(choices: u32) -> LbPolicy {
    LbPolicy::LeastRequest(LeastRequest {
        choice_count: Some(choices),
        active_request_bias: 1.0,
        slow_start: None,
    })
}

#[test]
fn an_istio_cluster_is_understood() {
    let (cluster, endpoints) = compile(FULL).unwrap();
    assert_eq!(
        cluster.discovery,
        Discovery::Eds("outbound|9080|v1|reviews.default.svc.cluster.local".into())
    );
    assert_eq!(endpoints, None);
    assert_eq!(cluster.initial_fetch_timeout, None);
    assert_eq!(cluster.connect_timeout, Duration::from_secs(10));
    assert_eq!(cluster.lb.policy, least_request(2));
    assert_eq!(cluster.lb.panic_threshold_percent, 0);
    assert_eq!(cluster.circuit_breakers[0].max_requests, u32::MAX);
    assert_eq!(cluster.circuit_breakers[1], CircuitBreaker::default());
    let outlier = cluster.outlier.unwrap();
    assert_eq!((outlier.consecutive_5xx, outlier.consecutive_gateway_failure), (5, 3));
    assert_eq!(outlier.enforcing_percent, [0, 100, 0, 100, 100, 0, 0]);
    assert_eq!(outlier.interval, Duration::from_secs(5));
    assert_eq!(outlier.base_ejection_time, Duration::from_secs(30));
    assert_eq!(outlier.max_ejection_percent, 10);
    let options = Http2Options { max_concurrent_streams: 7, ..Http2Options::default() };
    assert_eq!(cluster.http, UpstreamHttp::Http2(options));
    assert_eq!(cluster.idle_timeout, Some(Duration::from_secs(30)));
    assert_eq!(cluster.max_requests_per_connection, Some(10));
    let service = ClusterService {
        host: "reviews.default.svc.cluster.local".into(),
        name: "reviews".into(),
        namespace: "default".into(),
    };
    assert_eq!(cluster.service, Some(service));
}

#[test]
fn a_cluster_without_settings_has_those_of_envoy() {
    let (cluster, endpoints) = compile("{name: c}").unwrap();
    assert_eq!(cluster.discovery, Discovery::Static);
    assert_eq!(endpoints.unwrap().overprovisioning_factor_percent, 140);
    assert_eq!(&*cluster.stat_name, "c");
    assert_eq!(cluster.connect_timeout, Duration::from_secs(5));
    assert_eq!(cluster.lb.policy, LbPolicy::RoundRobin { slow_start: None });
    assert_eq!(cluster.lb.panic_threshold_percent, 50);
    assert_eq!(cluster.http, UpstreamHttp::Http1);
    assert_eq!(cluster.idle_timeout, Some(Duration::from_secs(3600)));
    let breaker = CircuitBreaker {
        max_connections: 1024,
        max_pending_requests: 1024,
        max_requests: 1024,
        max_retries: 3,
        retry_budget: None,
        track_remaining: false,
    };
    assert_eq!(cluster.circuit_breakers, [breaker, breaker]);
    assert_eq!((cluster.outlier, cluster.service), (None, None));
}

#[test]
fn circuit_breakers_go_by_priority_and_the_first_counts() {
    let (cluster, _) = compile(
        "{name: c, circuit_breakers: {thresholds: [{priority: HIGH, max_requests: 1}, {max_retries: 9}, {max_retries: 8}]}}",
    )
    .unwrap();
    assert_eq!(cluster.circuit_breakers[0].max_retries, 9);
    assert_eq!(cluster.circuit_breakers[1].max_requests, 1);
}

#[test]
fn static_endpoints_come_with_the_cluster() {
    let (_, endpoints) = compile(&format!("name: c\n{}", assignment(ONE))).unwrap();
    let host = &endpoints.unwrap().priorities[0][0];
    assert_eq!(host.address, "127.0.0.1:80".parse().unwrap());
    assert!(host.is_healthy() && host.weight == 1 && host.workload.is_none());
    let named = compile(&format!("name: c\n{}", assignment(NAMED)));
    assert!(reason(named).starts_with(
        "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: malformed IP address"
    ));
}

#[test]
fn dns_clusters_name_what_to_resolve() {
    let yaml = |kind: &str, members: &str| {
        format!(
            "name: c\ntype: {kind}\ndns_refresh_rate: 60s\nrespect_dns_ttl: true\ndns_lookup_family: V4_ONLY\n{}",
            assignment(members)
        )
    };
    let weighted = NAMED.replacen('{', "{load_balancing_weight: 3, ", 1);
    let (strict, endpoints) = compile(&yaml("STRICT_DNS", &format!("{weighted}, {ONE}"))).unwrap();
    let Discovery::StrictDns(targets) = strict.discovery else { panic!("{:?}", strict.discovery) };
    assert_eq!(targets.names, ["example.com".into(), "127.0.0.1".into()]);
    let hosts: Vec<_> = targets.template.priorities[0]
        .iter()
        .map(|host| (host.address.to_string(), host.weight, &*host.hostname))
        .collect();
    assert_eq!(
        hosts,
        [("0.0.0.0:80".to_owned(), 3, "example.com"), ("0.0.0.1:80".to_owned(), 1, "127.0.0.1")]
    );
    assert_eq!((targets.refresh, targets.respect_ttl), (Duration::from_secs(60), true));
    assert_eq!((targets.family, endpoints), (DnsFamily::V4Only, None));
    let (logical, _) = compile(&yaml("LOGICAL_DNS", NAMED)).unwrap();
    let Discovery::LogicalDns(targets) = logical.discovery else { panic!("{:?}", logical.discovery) };
    assert_eq!((targets.names.len(), targets.template.priorities.len()), (1, 1));
    let two = compile(&yaml("LOGICAL_DNS", &format!("{NAMED}, {ONE}")));
    assert!(reason(two).contains("LOGICAL_DNS clusters must have a single endpoint"));
    assert!(reason(compile("{name: c, type: STRICT_DNS}")).starts_with("load_assignment: must be set"));
}

#[test]
fn a_dns_cluster_may_name_its_servers_and_its_pauses() {
    let yaml = format!(
        "name: c
type: STRICT_DNS
dns_failure_refresh_rate: {{base_interval: 2s}}
typed_dns_resolver_config:
  name: envoy.network.dns_resolver.cares
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig
    resolvers: [{{socket_address: {{address: 10.0.0.53, port_value: 5353}}}}]
    dns_resolver_options: {{use_tcp_for_dns_lookups: true, no_default_search_domain: true}}
    query_timeout_seconds: 2
    query_tries: 3
{}",
        assignment(NAMED)
    );
    let (cluster, _) = compile(&yaml).unwrap();
    let Discovery::StrictDns(targets) = cluster.discovery else { panic!("{:?}", cluster.discovery) };
    assert_eq!(targets.failure_refresh, Some((Duration::from_secs(2), Duration::from_secs(20))));
    let resolver = DnsResolver {
        servers: vec!["10.0.0.53:5353".parse().unwrap()],
        servers_are_fallback: false,
        tcp: true,
        no_search_domain: true,
        timeout: Some(Duration::from_secs(2)),
        tries: Some(3),
    };
    assert_eq!(targets.resolver, resolver);
}

const CHECK: &str = "timeout: 1s, interval: 2s, unhealthy_threshold: 3, healthy_threshold: 1";

#[test]
fn a_health_check_has_the_defaults_of_envoy() {
    let http = format!("{{name: c, health_checks: [{{{CHECK}, http_health_check: {{path: /health}}}}]}}");
    let (cluster, _) = compile(&http).unwrap();
    let check = cluster.health_check.unwrap();
    assert!(check.reuse_connection && !check.always_log_failures);
    assert_eq!(check.pace.unhealthy_edge_interval, Duration::from_secs(2));
    assert_eq!(check.pace.no_traffic_healthy_interval, Duration::from_secs(60));
    let tcp =
        compile(&format!("{{name: c, health_checks: [{{{CHECK}, tcp_health_check: {{}}}}]}}")).unwrap().0;
    assert!(matches!(&tcp.health_check.unwrap().kind, HealthCheckKind::Tcp(tcp) if tcp.send.is_empty()));
    let HealthCheckKind::Http(http) = &check.kind else { panic!("{check:?}") };
    assert!(http.expects(200) && !http.expects(204) && http.response_buffer_size == Some(1024));
}

#[test]
fn health_checks_that_cannot_be_are_rejected() {
    let of =
        |fields: &str| reasons(compile(&format!("{{name: c, health_checks: [{{{fields}}}]}}"))).join("; ");
    let http = |fields: &str| of(&format!("{CHECK}, http_health_check: {{path: /, {fields}}}"));
    assert_eq!(of("tcp_health_check: {}").matches("must be set").count(), 4);
    assert!(of(CHECK).contains("health_checks[0].health_checker: must be set"));
    assert!(http("expected_statuses: [{start: 200, end: 200}]").contains("expected_statuses[0]: invalid"));
    assert!(http("send: {text: 'aa'}").contains("send: cannot be sent with method GET"));
    assert!(http("receive: [{text: xyz}]").contains("receive[0].text: invalid hex string 'xyz'"));
    assert!(http("response_buffer_size: 1, receive: [{text: '6162'}]").contains("receive: is longer"));
    assert!(of(&format!("{CHECK}, grpc_health_check: {{}}")).contains("must support HTTP/2"));
    assert!(of(&format!("{CHECK}, custom_health_check: {{name: x}}")).contains("not supported yet: x"));
    let two = format!("{{name: c, health_checks: [{{{CHECK}, tcp_health_check: {{}}}}, {{}}]}}");
    assert_eq!(reason(compile(&two)), "health_checks: multiple health checks not supported");
}

#[test]
fn original_dst_provides_its_own_balancer() {
    let (cluster, endpoints) = compile("{name: c, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED}").unwrap();
    assert_eq!(
        (cluster.discovery, cluster.lb.policy, endpoints),
        (Discovery::OriginalDst, LbPolicy::ClusterProvided, None)
    );
    assert!(
        reason(compile("{name: c, type: ORIGINAL_DST}")).starts_with("lb_policy: must be CLUSTER_PROVIDED")
    );
    assert!(reason(compile("{name: c, lb_policy: CLUSTER_PROVIDED}")).starts_with("lb_policy"));
}

#[test]
fn balancing_policies_come_by_field_or_by_type() {
    let lb =
        |settings: &str| compile(&format!("{{name: c, {settings}}}")).map(|(cluster, _)| cluster.lb.policy);
    let typed = |name: &str, fields: &str| {
        lb(&format!(
            "load_balancing_policy: {{policies: [
               {{typed_extension_config: {{name: x, typed_config: {{'@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: a/b.C}}}}}},
               {{typed_extension_config: {{name: y, typed_config: {{
                 '@type': type.googleapis.com/envoy.extensions.load_balancing_policies.{name}{fields}}}}}}}]}}"
        ))
    };
    assert_eq!(lb("lb_policy: RANDOM"), Ok(LbPolicy::Random));
    assert_eq!(
        lb("lb_policy: LEAST_REQUEST, least_request_lb_config: {choice_count: 5}"),
        Ok(least_request(5))
    );
    assert_eq!(typed("random.v3.Random", ""), Ok(LbPolicy::Random));
    assert_eq!(typed("round_robin.v3.RoundRobin", ""), Ok(LbPolicy::RoundRobin { slow_start: None }));
    assert_eq!(typed("least_request.v3.LeastRequest", ", choice_count: 3"), Ok(least_request(3)));
    assert!(
        reason(lb("lb_policy: LEAST_REQUEST, least_request_lb_config: {choice_count: 1}"))
            .contains("choice_count")
    );
}

#[test]
fn balancing_by_hash_is_checked_as_in_envoy() {
    let lb =
        |settings: &str| compile(&format!("{{name: c, {settings}}}")).map(|(cluster, _)| cluster.lb.policy);
    let Ok(LbPolicy::RingHash(ring)) =
        lb("lb_policy: RING_HASH, ring_hash_lb_config: {hash_function: MURMUR_HASH_2}")
    else {
        panic!("a ring");
    };
    assert_eq!((ring.minimum_ring_size, ring.maximum_ring_size), (1024, 8 << 20));
    assert_eq!(ring.function, HashFunction::MurmurHash2);
    let Ok(LbPolicy::Maglev(table)) = lb("lb_policy: MAGLEV") else { panic!("a table") };
    assert_eq!(table.table_size, 65537);
    assert!(
        reason(lb("lb_policy: MAGLEV, maglev_lb_config: {table_size: 65536}"))
            .ends_with("must be prime number")
    );
    let sizes = "lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 9, maximum_ring_size: 8}";
    assert!(reason(lb(sizes)).ends_with("minimum_ring_size (9) > maximum_ring_size (8)"));
    let names = "lb_policy: MAGLEV, common_lb_config: {consistent_hashing_lb_config: {use_hostname_for_hashing: true}}";
    assert!(reason(lb(names)).contains("Cannot use hostname"));
}

#[test]
fn subsets_need_selectors_and_sane_fallback_keys() {
    let lb = |settings: &str| {
        compile(&format!("{{name: c, lb_subset_config: {{{settings}}}}}"))
            .map(|(cluster, _)| cluster.lb.subsets)
    };
    assert_eq!(lb("fallback_policy: ANY_ENDPOINT"), Ok(None));
    let found =
        lb("subset_selectors: [{keys: [b, a, b], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [a]}]");
    let selector = &found.unwrap().unwrap().selectors[0];
    assert_eq!(selector.keys, ["a".into(), "b".into()]);
    assert_eq!(selector.fallback, Some(SubsetFallback::Keys(vec!["a".into()])));
    for (selector, text) in [
        ("{keys: [a], fallback_keys_subset: [a]}", "only for KEYS_SUBSET"),
        ("{keys: [a], fallback_policy: KEYS_SUBSET}", "cannot be empty"),
        ("{keys: [a], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [b]}", "must be a subset"),
        ("{keys: [a], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [a]}", "cannot be equal"),
    ] {
        assert!(reason(lb(&format!("subset_selectors: [{selector}]"))).contains(text), "{selector}");
    }
}

#[test]
fn upstream_protocols_come_by_type_or_by_the_old_fields() {
    let http = |settings: &str| compile(&format!("{{name: c, {settings}}}")).map(|(cluster, _)| cluster.http);
    assert_eq!(http("http2_protocol_options: {}"), Ok(UpstreamHttp::Http2(Http2Options::default())));
    assert_eq!(
        http("protocol_selection: USE_DOWNSTREAM_PROTOCOL"),
        Ok(UpstreamHttp::UseDownstream(Http2Options::default()))
    );
    let typed = |options: &str| {
        http(&format!(
            "typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{
              '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, {options}}}}}"
        ))
    };
    assert_eq!(typed("explicit_http_config: {http_protocol_options: {}}"), Ok(UpstreamHttp::Http1));
    assert_eq!(
        typed("use_downstream_protocol_config: {http_protocol_options: {}, http2_protocol_options: {}}"),
        Ok(UpstreamHttp::UseDownstream(Http2Options::default()))
    );
    let plain = reason(typed("auto_config: {}"));
    assert!(
        plain.ends_with("ALPN configured for cluster c which has a non-ALPN transport socket"),
        "{plain}"
    );
    assert!(
        reason(typed("explicit_http_config: {http3_protocol_options: {}}"))
            .contains("http3_protocol_options")
    );
    assert!(reason(http("typed_extension_protocol_options: {x: {'@type': type.googleapis.com/udpa.type.v1.TypedStruct, type_url: a/b.C}}"))
        .ends_with("extension \"x\" of type \"b.C\" is not supported"));
}

#[test]
fn outlier_detection_has_the_defaults_of_envoy() {
    let (cluster, _) = compile("{name: c, outlier_detection: {}}").unwrap();
    let outlier = cluster.outlier.unwrap();
    assert_eq!((outlier.consecutive_5xx, outlier.consecutive_gateway_failure), (5, 5));
    assert_eq!(outlier.enforcing_percent, [100, 0, 100, 100, 100, 0, 0]);
    assert_eq!((outlier.success_rate.request_volume, outlier.failure_percentage.request_volume), (100, 50));
    assert_eq!(outlier.max_ejection_time, Duration::from_secs(300));
    assert!(outlier.successful_active_health_check_uneject_host && !outlier.always_eject_one_host);
}

#[test]
fn outlier_detection_that_cannot_be_is_rejected() {
    let of = |fields: &str| reason(compile(&format!("{{name: c, outlier_detection: {{{fields}}}}}")));
    assert_eq!(
        of("base_ejection_time: 10s, max_ejection_time: 5s"),
        "outlier_detection.max_ejection_time: cannot be smaller than base_ejection_time"
    );
    assert!(of("enforcing_success_rate: 101").starts_with("outlier_detection.enforcing_success_rate"));
    assert!(of("monitors: [{name: x}]").starts_with("outlier_detection.monitors"));
}

#[test]
fn all_refused_settings_of_a_cluster_are_told_at_once() {
    let rejections = reasons(compile(
        "{name: c, health_checks: [{timeout: 1s}], connect_timeout: 0s,
          transport_socket: {name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, allow_renegotiation: true}},
          circuit_breakers: {thresholds: [{retry_budget: {budget_interval: 1s}}]},
          common_lb_config: {healthy_panic_threshold: {value: 101}},
          cluster_type: {name: envoy.clusters.aggregate}}",
    ));
    let paths: Vec<_> = rejections.iter().map(|text| text.split(": ").next().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "transport_socket.typed_config.allow_renegotiation",
            "common_lb_config.healthy_panic_threshold.value",
            "circuit_breakers.thresholds[0].retry_budget.budget_interval",
            "health_checks[0].unhealthy_threshold",
            "health_checks[0].healthy_threshold",
            "health_checks[0].interval",
            "health_checks[0].health_checker",
            "cluster_type",
        ]
    );
}

#[test]
fn tls_towards_hosts_ends_at_1_2_unless_it_is_said() {
    let context = |fields: &str| {
        let socket = "transport_socket: {name: t, typed_config: {'@type': \
             type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
        compile(&format!("{{name: c, {socket}, {fields}}}}}}}")).map(|(cluster, _)| {
            let tls = cluster.transport_sockets.default.tls().cloned();
            tls.expect("the cluster has TLS").common.params.versions
        })
    };
    let params = |text: &str| context(&format!("common_tls_context: {{tls_params: {{{text}}}}}"));
    assert_eq!(context("sni: a.example"), Ok(Versions::Only12));
    assert_eq!(params("tls_maximum_protocol_version: TLSv1_3"), Ok(Versions::Both));
    assert_eq!(params("tls_minimum_protocol_version: TLSv1_2"), Ok(Versions::Only12));
    let above = reason(params("tls_minimum_protocol_version: TLSv1_3"));
    assert!(above.contains("tls_minimum_protocol_version: is above the maximum"), "{above}");
    let alone = reason(context("auto_sni_san_validation: true"));
    assert!(alone.ends_with("was configured without a validation context"), "{alone}");
}

#[test]
fn eds_needs_a_source() {
    assert!(reason(compile("{name: c, type: EDS}")).starts_with("eds_cluster_config"));
    let (cluster, _) = compile("{name: c, type: EDS, eds_cluster_config: {eds_config: {ads: {}}}}").unwrap();
    assert_eq!(cluster.discovery, Discovery::Eds("c".into()));
    assert_eq!(cluster.initial_fetch_timeout, Some(Duration::from_secs(15)));
}

#[test]
fn endpoints_keep_priority_weight_health_and_names() {
    let assignment = |yaml: &str| endpoints(&message::<ClusterLoadAssignment>(yaml));
    let found = assignment(
        r#"
cluster_name: c
policy: {overprovisioning_factor: 200}
endpoints:
- priority: 1
  lb_endpoints: [{health_status: DRAINING, endpoint: {address: {socket_address: {address: "::1", port_value: 1}}}}]
- locality: {region: r, zone: z}
  load_balancing_weight: 4
  lb_endpoints:
  - endpoint: {hostname: h, address: {socket_address: {address: 10.0.0.1, port_value: 80}}}
    load_balancing_weight: 4
    metadata: {filter_metadata: {istio: {workload: "w;ns;c;r;k"}}}
  - endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 80}}}
"#,
    )
    .unwrap();
    assert_eq!(found.overprovisioning_factor_percent, 200);
    let [first, second] = &found.priorities[..] else { panic!("{found:?}") };
    assert_eq!(first.len(), 1, "the second host of one address is dropped");
    assert_eq!((&*first[0].hostname, first[0].locality.to_string(), first[0].weight), ("h", "r/z".into(), 4));
    assert_eq!(first[0].workload.as_deref(), Some("w;ns;c;r;k"));
    assert!(!second[0].is_healthy() && second[0].address.is_ipv6());

    assert!(reason(assignment("{endpoints: []}")).starts_with("cluster_name"));
    let drops = assignment(
        "{cluster_name: c, policy: {drop_overloads: [{category: x, drop_percentage: {numerator: 5, denominator: TEN_THOUSAND}}]}}",
    );
    assert_eq!(drops.unwrap().drop_overload_ppm, 500);
    assert!(
        reason(assignment("{cluster_name: c, policy: {drop_overloads: [{category: x}, {category: y}]}}"))
            .contains("has 2 categories")
    );
    assert!(
        reason(assignment("{cluster_name: c, endpoints: [{priority: 200}]}"))
            .starts_with("endpoints[0].priority")
    );
}
