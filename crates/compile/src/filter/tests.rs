//! Per-route configurations from YAML, and the verdicts of filters on requests.

use std::sync::Arc;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::time::Duration;

use http::HeaderName;
use meltemi_envoy::config::core::v3::TypedExtensionConfig;
use meltemi_envoy::config::route::v3::RouteConfiguration;
use meltemi_envoy::json::Codec;

use super::*;
use crate::matcher::RequestView;
use crate::matcher::tests::Request;
use crate::route::RouteTable;
use crate::{Rejection, route_table};

fn compile(yaml: &str) -> Result<RouteTable, Vec<Rejection>> {
    route_table(&Codec::new().parse::<RouteConfiguration>(yaml).unwrap())
}

/// A table with these configurations at the route configuration, the virtual host and the route.
fn table(levels: [&str; 3]) -> Result<RouteTable, Vec<Rejection>> {
    let [table, host, route] = levels.map(|entries| format!("typed_per_filter_config: {{{entries}}}"));
    compile(&format!(
        "{table}
name: r
virtual_hosts: [{{name: v, domains: ['*'], {host}, routes: [{{match: {{prefix: /}}, route: {{cluster: c}}, {route}}}]}}]"
    ))
}

fn levels(table: &RouteTable) -> Levels<'_> {
    let host = &table.virtual_hosts[0];
    Levels { levels: [PerFilterConfigs::EMPTY, &host.routes[0].filters, &host.filters, &table.filters] }
}

fn fault(text: &str) -> String {
    format!("f: {{'@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, {text}}}")
}

/// A filter config around something else.
fn wrapped(text: &str) -> String {
    format!("f: {{'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, {text}}}")
}

/// A request that draws these numbers, one after the other, and notes what is counted.
struct View {
    request: Request,
    draws: RefCell<Vec<u64>>,
    events: RefCell<Vec<Event>>,
    active: Cell<u32>,
}

impl View {
    fn new(request: Request, draws: &[u64]) -> View {
        let draws = RefCell::new(draws.iter().rev().copied().collect());
        View { request, draws, events: RefCell::default(), active: Cell::new(0) }
    }
}

impl RequestView for View {
    fn method(&self) -> &str {
        self.request.method()
    }
    fn scheme(&self) -> &str {
        self.request.scheme()
    }
    fn authority(&self) -> &str {
        self.request.authority()
    }
    fn path(&self) -> &str {
        self.request.path()
    }
    fn header(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        self.request.header(name)
    }
    fn random(&self) -> u64 {
        0
    }
}

impl FilterView for View {
    fn draw(&self) -> u64 {
        self.draws.borrow_mut().pop().expect("drew more often than expected")
    }
    fn count(&self, event: Event) {
        self.events.borrow_mut().push(event);
    }
    fn active_faults(&self) -> u32 {
        self.active.get()
    }
    fn forwards(&self) -> bool {
        true
    }
    fn is_head_only(&self) -> bool {
        true
    }
    fn fails_health_checks(&self) -> bool {
        false
    }
    fn cluster_health(&self, cluster: &str) -> Option<(u32, u32)> {
        (cluster == "c").then_some((1, 2))
    }
    fn cached_health_check(&self, _filter: &str) -> Option<http::StatusCode> {
        None
    }
    fn target_cluster(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed("c"))
    }
}

fn fault_filter() -> HttpFilter {
    HttpFilter { name: "f".into(), disabled: false, config: FilterConfig::Fault(Box::default()) }
}

#[test]
fn the_most_specific_level_says_whether_a_filter_is_on() {
    let (off, on) = (wrapped("disabled: true"), fault(""));
    let is_enabled = |texts: [&str; 3]| levels(&table(texts).unwrap()).is_enabled("f");
    assert_eq!(is_enabled(["", "", ""]), None);
    assert_eq!(is_enabled([&off, "", ""]), Some(false));
    assert_eq!(is_enabled([&off, &on, ""]), Some(true));
    assert_eq!(is_enabled([&on, &on, &off]), Some(false));
    assert_eq!(levels(&table([&on, &off, &on]).unwrap()).all("f").count(), 2);
}

#[test]
fn unknown_types_are_refused_by_path_unless_optional() {
    let path = |text: &str| table(["", "", text]).unwrap_err()[0].path.clone();
    let any = "{'@type': type.googleapis.com/envoy.config.core.v3.Locality}";
    let at = "virtual_hosts[0].routes[0].typed_per_filter_config[\"f\"]";
    assert_eq!(path(&format!("f: {any}")), at);
    assert_eq!(path(&wrapped(&format!("config: {any}"))), format!("{at}.config"));
    assert_eq!(path(&wrapped("")), format!("{at}.config"));
    let optional = table(["", "", &wrapped(&format!("is_optional: true, config: {any}"))]).unwrap();
    assert_eq!(levels(&optional).is_enabled("f"), None);
    assert_eq!(path(&fault("abort: {http_status: 600}")), format!("{at}.abort.http_status"));
    let inner = "is_optional: true, config: {'@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, abort: {}}";
    assert_eq!(path(&wrapped(inner)), format!("{at}.config.abort"));
}

#[test]
fn an_abort_is_drawn_after_the_delay() {
    let text = "delay: {fixed_delay: 1s, percentage: {numerator: 50}}, abort: {http_status: 503, percentage: {numerator: 10}}";
    let table = table(["", "", &fault(text)]).unwrap();
    let filter = fault_filter();
    let view = View::new(Request::get("h", "/"), &[149, 109]);
    let mut state = FilterState::Idle;
    let first = filter.decode(&view, &levels(&table), &mut state);
    assert!(matches!(first, Verdict::Await(Effect::Delay(delay)) if delay == Duration::from_secs(1)));
    let Verdict::Respond(answer) = filter.resume(&view, &levels(&table), &mut state) else {
        panic!("no answer")
    };
    assert_eq!((answer.status.as_u16(), answer.flag), (503, Some(AnswerFlag::FaultInjected)));
    let by_downstream_cluster = true;
    let counted =
        [Event::DelayInjected { by_downstream_cluster }, Event::AbortInjected { by_downstream_cluster }];
    assert_eq!(*view.events.borrow(), counted);
    let spared = View::new(Request::get("h", "/"), &[50, 10]);
    assert!(matches!(filter.decode(&spared, &levels(&table), &mut FilterState::Idle), Verdict::Continue));
}

#[test]
fn too_many_active_faults_spare_a_request() {
    let text = "max_active_faults: 2, abort: {http_status: 503, percentage: {numerator: 100}}";
    let table = table(["", "", &fault(text)]).unwrap();
    let view = View::new(Request::get("h", "/"), &[0]);
    view.active.set(2);
    let filter = fault_filter();
    assert!(matches!(filter.decode(&view, &levels(&table), &mut FilterState::Idle), Verdict::Continue));
    assert_eq!(*view.events.borrow(), [Event::FaultsOverflow]);
    view.active.set(1);
    assert!(matches!(filter.decode(&view, &levels(&table), &mut FilterState::Idle), Verdict::Respond(_)));
}

#[test]
fn a_header_lowers_the_percentage_and_never_raises_it() {
    let text = "abort: {header_abort: {}, percentage: {numerator: 50}}";
    let table = table(["", "", &fault(text)]).unwrap();
    let falls = |percentage: &str, draw: u64| {
        let request = Request::get("h", "/")
            .with("x-envoy-fault-abort-request", "503")
            .with("x-envoy-fault-abort-request-percentage", percentage);
        let view = View::new(request, &[draw]);
        let verdict = fault_filter().decode(&view, &levels(&table), &mut FilterState::Idle);
        matches!(verdict, Verdict::Respond(_))
    };
    assert!(falls("20", 19) && !falls("20", 20));
    assert!(falls("90", 49) && !falls("90", 50));
    assert!(falls("x", 49) && !falls("x", 50));
}

#[test]
fn discovered_configurations_are_filters_before_the_router() {
    let message = |yaml: &str| Codec::new().parse::<TypedExtensionConfig>(yaml).unwrap();
    let cors =
        "{name: n, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}";
    let found = discovered(&message(cors)).unwrap();
    assert!(matches!(found.filter.config, FilterConfig::Cors));
    assert_eq!((&*found.filter.name, &*found.type_name), ("n", "envoy.extensions.filters.http.cors.v3.Cors"));
    let router = cors.replace("cors.v3.Cors", "router.v3.Router");
    assert_eq!(discovered(&message(&router)).unwrap_err()[0].path, "typed_config");
    assert!(discovered(&message("{name: n}")).is_err());
}

fn manager_filter(config: &str) -> Result<FilterConfig, Vec<Rejection>> {
    let text = format!(
        "{{name: n, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.{config}}}}}"
    );
    let found = discovered(&Codec::new().parse::<TypedExtensionConfig>(&text).unwrap())?;
    Ok(Arc::into_inner(found.filter).unwrap().config)
}

fn named(config: &str) -> HttpFilter {
    HttpFilter { name: "f".into(), disabled: false, config: manager_filter(config).unwrap() }
}

#[test]
fn a_health_check_counts_the_healthy_hosts_of_clusters() {
    let status = |clusters: &str| {
        let filter = named(&format!(
            "health_check.v3.HealthCheck, pass_through_mode: false, cluster_min_healthy_percentages: {{{clusters}}}"
        ));
        let view = View::new(Request::get("h", "/"), &[]);
        match filter.decode(&view, &Levels::NONE, &mut FilterState::Idle) {
            Verdict::Respond(answer) => answer.status.as_u16(),
            other => panic!("{other:?}"),
        }
    };
    // One of two hosts of this cluster is healthy, no other cluster is there.
    assert_eq!(status(""), 200);
    assert_eq!(status("c: {value: 50}"), 200);
    assert_eq!(status("c: {value: 50.9}"), 200);
    assert_eq!(status("c: {value: 51}"), 503);
    assert_eq!(status("d: {value: 0}"), 503);
}

#[test]
fn a_health_check_is_one_when_all_headers_match() {
    let filter =
        named("health_check.v3.HealthCheck, pass_through_mode: false, headers: [{name: x-a}, {name: x-b}]");
    let is_check = |request: Request| {
        let verdict = filter.decode(&View::new(request, &[]), &Levels::NONE, &mut FilterState::Idle);
        matches!(verdict, Verdict::Respond(_))
    };
    assert!(!is_check(Request::get("h", "/").with("x-a", "1")));
    assert!(is_check(Request::get("h", "/").with("x-a", "1").with("x-b", "1")));
}

#[test]
fn grpc_calls_are_counted_by_method_when_it_is_listed() {
    let call = |config: &str, path: &str| {
        let filter = named(&format!("grpc_stats.v3.FilterConfig, {config}"));
        let request = Request::get("h", path).with("content-type", "application/grpc+proto");
        let mut state = FilterState::Idle;
        filter.decode(&View::new(request, &[]), &Levels::NONE, &mut state);
        match state {
            FilterState::Grpc(call) => call,
            other => panic!("{other:?}"),
        }
    };
    let list = "individual_method_stats_allowlist: {services: [{name: a.S, method_names: [M]}]}";
    assert_eq!(call(list, "/a.S/M?q"), grpc_stats::GrpcCall::Named);
    assert_eq!(call(list, "/a.S/N"), grpc_stats::GrpcCall::Unnamed);
    assert_eq!(call("stats_for_all_methods: true", "/a.S/N"), grpc_stats::GrpcCall::Named);
    assert_eq!(call("stats_for_all_methods: true", "/a/b/c"), grpc_stats::GrpcCall::Untracked);
}

#[test]
fn header_mutations_of_levels_come_in_the_order_that_is_asked_for() {
    let per_route = |name: &str| {
        format!("f: {{'@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute,
            mutations: {{request_mutations: [{{remove: {name}}}]}}}}")
    };
    let table = table([&per_route("table"), &per_route("vhost"), &per_route("route")]).unwrap();
    let order = |most_specific_wins: &str| -> Vec<String> {
        let filter = named(&format!(
            "header_mutation.v3.HeaderMutation, mutations: {{request_mutations: [{{remove: own}}]}}, \
             most_specific_header_mutations_wins: {most_specific_wins}"
        ));
        let FilterConfig::HeaderMutation(config) = &filter.config else { panic!("another filter") };
        let levels = levels(&table);
        let all = config.all("f", &levels).flat_map(|mutations| &mutations.request);
        all.map(|mutation| match mutation {
            header_mutation::FieldMutation::Remove(name) => name.to_string(),
            other => panic!("{other:?}"),
        })
        .collect()
    };
    assert_eq!(order("false"), ["own", "route", "vhost", "table"]);
    assert_eq!(order("true"), ["own", "table", "vhost", "route"]);
}

#[test]
fn configurations_that_make_no_sense_are_refused_by_path() {
    let path = |config: &str| manager_filter(config).unwrap_err()[0].path.clone();
    assert_eq!(path("buffer.v3.Buffer"), "typed_config.max_request_bytes");
    assert_eq!(path("health_check.v3.HealthCheck"), "typed_config.pass_through_mode");
    assert_eq!(
        path("health_check.v3.HealthCheck, pass_through_mode: false, cache_time: 1s"),
        "typed_config.cache_time"
    );
    assert_eq!(
        path(
            "set_filter_state.v3.Config, on_request_headers: [{object_key: unheard.of, format_string: {text_format_source: {inline_string: x}}}]"
        ),
        "typed_config.on_request_headers[0].object_key"
    );
    assert_eq!(
        path(
            "header_mutation.v3.HeaderMutation, mutations: {query_parameter_mutations: [{append: {record: {key: k, value: 1}}}]}"
        ),
        "typed_config.mutations.query_parameter_mutations[0].append.record.value"
    );
    assert_eq!(path("fault.v3.HTTPFault, delay: {fixed_delay: 0s}"), "typed_config.delay.fixed_delay");
}
