//! `meltemi proxy-config endpoint`: of a proxy, what it says of its hosts now (`/clusters`); of a dump, what it was sent.
//! Source of columns, filters and order: `istioctl proxy-config endpoint`.

use clap::Args;
use serde_json::{Map, Value};

use super::dump::{ENDPOINTS, Sections, address, cluster_order, list, text};
use super::source::{self, Dump};
use super::{SourceArgs, View, outcome};
use crate::output::{Format, Outcome, table};

/// What `--help` says first.
pub(super) const ABOUT: &str = "Show the endpoints of one proxy: the addresses behind its clusters.\n\n\
        STATUS is what the control plane and active health checks say, OUTLIER CHECK whether the proxy has ejected the \
        host itself. A dump from a file has only what the proxy was sent, with the locality instead.";

/// Show the endpoints of one proxy.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
        meltemi proxy-config endpoint frontend-v1-0\n  \
        meltemi pc endpoint frontend-v1-0 --cluster 'outbound|9080|v1|reviews.default.svc.cluster.local'\n  \
        meltemi pc endpoint --admin 10.0.0.7:15000 --status UNHEALTHY\n  \
        curl -s 'ADDRESS:15000/config_dump?include_eds' | meltemi pc endpoint -f -\n\n\
        Exit code: 0 when there are some, 1 when nothing matches, 2 when the proxy cannot be asked.")]
pub struct EndpointArgs {
    /// Which proxy.
    #[command(flatten)]
    pub source: SourceArgs,

    /// Only those.
    #[command(flatten)]
    pub filter: EndpointFilter,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Which endpoints.
#[derive(Args, Clone, Debug, Default)]
pub struct EndpointFilter {
    /// Only endpoints of this address
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,

    /// Only endpoints of this port
    #[arg(long, value_name = "PORT")]
    pub port: Option<u64>,

    /// Only endpoints of the cluster of this name
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,

    /// Only endpoints of this status: HEALTHY, UNHEALTHY, DRAINING, DEGRADED, TIMEOUT, UNKNOWN
    #[arg(long, value_name = "STATUS")]
    pub status: Option<String>,
}

/// One endpoint.
struct Host<'v> {
    address: String,
    port: Option<u64>,
    cluster: &'v str,
    status: &'v str,
}

impl EndpointFilter {
    fn takes(&self, host: &Host<'_>) -> bool {
        let is = |asked: &Option<String>, has: &str| {
            asked.as_ref().is_none_or(|asked| asked.eq_ignore_ascii_case(has))
        };
        is(&self.address, &host.address)
            && is(&self.cluster, host.cluster)
            && is(&self.status, host.status)
            && self.port.is_none_or(|port| Some(port) == host.port)
    }
}

impl Host<'_> {
    fn shown(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.address),
            None => self.address.clone(),
        }
    }
}

pub(super) fn run(args: &EndpointArgs) -> anyhow::Result<Outcome> {
    let told = match &args.source.file {
        Some(_) => source::dump(&args.source)?,
        None => source::page(&args.source, "/clusters?format=json")?,
    };
    outcome(&endpoints(&told, &args.filter)?, args.output)
}

/// The endpoints of a dump, or of what `/clusters?format=json` says.
///
/// # Errors
/// If it is neither.
pub(super) fn endpoints(told: &Dump, filter: &EndpointFilter) -> anyhow::Result<View> {
    if let Ok(whole) = serde_json::from_slice::<Value>(&told.text)
        && whole.get("configs").is_none()
        && (whole.get("cluster_statuses").is_some() || whole.as_object().is_some_and(Map::is_empty))
    {
        return Ok(now(&told.from, &whole, filter));
    }
    Ok(sent(&Sections::read(told)?, filter))
}

/// What a proxy says of its hosts.
fn now(from: &str, clusters: &Value, filter: &EndpointFilter) -> View {
    let (mut rows, mut found) = (Vec::new(), Vec::new());
    for cluster in list(clusters, &["cluster_statuses"]) {
        let before = rows.len();
        for status in list(cluster, &["host_statuses"]) {
            let (address, port) = address(&status["address"]);
            let health = &status["health_status"];
            let host = Host { address, port, cluster: text(cluster, &["name"]), status: eds_status(health) };
            if filter.takes(&host) {
                let outlier = if health["failed_outlier_check"] == true { "FAILED" } else { "OK" };
                let key = (host.address.clone(), host.port, host.cluster.to_owned());
                rows.push((key, [host.shown(), host.status.into(), outlier.into(), host.cluster.into()]));
            }
        }
        if rows.len() > before {
            found.push(cluster.clone());
        }
    }
    rows.sort();
    let shown =
        table(["ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"], rows.into_iter().map(|(_, row)| row));
    View { what: "endpoint", from: from.to_owned(), table: shown, found, trouble: Vec::new() }
}

/// The JSON of protobuf leaves out the first value of an enumeration.
fn eds_status(health: &Value) -> &str {
    health["eds_health_status"].as_str().unwrap_or("UNKNOWN")
}

/// What a proxy was sent.
fn sent(sections: &Sections, filter: &EndpointFilter) -> View {
    let resources = sections.resources(&ENDPOINTS);
    let mut assignments = resources.active;
    assignments.sort_by_cached_key(|assignment| cluster_order(text(assignment, &["cluster_name"])));
    let (mut rows, mut found) = (Vec::new(), Vec::new());
    for assignment in assignments {
        let before = rows.len();
        for locality in list(&assignment, &["endpoints"]) {
            for endpoint in list(locality, &["lb_endpoints"]) {
                let (address, port) = address(&endpoint["endpoint"]["address"]);
                let status = endpoint["health_status"].as_str().unwrap_or("UNKNOWN");
                let host = Host { address, port, cluster: text(&assignment, &["cluster_name"]), status };
                if filter.takes(&host) {
                    rows.push([host.shown(), status.into(), locality_of(locality), host.cluster.into()]);
                }
            }
        }
        if rows.len() > before {
            found.push(assignment);
        }
    }
    let shown = table(["NAME", "STATUS", "LOCALITY", "CLUSTER"], rows);
    View { what: "endpoint", from: sections.from.clone(), table: shown, found, trouble: resources.trouble }
}

/// `region/zone/subzone`.
fn locality_of(endpoints: &Value) -> String {
    let parts = ["region", "zone", "sub_zone"].map(|part| text(&endpoints["locality"], &[part]));
    parts.into_iter().take_while(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(told: &Value, filter: &EndpointFilter) -> Vec<String> {
        let dump = Dump { from: "web-0".into(), text: told.to_string().into_bytes() };
        let view = endpoints(&dump, filter).unwrap();
        view.table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn hosts_are_shown_as_the_proxy_sees_them_now() {
        let host = |address: &str, health: Value| json!({"address": {"socket_address": {"address": address, "port_value": 8080}}, "health_status": health});
        let told = json!({"cluster_statuses": [{"name": "outbound|80||a.default", "host_statuses": [
            host("10.0.0.2", json!({"eds_health_status": "HEALTHY", "failed_outlier_check": true})),
            host("10.0.0.1", json!({})),
        ]}, {"name": "sds-grpc", "host_statuses": [{"address": {"pipe": {"path": "/run/sds"}}}]}]});
        assert_eq!(
            lines(&told, &EndpointFilter::default()),
            [
                "ENDPOINT STATUS OUTLIER CHECK CLUSTER",
                "10.0.0.1:8080 UNKNOWN OK outbound|80||a.default",
                "10.0.0.2:8080 HEALTHY FAILED outbound|80||a.default",
                "unix:///run/sds UNKNOWN OK sds-grpc",
            ]
        );
        let healthy = EndpointFilter { status: Some("healthy".into()), ..EndpointFilter::default() };
        assert_eq!(lines(&told, &healthy).len(), 2);
        let port = EndpointFilter { port: Some(80), ..EndpointFilter::default() };
        assert_eq!(lines(&told, &port).len(), 1);
    }

    #[test]
    fn a_dump_has_what_was_sent() {
        let told = json!({"configs": [{
            "@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump",
            "dynamic_endpoint_configs": [{"endpoint_config": {"cluster_name": "outbound|80||a.default", "endpoints": [{
                "locality": {"region": "eu", "zone": "1"},
                "lb_endpoints": [{"health_status": "DRAINING", "endpoint": {"address": {
                    "socket_address": {"address": "10.0.0.1", "port_value": 80}}}}],
            }]}}],
        }]});
        assert_eq!(
            lines(&told, &EndpointFilter::default()),
            ["NAME STATUS LOCALITY CLUSTER", "10.0.0.1:80 DRAINING eu/1 outbound|80||a.default",]
        );
    }
}
