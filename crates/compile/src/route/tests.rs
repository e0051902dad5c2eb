//! Route tables from YAML, and what they decide.

use meltemi_envoy::config::route::v3::RouteConfiguration;
use meltemi_envoy::json::Codec;
use proptest::prelude::*;

use super::*;
use crate::format::Op;
use crate::header_edit::AppendAction;
use crate::matcher::tests::Request;
use crate::{Rejection, direct_response_location, route_table};

fn compile(yaml: &str) -> Result<RouteTable, Vec<Rejection>> {
    route_table(&Codec::new().parse::<RouteConfiguration>(yaml).unwrap())
}

/// The table of one virtual host for every domain, with these routes.
fn table(routes: &str) -> RouteTable {
    compile(&format!("name: r\nvirtual_hosts: [{{name: v, domains: ['*'], routes: [{routes}]}}]")).unwrap()
}

/// The rejections of one route, without what is around it.
fn rejections(route: &str) -> Vec<String> {
    let yaml = format!("name: r\nvirtual_hosts: [{{name: v, domains: ['*'], routes: [{route}]}}]");
    let rejections = compile(&yaml).unwrap_err();
    let text = |r: &Rejection| r.to_string().replace("r: virtual_hosts[0].routes[0].", "");
    rejections.iter().map(text).collect()
}

fn forward<'t>(found: &Found<'t>) -> &'t Forward {
    match &found.route.action {
        RouteAction::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
}

fn cluster_of(table: &RouteTable, request: &Request) -> Option<String> {
    let found = table.find(request)?;
    Some(forward(&found).pick(request).cluster.text(request).into_owned())
}

fn rewritten(table: &RouteTable, path: &str) -> Option<String> {
    let found = table.find(&Request::get("h", path)).unwrap();
    forward(&found).rewritten_path(found.route, path)
}

fn location(table: &RouteTable, request: &Request) -> String {
    let found = table.find(request).unwrap();
    match &found.route.action {
        RouteAction::Redirect(redirect) => redirect.location(request, found.route, ""),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_route_that_matches_wins() {
    let table = table(
        "{match: {prefix: /, headers: [{name: x-user, string_match: {exact: jason}}]}, route: {cluster: v2}},
         {match: {path: /exact}, route: {cluster: exact}},
         {match: {path_separated_prefix: /api}, route: {cluster: api}},
         {match: {safe_regex: {regex: '/r/[0-9]+'}}, route: {cluster: regex}},
         {match: {prefix: /p, case_sensitive: false}, route: {cluster: prefix}},
         {match: {prefix: /q, query_parameters: [{name: a, string_match: {exact: '1'}}]}, route: {cluster: query}},
         {match: {prefix: /g, grpc: {}}, route: {cluster: grpc}}",
    );
    let cluster = |path: &str| cluster_of(&table, &Request::get("h", path));
    assert_eq!(cluster("/exact?q").as_deref(), Some("exact"));
    assert_eq!(cluster("/exact/").as_deref(), None);
    assert_eq!(cluster("/api/x").as_deref(), Some("api"));
    assert_eq!(cluster("/r/12?x").as_deref(), Some("regex"));
    assert_eq!(cluster("/r/12x"), None);
    assert_eq!(cluster("/Px").as_deref(), Some("prefix"));
    assert_eq!(cluster("/q?b=2&a=1").as_deref(), Some("query"));
    assert_eq!(cluster("/q?a=2"), None);
    let jason = Request::get("h", "/exact").with("x-user", "jason");
    assert_eq!(cluster_of(&table, &jason).as_deref(), Some("v2"));
    let grpc = |kind| cluster_of(&table, &Request::get("h", "/g").with("content-type", kind));
    assert_eq!(grpc("application/grpc+proto").as_deref(), Some("grpc"));
    assert_eq!(grpc("application/grpcx"), None);
}

#[test]
fn a_fraction_takes_its_share_of_the_random_numbers() {
    let table = table(
        "{match: {prefix: /, runtime_fraction: {default_value: {numerator: 10}, runtime_key: k}}, route: {cluster: a}},
         {match: {prefix: /}, route: {cluster: b}}",
    );
    let cluster = |random| cluster_of(&table, &Request { random, ..Request::get("h", "/") }).unwrap();
    assert_eq!(cluster(99_999), "a");
    assert_eq!(cluster(100_000), "b");
    assert_eq!(cluster(1_000_000), "a");
}

#[test]
fn every_point_of_the_weights_goes_to_its_cluster() {
    let table = table(
        "{match: {prefix: /}, route: {weighted_clusters: {clusters: [
            {name: a, weight: 90}, {name: none, weight: 0}, {name: b, weight: 10}]}}}",
    );
    let cluster = |random| cluster_of(&table, &Request { random, ..Request::get("h", "/") }).unwrap();
    let picked: Vec<_> = (0..100).map(cluster).collect();
    assert!(picked[..90].iter().all(|name| name == "a"));
    assert!(picked[90..].iter().all(|name| name == "b"));
    assert_eq!(cluster(100), "a");
}

#[test]
fn a_cluster_header_names_the_cluster_or_nothing() {
    let table = table("{match: {prefix: /}, route: {cluster_header: x-cluster}}");
    assert_eq!(cluster_of(&table, &Request::get("h", "/").with("x-cluster", "c")).as_deref(), Some("c"));
    assert_eq!(cluster_of(&table, &Request::get("h", "/")).as_deref(), Some(""));
}

#[test]
fn rewrites_keep_the_query() {
    let prefix = table("{match: {prefix: /api}, route: {cluster: c, prefix_rewrite: /v1}}");
    assert_eq!(rewritten(&prefix, "/api/x?q=1").as_deref(), Some("/v1/x?q=1"));
    assert_eq!(rewritten(&prefix, "/api?q=1").as_deref(), Some("/v1?q=1"));
    let exact = table("{match: {path: /a}, route: {cluster: c, prefix_rewrite: /b}}");
    assert_eq!(rewritten(&exact, "/a?q").as_deref(), Some("/b?q"));
    let by_regex = table("{match: {safe_regex: {regex: '/x/.*'}}, route: {cluster: c, prefix_rewrite: /y}}");
    assert_eq!(rewritten(&by_regex, "/x/z?q").as_deref(), Some("/y?q"));
    let regex = table(
        r"{match: {prefix: /}, route: {cluster: c, regex_rewrite: {pattern: {regex: '/([^/]*)/([^/]*)'}, substitution: '/\2/\1'}}}",
    );
    assert_eq!(rewritten(&regex, "/a/b?x=/c/d").as_deref(), Some("/b/a?x=/c/d"));
    assert_eq!(rewritten(&table("{match: {prefix: /}, route: {cluster: c}}"), "/a"), None);
}

#[test]
fn redirects_change_only_what_they_name() {
    let https = table("{match: {prefix: /}, redirect: {https_redirect: true}}");
    let from = |authority: &str, path: &str| {
        location(&https, &Request::get(authority, path).with("x-forwarded-proto", "http"))
    };
    assert_eq!(from("a.com", "/x?q"), "https://a.com/x?q");
    assert_eq!(from("a.com:80", "/"), "https://a.com/");
    assert_eq!(from("a.com:8080", "/"), "https://a.com:8080/");
    assert_eq!(from("[::1]:80", "/"), "https://[::1]/");
    assert_eq!(from("[::1]", "/"), "https://[::1]/");

    let host = table("{match: {prefix: /}, redirect: {host_redirect: b.com, port_redirect: 8443}}");
    assert_eq!(location(&host, &Request::get("a.com:80", "/x")), "http://b.com:8443/x");
    let port = table("{match: {prefix: /}, redirect: {port_redirect: 81}}");
    assert_eq!(location(&port, &Request::get("a.com:80", "/x")), "http://a.com:81/x");
    let same_scheme = table("{match: {prefix: /}, redirect: {path_redirect: /y}}");
    assert_eq!(location(&same_scheme, &Request::get("a.com:80", "/x")), "http://a.com:80/y");
}

#[test]
fn redirects_of_the_path_keep_or_strip_the_query() {
    let at = |redirect: &str, path: &str| {
        location(
            &table(&format!("{{match: {{prefix: /a}}, redirect: {redirect}}}")),
            &Request::get("h", path),
        )
    };
    assert_eq!(at("{path_redirect: /y}", "/a?q"), "http://h/y?q");
    assert_eq!(at("{path_redirect: /y, strip_query: true}", "/a?q"), "http://h/y");
    assert_eq!(at("{path_redirect: '/y?z', strip_query: true}", "/a?q"), "http://h/y?z");
    assert_eq!(at("{prefix_rewrite: /b}", "/a/c?q"), "http://h/b/c?q");
    assert_eq!(at("{prefix_rewrite: /b, strip_query: true}", "/a/c?q"), "http://h/b/c");
    assert_eq!(at("{regex_rewrite: {pattern: {regex: a}, substitution: o}}", "/a/a?a"), "http://h/o/o?a");
    assert_eq!(at("{strip_query: true}", "/a?q"), "http://h/a");
}

#[test]
fn require_tls_redirects_before_any_route() {
    let yaml = |mode: &str| {
        format!(
            "virtual_hosts: [{{name: v, domains: ['*'], require_tls: {mode},
             routes: [{{match: {{prefix: /}}, route: {{cluster: c}}}}]}}]"
        )
    };
    let all = compile(&yaml("ALL")).unwrap();
    let plain = Request::get("a.com:80", "/x?q").with("x-forwarded-proto", "http");
    assert_eq!(location(&all, &plain), "https://a.com:80/x?q");
    assert!(all.find(&plain).unwrap().is_tls_redirect());
    let secure = Request::get("a.com", "/").with("x-forwarded-proto", "https");
    assert_eq!(cluster_of(&all, &secure).as_deref(), Some("c"));
    assert!(!all.find(&secure).unwrap().is_tls_redirect());
    let external = compile(&yaml("EXTERNAL_ONLY")).unwrap();
    assert_eq!(
        cluster_of(&external, &Request::get("a", "/").with("x-envoy-internal", "true")).as_deref(),
        Some("c")
    );
    assert_eq!(location(&external, &Request::get("a", "/")), "https://a/");
}

#[test]
fn virtual_hosts_are_found_by_domain() {
    let table = compile(
        "virtual_hosts:
         - {name: a, domains: [a.com, '*.a.com'], routes: [{match: {prefix: /}, route: {cluster: a}}]}
         - {name: b, domains: ['*'], routes: [{match: {prefix: /only}, route: {cluster: b}}]}",
    )
    .unwrap();
    assert_eq!(cluster_of(&table, &Request::get("X.A.com", "/")).as_deref(), Some("a"));
    assert_eq!(cluster_of(&table, &Request::get("b.com", "/only")).as_deref(), Some("b"));
    assert!(
        table.find(&Request::get("b.com", "/")).is_none(),
        "there is no way back to another virtual host"
    );
}

#[test]
fn path_parameters_are_ignored_on_request() {
    let yaml = "{name: v, domains: ['*'], routes: [{match: {path: /a}, route: {cluster: c}}]}";
    let ignoring =
        compile(&format!("ignore_path_parameters_in_path_matching: true\nvirtual_hosts: [{yaml}]")).unwrap();
    assert!(ignoring.find(&Request::get("h", "/a;v=1?q")).is_some());
    assert!(
        compile(&format!("virtual_hosts: [{yaml}]")).unwrap().find(&Request::get("h", "/a;v=1")).is_none()
    );
}

#[test]
fn a_route_without_settings_has_those_of_envoy() {
    let table = table("{match: {prefix: /}, route: {cluster: c}}");
    let found = table.find(&Request::get("h", "/")).unwrap();
    let forward = forward(&found);
    assert_eq!(forward.timeout, Some(Duration::from_secs(15)));
    assert_eq!(forward.cluster_not_found, StatusCode::SERVICE_UNAVAILABLE);
    assert!(forward.idle_timeout.is_none() && forward.retry.is_none() && forward.mirrors.is_empty());
    assert!(matches!(forward.host_rewrite, HostRewrite::None));
}

#[test]
fn istio_timeouts_are_understood() {
    let table = table(
        "{match: {prefix: /}, decorator: {operation: 'a:80/*'}, route: {cluster: c, timeout: 0s,
          max_stream_duration: {max_stream_duration: 0s, grpc_timeout_header_max: 0s}}}",
    );
    let found = table.find(&Request::get("h", "/")).unwrap();
    assert_eq!(forward(&found).timeout, None);
    let duration = forward(&found).stream_duration.as_deref().copied();
    let off = Some(Duration::ZERO);
    assert_eq!(duration, Some(StreamDuration { limit: off, grpc_max: off, grpc_offset: Duration::ZERO }));
    assert_eq!(found.route.operation.as_deref(), Some("a:80/*"));
}

#[test]
fn retry_policies_are_inherited_from_the_virtual_host() {
    let table = compile(
        "virtual_hosts: [{name: v, domains: ['*'], retry_policy: {retry_on: '5xx', num_retries: 7}, routes: [
           {match: {path: /own}, route: {cluster: c, retry_policy: {
             retry_on: 'connect-failure, refused-stream,unavailable,retriable-status-codes', num_retries: 2,
             retry_host_predicate: [{name: p, typed_config: {
               '@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}],
             host_selection_retry_max_attempts: 5, retriable_status_codes: [503, 500, 503],
             per_try_timeout: 2s, retry_back_off: {base_interval: 0.1s}}}},
           {match: {prefix: /}, route: {cluster: c}}]}]",
    )
    .unwrap();
    let retry = |path| forward(&table.find(&Request::get("h", path)).unwrap()).retry.clone().unwrap();
    let own = retry("/own");
    assert_eq!(own.retriable_status_codes, [500, 503]);
    assert!(own.avoid_previous_hosts);
    assert_eq!((own.num_retries, own.host_selection_attempts), (2, 5));
    assert_eq!((own.back_off.base, own.back_off.max), (Duration::from_millis(100), Duration::from_secs(1)));
    assert_eq!(own.per_try_timeout, Some(Duration::from_secs(2)));
    let on_status = |status| own.on.on_status(status, &own.retriable_status_codes);
    assert!(on_status(503) && !on_status(502));
    assert!(own.on.on_grpc_status(14) && !own.on.on_grpc_status(0));
    let inherited = retry("/other");
    assert_eq!((inherited.on, inherited.num_retries), (RetryOn::FIVE_XX, 7));
    assert_eq!(inherited.back_off.max, Duration::from_millis(250));
}

#[test]
fn mirrors_are_inherited_until_a_level_has_its_own() {
    let table = compile(
        "request_mirror_policies: [{cluster: m0}]
virtual_hosts: [{name: v, domains: ['*'], routes: [
           {match: {path: /own}, route: {cluster: c, request_mirror_policies: [
             {cluster: m1, runtime_fraction: {default_value: {numerator: 25}}, disable_shadow_host_suffix_append: true}]}},
           {match: {prefix: /}, route: {cluster: c}}]}]",
    )
    .unwrap();
    let mirrors = |path| forward(&table.find(&Request::get("h", path)).unwrap()).mirrors.clone();
    assert_eq!(
        mirrors("/own"),
        [Mirror {
            cluster: ClusterName::Fixed("m1".into()),
            fraction_ppm: 250_000,
            appends_shadow: false,
            host_rewrite: None
        }]
    );
    assert_eq!(
        mirrors("/"),
        [Mirror {
            cluster: ClusterName::Fixed("m0".into()),
            fraction_ppm: 1_000_000,
            appends_shadow: true,
            host_rewrite: None
        }]
    );
}

#[test]
fn header_edits_keep_order_operators_and_actions() {
    let table = table(
        "{match: {prefix: /}, route: {cluster: c},
          request_headers_to_remove: [X-Gone],
          request_headers_to_add: [
            {header: {key: X-A, value: 'a %PROTOCOL%'}},
            {header: {key: x-b, value: b}, append: false},
            {header: {key: x-c, value: c}, append_action: ADD_IF_ABSENT, keep_empty_value: true}],
          response_headers_to_add: [{header: {key: x-d, value: '100%%'}, append_action: OVERWRITE_IF_EXISTS}]}",
    );
    let found = table.find(&Request::get("h", "/")).unwrap();
    let RouteEdits { request, response } = &found.route.edits;
    assert_eq!(request.remove, ["x-gone"]);
    assert_eq!(request.add[0].value.ops, [Op::Literal("a ".into()), Op::Protocol]);
    let actions: Vec<_> = request.add.iter().map(|add| add.action).collect();
    use AppendAction::{AddIfAbsent, AppendIfExistsOrAdd, OverwriteIfExists, OverwriteIfExistsOrAdd};
    assert_eq!(actions, [AppendIfExistsOrAdd, OverwriteIfExistsOrAdd, AddIfAbsent]);
    assert!(request.add[2].keep_empty);
    assert_eq!(response.add[0].action, OverwriteIfExists);
    assert_eq!(response.add[0].value.literal(), Some("100%"));
}

#[test]
fn direct_responses_carry_status_and_body() {
    let table = table("{match: {prefix: /}, direct_response: {status: 418, body: {inline_string: tea}}}");
    let found = table.find(&Request::get("h", "/")).unwrap();
    match &found.route.action {
        RouteAction::Respond { status, body } => {
            assert_eq!((status.as_u16(), &body[..]), (418, &b"tea"[..]));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn direct_responses_of_201_and_3xx_say_where() {
    let table = table("{match: {prefix: /}, direct_response: {status: 201}}");
    let request = Request::get("a.com:81", "/x?q");
    let route = table.find(&request).unwrap().route;
    let location =
        |status: u16| direct_response_location(StatusCode::from_u16(status).unwrap(), &request, route);
    assert_eq!(location(201).as_deref(), Some("http://a.com:81/x?q"));
    assert_eq!(location(304).as_deref(), Some("http://a.com:81/x?q"));
    assert_eq!(location(200), None);
}

#[test]
fn what_is_wrong_in_a_route_is_told_by_its_path() {
    let one = |route: &str| {
        let all = rejections(route);
        assert_eq!(all.len(), 1, "{all:?}");
        all[0].clone()
    };
    assert!(one("{match: {prefix: /}}").contains("an action must be set"));
    assert!(one("{route: {cluster: c}}").starts_with("match: must be set"));
    assert!(one("{match: {}, route: {cluster: c}}").starts_with("match: a path specifier"));
    assert!(one("{match: {prefix: /}, route: {}}").starts_with("route: a cluster specifier"));
    assert!(
        one("{match: {safe_regex: {regex: '('}}, route: {cluster: c}}")
            .starts_with("match.safe_regex.regex: ")
    );
    assert!(
        one("{match: {path_separated_prefix: /a/}, route: {cluster: c}}")
            .starts_with("match.path_separated_prefix")
    );
    assert_eq!(
        one("{match: {prefix: /}, route: {cluster: c, rate_limits: [{stage: 1}]}}"),
        "route.rate_limits: not supported yet"
    );
    assert!(
        one("{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a, weight: 0}]}}}")
            .starts_with("route.weighted_clusters.clusters: sum of weights")
    );
    assert!(
        one("{match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: ':path', value: a}}]}")
            .starts_with("request_headers_to_add[0].header.key: :-prefixed")
    );
    assert!(
        one("{match: {prefix: /}, route: {cluster: c}, response_headers_to_add: [{header: {key: a, value: '%X%'}}]}")
            .contains("unknown or not supported operator %X%")
    );
    assert!(one("{match: {prefix: /}, direct_response: {status: 42}}").starts_with("direct_response.status"));
    assert!(
        one("{match: {prefix: /}, route: {cluster: c, retry_policy: {retry_on: 'no-such'}}}")
            .starts_with("route.retry_policy.retry_on: unknown condition \"no-such\"")
    );
    assert!(
        one("{match: {prefix: /}, route: {cluster: c, timeout: -1s}}")
            .starts_with("route.timeout: must not be negative")
    );
}

#[test]
fn all_problems_of_a_table_are_told_at_once() {
    let rejections = compile(
        "name: r
virtual_hosts:
         - {name: a, domains: [x, X], routes: []}
         - {name: '', domains: []}
         - {name: c, domains: ['*'], typed_per_filter_config: {f: {'@type': type.googleapis.com/envoy.config.core.v3.Locality}}}
         - {name: d, domains: ['*']}",
    )
    .unwrap_err();
    let paths: Vec<_> = rejections.iter().map(|r| r.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "virtual_hosts[0].domains[1]",
            "virtual_hosts[3].domains[0]",
            "virtual_hosts[1].name",
            "virtual_hosts[1].domains",
            "virtual_hosts[2].typed_per_filter_config[\"f\"]",
        ]
    );
    assert!(rejections.iter().all(|r| r.resource == "r"));
}

#[test]
fn a_direct_response_has_a_limit() {
    let with_limit = |limit: &str| {
        compile(&format!(
            "{limit}\nvirtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}},
              direct_response: {{status: 200, body: {{inline_string: {}}}}}}}]}}]",
            "x".repeat(5000)
        ))
    };
    assert!(with_limit("").unwrap_err()[0].reason.contains("5000 bytes; maximum is 4096"));
    assert!(with_limit("max_direct_response_body_size_bytes: 5000").is_ok());
}

proptest! {
    #[test]
    fn weights_share_all_points_exactly(weights in proptest::collection::vec(0_u32..20, 1..6)) {
        let total: u32 = weights.iter().sum();
        prop_assume!(total > 0);
        let entries: Vec<_> = weights.iter().enumerate()
            .map(|(i, weight)| format!("{{name: c{i}, weight: {weight}}}"))
            .collect();
        let table = table(&format!(
            "{{match: {{prefix: /}}, route: {{weighted_clusters: {{clusters: [{}]}}}}}}",
            entries.join(", ")
        ));
        let mut counts = vec![0; weights.len()];
        for random in 0..u64::from(total) {
            let name = cluster_of(&table, &Request { random, ..Request::get("h", "/") }).unwrap();
            counts[name[1..].parse::<usize>().unwrap()] += 1;
        }
        prop_assert_eq!(counts, weights);
    }
}
