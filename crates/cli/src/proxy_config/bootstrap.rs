//! `meltemi proxy-config bootstrap`: what a proxy was started with, and as whom it asks for the rest.

use clap::Args;
use serde_json::{Value, json};

use super::dump::{address, camel_case, text};
use super::{Sections, SourceArgs, sections};
use crate::output::{Format, Outcome, print, table};

/// What `--help` says first.
pub(super) const ABOUT: &str = "Show what one proxy was started with.\n\n\
        The table has what matters to the mesh: the node as which it asks for configuration, and where it listens \
        for you. -o json and -o yaml have the whole bootstrap.";

/// Show what one proxy was started with.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
        meltemi proxy-config bootstrap frontend-v1-0\n  \
        meltemi pc bootstrap --admin 10.0.0.7:15000 -o json | jq .bootstrap.node\n\n\
        Exit code: 0 when it is shown, 2 when the proxy cannot be asked.")]
pub struct BootstrapArgs {
    /// Which proxy.
    #[command(flatten)]
    pub source: SourceArgs,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

pub(super) fn run(args: &BootstrapArgs) -> anyhow::Result<Outcome> {
    let sections = sections(&args.source)?;
    print(args.output, &bootstrap(&sections), || facts(&sections))?;
    Ok(Outcome::Fine)
}

/// The whole bootstrap, as istioctl prints it.
pub(super) fn bootstrap(sections: &Sections) -> Value {
    let section = sections.section("BootstrapConfigDump");
    json!({ "bootstrap": camel_case(section.get("bootstrap").cloned().unwrap_or_default()) })
}

fn facts(sections: &Sections) -> String {
    let section = sections.section("BootstrapConfigDump");
    let bootstrap = section.get("bootstrap").unwrap_or(&Value::Null);
    let node = &bootstrap["node"];
    let (host, port) = address(&bootstrap["admin"]["address"]);
    let admin = port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
    let labels = node["metadata"]["LABELS"].as_object().map(|labels| {
        let pairs =
            labels.iter().map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
        pairs.collect::<Vec<_>>().join(",")
    });
    let of_node = |path: &[&str]| text(node, path).to_owned();
    let rows = [
        ["node", &of_node(&["id"])],
        ["cluster", &of_node(&["cluster"])],
        ["version", &of_node(&["metadata", "ISTIO_VERSION"])],
        ["namespace", &of_node(&["metadata", "NAMESPACE"])],
        ["service account", &of_node(&["metadata", "SERVICE_ACCOUNT"])],
        ["labels", &labels.unwrap_or_default()],
        ["interception", &of_node(&["metadata", "INTERCEPTION_MODE"])],
        ["xDS", text(bootstrap, &["dynamic_resources", "ads_config", "api_type"])],
        ["admin", &admin],
    ];
    table(["FACT", "VALUE"], rows.map(|row| row.map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::sections;
    use super::*;

    #[test]
    fn the_table_says_who_asks_and_where_it_is() {
        let dump = sections(json!([{
            "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
            "bootstrap": {
                "node": {"id": "sidecar~10.0.0.1~web-0.shop~x", "metadata": {"NAMESPACE": "shop", "LABELS": {"app": "web"}}},
                "admin": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 15000}}},
                "dynamic_resources": {"ads_config": {"api_type": "DELTA_GRPC"}},
            },
        }]));
        let told = facts(&dump);
        for part in ["sidecar~10.0.0.1~web-0.shop~x", "app=web", "10.0.0.1:15000", "DELTA_GRPC"] {
            assert!(told.contains(part), "{told}");
        }
        assert_eq!(bootstrap(&dump)["bootstrap"]["dynamicResources"]["adsConfig"]["apiType"], "DELTA_GRPC");
    }
}
