//! `meltemi proxy-config route`. Source of columns, filters and order: `istioctl proxy-config route`.

use clap::Args;
use serde_json::Value;

use super::dump::{ROUTES, list, managed_by, text};
use super::{Sections, SourceArgs, View, outcome, sections};
use crate::output::{Format, Outcome, table};

/// Domains of a virtual host that are shown; more are counted.
const MAX_DOMAINS: usize = 2;

/// What `--help` says first.
pub(super) const ABOUT: &str = "Show the routes of one proxy: which requests for which hosts it tells apart.\n\n\
        A route configuration has virtual hosts, chosen by the Host of a request, and those have routes, chosen by the \
        first MATCH (of the path; conditions on headers are in -o yaml). Routes of a listener itself have no name.";

/// Show the routes of one proxy.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
        meltemi proxy-config route frontend-v1-0                    all of them\n  \
        meltemi pc route shop-gateway-0 --name http.8080            one route configuration\n  \
        meltemi pc route frontend-v1-0 --name 9080 -o json | jq '.[0].virtualHosts[].domains'\n\n\
        Exit code: 0 when there are some and all are in force, 1 when nothing matches or one is refused,\n\
        2 when the proxy cannot be asked.")]
pub struct RouteArgs {
    /// Which proxy.
    #[command(flatten)]
    pub source: SourceArgs,

    /// Only the route configuration of this name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

pub(super) fn run(args: &RouteArgs) -> anyhow::Result<Outcome> {
    let sections = sections(&args.source)?;
    outcome(&routes(&sections, args.name.as_deref()), args.output)
}

/// The route configurations of this name, or all.
pub(super) fn routes(sections: &Sections, name: Option<&str>) -> View {
    let resources = sections.resources(&ROUTES);
    let is_asked = |config: &Value| name.is_none_or(|name| text(config, &["name"]) == name);
    let mut found: Vec<Value> = resources.active.into_iter().filter(is_asked).collect();
    // Numbers by their value, before names.
    found.sort_by_cached_key(|config| {
        let name = text(config, &["name"]).to_owned();
        (name.parse::<u32>().unwrap_or(u32::MAX), name)
    });
    let titles = ["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"];
    let shown = table(titles, found.iter().flat_map(rows));
    View { what: "route", from: sections.from.clone(), table: shown, found, trouble: resources.trouble }
}

fn rows(config: &Value) -> Vec<[String; 5]> {
    let hosts = list(config, &["virtual_hosts"]).iter();
    let rows = hosts.flat_map(|host| {
        let row = |matched: String, by: String| {
            let name = text(config, &["name"]).to_owned();
            [name, text(host, &["name"]).to_owned(), domains(list(host, &["domains"])), matched, by]
        };
        let routes = list(host, &["routes"]);
        let shown = routes.iter().filter(|route| text(route, &["route", "cluster"]) != "PassthroughCluster");
        let mut rows: Vec<_> = shown.map(|route| row(describe(&route["match"]), managed_by(route))).collect();
        if routes.is_empty() {
            rows.push(row("/*".to_owned(), "404".to_owned()));
        }
        rows
    });
    rows.collect()
}

/// The match of the path, as istioctl writes it.
pub(super) fn describe(matched: &Value) -> String {
    let of = |path: &[&str], write: fn(&str) -> String| match text(matched, path) {
        "" => None,
        found => Some(write(found)),
    };
    let parts = [
        of(&["prefix"], |prefix| format!("{prefix}*")),
        of(&["path_separated_prefix"], |prefix| format!("PathPrefix:{prefix}")),
        of(&["path"], str::to_owned),
        of(&["safe_regex", "regex"], |regex| format!("regex {regex}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Without those with a port, and without longer names of the same service.
fn domains(domains: &[Value]) -> String {
    let all: Vec<&str> = domains.iter().filter_map(Value::as_str).collect();
    if let [only] = all.as_slice() {
        return (*only).to_owned();
    }
    let is_with_port = |domain: &str| domain.contains(':') && !domain.ends_with(']');
    let is_longer = |domain: &str| {
        [".svc.cluster.local", ".svc"]
            .iter()
            .any(|end| domain.strip_suffix(end).is_some_and(|short| all.contains(&short)))
    };
    let shown: Vec<&str> = all.iter().copied().filter(|d| !is_with_port(d) && !is_longer(d)).collect();
    match shown.split_at_checked(MAX_DOMAINS) {
        Some((first, rest)) if !rest.is_empty() => format!("{} + {} more...", first.join(", "), rest.len()),
        _ => shown.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::sections;
    use super::*;

    #[test]
    fn every_route_is_a_line() {
        let config = |name: &str, routes: Value| {
            let domains = json!([
                "reviews",
                "reviews:9080",
                "reviews.default",
                "reviews.default.svc",
                "reviews.default.svc.cluster.local",
                "10.1.2.3"
            ]);
            json!({"route_config": {"name": name, "virtual_hosts": [
                {"name": "reviews:9080", "domains": domains, "routes": routes}]}})
        };
        let routes = json!([
            {"match": {"path": "/ratings"}, "metadata": {"filter_metadata": {"istio": {
                "config": "/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews"}}}},
            {"match": {"prefix": "/"}},
            {"match": {"prefix": "/"}, "route": {"cluster": "PassthroughCluster"}},
        ]);
        let dump = sections(json!([{
            "@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump",
            "dynamic_route_configs": [config("http.8080", json!([])), config("9080", routes), config("80", json!([]))],
        }]));
        let view = routes_view(&dump, None);
        assert_eq!(
            view,
            [
                "NAME VHOST NAME DOMAINS MATCH VIRTUAL SERVICE",
                "80 reviews:9080 reviews, reviews.default + 1 more... /* 404",
                "9080 reviews:9080 reviews, reviews.default + 1 more... /ratings reviews.default",
                "9080 reviews:9080 reviews, reviews.default + 1 more... /* -",
                "http.8080 reviews:9080 reviews, reviews.default + 1 more... /* 404",
            ]
        );
        assert_eq!(routes_view(&dump, Some("9080")).len(), 3);
        assert_eq!(routes_view(&dump, Some("908")).len(), 1);
    }

    fn routes_view(dump: &Sections, name: Option<&str>) -> Vec<String> {
        let view = routes(dump, name);
        view.table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn a_match_is_described() {
        assert_eq!(describe(&json!({"path_separated_prefix": "/a"})), "PathPrefix:/a");
        assert_eq!(describe(&json!({"safe_regex": {"regex": "/a.*"}})), "regex /a.*");
    }
}
