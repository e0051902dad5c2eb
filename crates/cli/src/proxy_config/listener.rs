//! `meltemi proxy-config listener`. Source of columns, filters, order and words: `istioctl proxy-config listener`.

use clap::Args;
use serde_json::Value;

use super::dump::{LISTENERS, address, list, text};
use super::route::describe;
use super::{Sections, SourceArgs, View, outcome, sections};
use crate::output::{Format, Outcome, table};

/// What `--help` says first.
pub(super) const ABOUT: &str = "Show the listeners of one proxy: where it takes connections, and what becomes of them.\n\n\
        Each filter chain is a line: MATCH is what a connection must be for it, DESTINATION where its requests are \
        looked up (Route) or where it goes (Cluster).";

const HTTP: &str = "envoy.filters.network.http_connection_manager";
const TCP: &str = "envoy.filters.network.tcp_proxy";
const BLACK_HOLE: &str = "BlackHoleCluster";

/// Sets of application protocols that have a name.
const PROTOCOLS: [(&str, &[&str]); 4] = [
    ("App: HTTP TLS", &["http/1.0", "http/1.1", "h2c", "istio-http/1.0", "istio-http/1.1", "istio-h2"]),
    ("App: Istio HTTP Plain", &["istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"]),
    ("App: TCP TLS", &["istio-peer-exchange", "istio"]),
    ("App: HTTP", &["http/1.0", "http/1.1", "h2c"]),
];

/// Show the listeners of one proxy.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
        meltemi proxy-config listener frontend-v1-0\n  \
        meltemi pc listener frontend-v1-0 --port 9080 -o yaml       one in full\n  \
        meltemi pc listener --admin 10.0.0.7:15000 --type HTTP      a stock Envoy\n\n\
        Exit code: 0 when there are some and all are in force, 1 when nothing matches or one is refused or waits,\n\
        2 when the proxy cannot be asked.")]
pub struct ListenerArgs {
    /// Which proxy.
    #[command(flatten)]
    pub source: SourceArgs,

    /// Only those.
    #[command(flatten)]
    pub filter: ListenerFilter,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Which listeners.
#[derive(Args, Clone, Debug, Default)]
pub struct ListenerFilter {
    /// Only listeners on this address
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,

    /// Only listeners on this port
    #[arg(long, value_name = "PORT")]
    pub port: Option<u64>,

    /// Only listeners of this type: HTTP, TCP, HTTP+TCP
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
}

impl ListenerFilter {
    fn takes(&self, listener: &Value) -> bool {
        self.address
            .as_ref()
            .is_none_or(|asked| addresses(listener).iter().any(|has| has.eq_ignore_ascii_case(asked)))
            && self.port.is_none_or(|port| Some(port) == address(&listener["address"]).1)
            && self.kind.as_ref().is_none_or(|kind| kind.eq_ignore_ascii_case(kind_of(listener)))
    }
}

pub(super) fn run(args: &ListenerArgs) -> anyhow::Result<Outcome> {
    let sections = sections(&args.source)?;
    outcome(&listeners(&sections, &args.filter), args.output)
}

/// The listeners that the filter takes.
pub(super) fn listeners(sections: &Sections, filter: &ListenerFilter) -> View {
    let resources = sections.resources(&LISTENERS);
    let mut found: Vec<Value> =
        resources.active.into_iter().filter(|listener| filter.takes(listener)).collect();
    found.sort_by_cached_key(|listener| {
        let (address, port) = address(&listener["address"]);
        (port.unwrap_or(0), address, kind_of(listener))
    });
    let shown = table(["ADDRESSES", "PORT", "MATCH", "DESTINATION"], found.iter().flat_map(rows));
    View { what: "listener", from: sections.from.clone(), table: shown, found, trouble: resources.trouble }
}

fn addresses(listener: &Value) -> Vec<String> {
    let additional = list(listener, &["additional_addresses"]).iter().map(|other| &other["address"]);
    std::iter::once(&listener["address"]).chain(additional).map(|value| address(value).0).collect()
}

fn chains(listener: &Value) -> Vec<&Value> {
    let default = listener.get("default_filter_chain");
    list(listener, &["filter_chains"]).iter().chain(default).collect()
}

fn rows(listener: &Value) -> Vec<[String; 4]> {
    let (addresses, port) = (addresses(listener).join(","), address(&listener["address"]).1);
    let port = port.map(|port| port.to_string()).unwrap_or_default();
    let mut chains: Vec<(String, String)> = chains(listener)
        .into_iter()
        .map(|chain| (matched(&chain["filter_chain_match"]), destination(chain)))
        .collect();
    chains.sort_by(|(_, one), (_, other)| other.cmp(one));
    chains.into_iter().map(|(matched, to)| [addresses.clone(), port.clone(), matched, to]).collect()
}

fn kind_of(listener: &Value) -> &'static str {
    let filters = chains(listener).into_iter().flat_map(|chain| list(chain, &["filters"]));
    let (mut has_http, mut has_tcp) = (false, false);
    for filter in filters {
        has_http |= text(filter, &["name"]) == HTTP;
        let is_black_hole = text(filter, &["typed_config", "cluster"]) == BLACK_HOLE;
        has_tcp |= text(filter, &["name"]) == TCP && !is_black_hole;
    }
    match (has_http, has_tcp) {
        (true, true) => "HTTP+TCP",
        (true, false) => "HTTP",
        (false, true) => "TCP",
        (false, false) => "UNKNOWN",
    }
}

/// What a connection must be for a chain.
fn matched(chain: &Value) -> String {
    let words = |field: &str| list(chain, &[field]).iter().filter_map(Value::as_str).collect::<Vec<_>>();
    let mut parts = Vec::new();
    let (names, protocols) = (words("server_names"), words("application_protocols"));
    if !names.is_empty() {
        parts.push(format!("SNI: {}", names.join(",")));
    }
    match text(chain, &["transport_protocol"]) {
        "" => {}
        transport => parts.push(format!("Trans: {transport}")),
    }
    if !protocols.is_empty() {
        let named = PROTOCOLS.iter().find(|(_, set)| *set == protocols.as_slice());
        parts.push(
            named.map_or_else(|| format!("App: {}", protocols.join(",")), |(name, _)| (*name).to_owned()),
        );
    }
    let port = chain["destination_port"].as_u64().map(|port| format!(":{port}"));
    let ranges: Vec<String> = list(chain, &["prefix_ranges"])
        .iter()
        .map(|range| {
            format!("{}/{}", text(range, &["address_prefix"]), range["prefix_len"].as_u64().unwrap_or(0))
        })
        .collect();
    match (ranges.is_empty(), port) {
        (false, port) => parts.push(format!("Addr: {}{}", ranges.join(","), port.unwrap_or_default())),
        (true, Some(port)) => parts.push(format!("Addr: *{port}")),
        (true, None) => {}
    }
    if parts.is_empty() { "ALL".to_owned() } else { parts.join("; ") }
}

/// Where the requests or bytes of a chain go.
fn destination(chain: &Value) -> String {
    for filter in list(chain, &["filters"]) {
        let config = &filter["typed_config"];
        match text(filter, &["name"]) {
            HTTP if config.get("route_config").is_some() => return inline(&config["route_config"]),
            HTTP => {
                return match text(config, &["rds", "route_config_name"]) {
                    "" => "HTTP".to_owned(),
                    name => format!("Route: {name}"),
                };
            }
            TCP if text(config, &["cluster"]) != BLACK_HOLE => return cluster(text(config, &["cluster"])),
            _ => {}
        }
    }
    "Non-HTTP/Non-TCP".to_owned()
}

/// Names of Istio's own clusters speak for themselves.
fn cluster(name: &str) -> String {
    if name.contains("Cluster") { name.to_owned() } else { format!("Cluster: {name}") }
}

/// Routes that stand in the listener.
fn inline(config: &Value) -> String {
    let hosts = list(config, &["virtual_hosts"]);
    if let [host] = hosts
        && let [route] = list(host, &["routes"])
        && list(host, &["domains"]) == ["*"]
        && text(route, &["match", "prefix"]) == "/"
        && let Some(to) = route["route"]["cluster"].as_str()
    {
        return cluster(to);
    }
    let described = hosts.iter().map(|host| {
        let routes = list(host, &["routes"]).iter().map(|route| describe(&route["match"]));
        let routes = routes.collect::<Vec<_>>().join(", ");
        let domains: Vec<&str> = list(host, &["domains"]).iter().filter_map(Value::as_str).collect();
        if domains == ["*"] { routes } else { format!("{} {routes}", domains.join("/")) }
    });
    format!("Inline Route: {}", described.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::sections;
    use super::*;

    fn listener(address: &str, port: u16, chains: &Value) -> Value {
        json!({"active_state": {"listener": {
            "name": format!("{address}_{port}"),
            "address": {"socket_address": {"address": address, "port_value": port}},
            "filter_chains": chains,
        }}})
    }

    fn http(config: &Value) -> Value {
        json!({"filters": [{"name": HTTP, "typed_config": config}]})
    }

    fn shown(filter: &ListenerFilter) -> Vec<String> {
        let routed = http(&json!({"rds": {"route_config_name": "9080"}}));
        let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "inbound|8080||"}});
        let inline =
            http(&json!({"route_config": {"virtual_hosts": [{"domains": ["*"], "routes": [route]}]}}));
        let mut inbound = inline;
        inbound["filter_chain_match"] = json!({"transport_protocol": "tls", "destination_port": 8080,
            "application_protocols": ["istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"]});
        let tcp = json!({"filter_chain_match": {"server_names": ["db.example"],
            "prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]},
            "filters": [{"name": TCP, "typed_config": {"cluster": "outbound|5432||db.example"}}]});
        let dump = sections(json!([{
            "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
            "dynamic_listeners": [
                listener("0.0.0.0", 9080, &json!([routed])),
                listener("0.0.0.0", 5432, &json!([tcp])),
                listener("10.0.0.2", 8080, &json!([inbound])),
            ],
        }]));
        let view = listeners(&dump, filter);
        view.table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn every_chain_is_a_line_by_port() {
        assert_eq!(
            shown(&ListenerFilter::default()),
            [
                "ADDRESSES PORT MATCH DESTINATION",
                "0.0.0.0 5432 SNI: db.example; Addr: 10.0.0.0/8 Cluster: outbound|5432||db.example",
                "10.0.0.2 8080 Trans: tls; App: Istio HTTP Plain; Addr: *:8080 Cluster: inbound|8080||",
                "0.0.0.0 9080 ALL Route: 9080",
            ]
        );
    }

    #[test]
    fn filters_narrow_the_list() {
        assert_eq!(shown(&ListenerFilter { port: Some(9080), ..ListenerFilter::default() }).len(), 2);
        assert_eq!(shown(&ListenerFilter { kind: Some("tcp".into()), ..ListenerFilter::default() }).len(), 2);
        assert_eq!(
            shown(&ListenerFilter { address: Some("0.0.0.0".into()), ..ListenerFilter::default() }).len(),
            3
        );
    }
}
