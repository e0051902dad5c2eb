//! The index beside a scan of all routes, and how many routes it asks.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::Write as _;

use http::HeaderName;
use meltemi_envoy::config::route::v3::Route as RouteMessage;
use meltemi_envoy::config::route::v3::RouteConfiguration;
use meltemi_envoy::config::route::v3::{
    HeaderMatcher, RouteAction, RouteMatch, VirtualHost, header_matcher, route, route_action, route_match,
};
use meltemi_envoy::json::Codec;
use proptest::prelude::*;

use crate::matcher::RequestView;
use crate::matcher::tests::Request;
use crate::route::RouteTable;
use crate::route_table;

/// A request that counts how many routes are asked: each looks at the method once.
struct Counting {
    request: Request,
    asked: Cell<usize>,
}

impl Counting {
    fn new(authority: &str, path: &str) -> Counting {
        Counting { request: Request::get(authority, path), asked: Cell::new(0) }
    }
}

impl RequestView for Counting {
    fn method(&self) -> &str {
        self.asked.set(self.asked.get() + 1);
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

fn table(yaml: &str) -> RouteTable {
    route_table(&Codec::new().parse::<RouteConfiguration>(yaml).unwrap()).unwrap()
}

fn found(table: &RouteTable, view: &impl RequestView) -> Option<String> {
    table.find(view).map(|found| found.route.name.to_string())
}

#[test]
fn a_thousand_virtual_hosts_cost_what_one_costs() {
    let mut yaml = "name: r\nvirtual_hosts:\n".to_owned();
    for host in 0..1000 {
        let _ = writeln!(yaml, "- name: v{host}\n  domains: [v{host}.example]\n  routes:");
        for route in 0..10 {
            let _ = writeln!(
                yaml,
                "  - {{name: v{host}r{route}, match: {{prefix: /r{route}/}}, route: {{cluster: c}}}}"
            );
        }
    }
    let table = table(&yaml);
    for (authority, path, name) in [
        ("v0.example", "/r0/x", Some("v0r0")),
        ("v999.example", "/r9/x", Some("v999r9")),
        ("v500.example", "/none", None),
        ("none.example", "/r0/x", None),
    ] {
        let request = Counting::new(authority, path);
        assert_eq!(found(&table, &request).as_deref(), name);
        assert!(request.asked.get() <= 1, "{authority}{path}: {} routes", request.asked.get());
    }
}

#[test]
fn ten_thousand_paths_cost_what_fit_and_regexes_up_to_the_answer() {
    let mut yaml = "name: r\nvirtual_hosts: [{name: v, domains: ['*'], routes: [\n".to_owned();
    for route in 0..5000 {
        let _ = writeln!(yaml, "{{name: e{route}, match: {{path: /e/{route}}}, route: {{cluster: c}}}},");
        let _ = writeln!(yaml, "{{name: p{route}, match: {{prefix: /p/{route}/}}, route: {{cluster: c}}}},");
    }
    yaml.push_str("{name: x, match: {safe_regex: {regex: '/e/.*'}}, route: {cluster: c}},");
    yaml.push_str("{name: any, match: {prefix: /}, route: {cluster: c}}]}]");
    let table = table(&yaml);
    for (path, name, most) in
        [("/e/4999", "e4999", 2), ("/p/4999/x", "p4999", 2), ("/e/none", "x", 2), ("/z", "any", 2)]
    {
        let request = Counting::new("h", path);
        assert_eq!(found(&table, &request).as_deref(), Some(name));
        assert!(request.asked.get() <= most, "{path}: {} routes", request.asked.get());
    }
}

/// A route of the table under test.
fn any_match() -> impl Strategy<Value = RouteMatch> {
    let text = "/[ab/]{0,3}";
    let path = prop_oneof![
        text.prop_map(route_match::PathSpecifier::Path),
        text.prop_map(route_match::PathSpecifier::Prefix),
        "/[ab]{1,2}".prop_map(route_match::PathSpecifier::PathSeparatedPrefix),
        "/[abAB]{0,2}".prop_map(route_match::PathSpecifier::Prefix),
        "/[ab]{0,1}[.][*]".prop_map(|regex| {
            let regex = meltemi_envoy::r#type::matcher::v3::RegexMatcher { regex, ..Default::default() };
            route_match::PathSpecifier::SafeRegex(regex)
        }),
    ];
    (path, any::<bool>(), proptest::bool::weighted(0.3)).prop_map(|(path, case_sensitive, asks_header)| {
        let header = HeaderMatcher {
            name: "x-a".to_owned(),
            header_match_specifier: Some(header_matcher::HeaderMatchSpecifier::PresentMatch(true)),
            ..HeaderMatcher::default()
        };
        RouteMatch {
            path_specifier: Some(path),
            case_sensitive: Some(case_sensitive),
            headers: if asks_header { vec![header] } else { Vec::new() },
            ..RouteMatch::default()
        }
    })
}

proptest! {
    #[test]
    fn the_index_finds_what_a_scan_finds(
        matches in proptest::collection::vec(any_match(), 9..40),
        paths in proptest::collection::vec("/[abAB/]{0,5}", 1..10),
        has_header in any::<bool>(),
    ) {
        let routes = matches.into_iter().map(|matched| RouteMessage {
            r#match: Some(matched),
            action: Some(route::Action::Route(RouteAction {
                cluster_specifier: Some(route_action::ClusterSpecifier::Cluster("c".to_owned())),
                ..RouteAction::default()
            })),
            ..RouteMessage::default()
        });
        let host = VirtualHost {
            name: "v".to_owned(),
            domains: vec!["*".to_owned()],
            routes: routes.collect(),
            ..VirtualHost::default()
        };
        let config = RouteConfiguration { virtual_hosts: vec![host], ..RouteConfiguration::default() };
        let mut table = route_table(&config).unwrap();
        prop_assert!(table.virtual_hosts[0].index.is_some());
        let requests: Vec<_> = paths.iter().map(|path| {
            let request = Request::get("h", path);
            if has_header { request.with("x-a", "1") } else { request }
        }).collect();
        let places = |table: &RouteTable| -> Vec<_> {
            requests.iter().map(|request| table.find(request).map(|found| found.place)).collect()
        };
        let indexed = places(&table);
        table.virtual_hosts[0].index = None;
        prop_assert_eq!(indexed, places(&table));
    }
}
