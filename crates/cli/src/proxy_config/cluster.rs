//! `meltemi proxy-config cluster`. Source of columns, filters and order: `istioctl proxy-config cluster`.

use clap::Args;
use serde_json::Value;

use super::dump::{CLUSTERS, cluster_order, managed_by, subset_key, text};
use super::{SourceArgs, View, outcome, sections};
use crate::output::{Format, Outcome, table};

/// What `--help` says first.
pub(super) const ABOUT: &str = "Show the clusters of one proxy: the destinations that it knows.\n\n\
        A cluster `outbound|PORT|SUBSET|HOST` is shown by its parts; others (PassthroughCluster, those of the bootstrap) \
        by their name. DESTINATION RULE is the object that shapes it, where the control plane says so.";

/// Show the clusters of one proxy.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
        meltemi proxy-config cluster frontend-v1-0                                all of them\n  \
        meltemi pc cluster frontend-v1-0 --fqdn reviews --direction outbound\n  \
        meltemi pc cluster --admin 10.0.0.7:15000 --port 9080 -o yaml             a stock Envoy\n\n\
        Exit code: 0 when there are some and all are in force, 1 when nothing matches or one is refused or waits,\n\
        2 when the proxy cannot be asked.")]
pub struct ClusterArgs {
    /// Which proxy.
    #[command(flatten)]
    pub source: SourceArgs,

    /// Only those.
    #[command(flatten)]
    pub filter: ClusterFilter,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Which clusters.
#[derive(Args, Clone, Debug, Default)]
pub struct ClusterFilter {
    /// Only clusters whose name has this in it: a host or a part of one
    #[arg(long, value_name = "HOST")]
    pub fqdn: Option<String>,

    /// Only clusters of this port of a service
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,

    /// Only clusters of this subset
    #[arg(long, value_name = "NAME")]
    pub subset: Option<String>,

    /// Only clusters of this direction
    #[arg(long, value_name = "DIRECTION", value_parser = ["inbound", "outbound"])]
    pub direction: Option<String>,
}

impl ClusterFilter {
    fn takes(&self, cluster: &Value) -> bool {
        let name = text(cluster, &["name"]);
        let has = |part: &Option<String>| part.as_ref().is_none_or(|part| name.contains(part.as_str()));
        has(&self.fqdn)
            && has(&self.direction)
            && has(&self.subset)
            && self.port.is_none_or(|port| name.contains(&format!("|{port}|")))
    }
}

pub(super) fn run(args: &ClusterArgs) -> anyhow::Result<Outcome> {
    let sections = sections(&args.source)?;
    outcome(&clusters(&sections, &args.filter), args.output)
}

/// The clusters that the filter takes.
pub(super) fn clusters(sections: &super::Sections, filter: &ClusterFilter) -> View {
    let resources = sections.resources(&CLUSTERS);
    let mut found: Vec<Value> =
        resources.active.into_iter().filter(|cluster| filter.takes(cluster)).collect();
    found.sort_by_cached_key(|cluster| cluster_order(text(cluster, &["name"])));
    let titles = ["SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"];
    let shown = table(titles, found.iter().map(row));
    View { what: "cluster", from: sections.from.clone(), table: shown, found, trouble: resources.trouble }
}

fn row(cluster: &Value) -> [String; 6] {
    let name = text(cluster, &["name"]);
    let (direction, subset, host, port) = subset_key(name).unwrap_or(("", "", name, 0));
    let port = if port == 0 { String::new() } else { port.to_string() };
    [host.into(), port, subset.into(), direction.into(), kind(cluster), managed_by(cluster)]
}

/// The JSON of protobuf leaves out the first value of an enumeration.
fn kind(cluster: &Value) -> String {
    let custom = text(cluster, &["cluster_type", "name"]);
    let named = cluster["type"].as_str().unwrap_or(if custom.is_empty() { "STATIC" } else { custom });
    named.to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::sections;
    use super::*;

    fn shown(filter: &ClusterFilter) -> Vec<String> {
        let cluster = |name: &str, kind: &str| json!({"cluster": {"name": name, "type": kind}});
        let dump = sections(json!([{
            "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
            "static_clusters": [{"cluster": {"name": "prometheus_stats"}}],
            "dynamic_active_clusters": [
                cluster("outbound|9080|v2|reviews.default.svc.cluster.local", "EDS"),
                cluster("outbound|9080||reviews.default.svc.cluster.local", "EDS"),
                cluster("inbound|8080||", "ORIGINAL_DST"),
            ],
        }]));
        let view = clusters(&dump, filter);
        view.table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn clusters_are_shown_by_the_parts_of_their_names() {
        let lines = shown(&ClusterFilter::default());
        assert_eq!(
            lines,
            [
                "SERVICE FQDN PORT SUBSET DIRECTION TYPE DESTINATION RULE",
                "- 8080 - inbound ORIGINAL_DST -",
                "prometheus_stats - - - STATIC -",
                "reviews.default.svc.cluster.local 9080 - outbound EDS -",
                "reviews.default.svc.cluster.local 9080 v2 outbound EDS -",
            ]
        );
    }

    #[test]
    fn filters_narrow_the_list() {
        let some = |text: &str| Some(text.to_owned());
        let with = |change: fn(&mut ClusterFilter, Option<String>), value| {
            let mut filter = ClusterFilter::default();
            change(&mut filter, value);
            shown(&filter).len() - 1
        };
        assert_eq!(with(|filter, value| filter.fqdn = value, some("reviews")), 2);
        assert_eq!(with(|filter, value| filter.subset = value, some("v2")), 1);
        assert_eq!(with(|filter, value| filter.direction = value, some("inbound")), 1);
        assert_eq!(shown(&ClusterFilter { port: Some(8080), ..ClusterFilter::default() }).len(), 2);
        assert_eq!(shown(&ClusterFilter { port: Some(80), ..ClusterFilter::default() }).len(), 1);
    }
}
