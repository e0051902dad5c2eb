//! `meltemi proxy-status`: which proxies are connected and whether they have taken what they were sent; of one proxy,
//! whether what it has is what the control plane has for it.
//!
//! Source of words: `istioctl proxy-status` and istiod's `/debug/syncz`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::{Map, Value, json};

use crate::control_plane::{ControlPlane, MeshArgs};
use crate::output::{Format, Outcome, conclude, print, table};
use crate::proxy_config::{Resource, SourceArgs, dynamic};

/// Kinds of configuration: the title, istiod's name, and whether a proxy always asks for it.
const TYPES: [(&str, &str); 5] = [
    ("CDS", "cluster"),
    ("LDS", "listener"),
    ("EDS", "endpoint"),
    ("RDS", "route"),
    ("ECDS", "extensionconfig"),
];

/// Show whether proxies have what the control plane sent.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Show whether proxies have what the control plane sent.\n\n\
        SYNCED: it has taken the last update. STALE: it has not answered yet. ERROR: it has refused it, and keeps what it \
        had. NOT SENT: there was nothing to send. IGNORED: it does not ask for this type. With the name of a proxy, what \
        it has is compared resource by resource with what the control plane has for it.",
    after_help = "Examples:\n  \
        meltemi proxy-status                       all connected proxies\n  \
        meltemi ps frontend-v1-0                   one of a running `meltemi up`, resource by resource\n  \
        meltemi ps web-0.shop --admin 10.0.0.7     one that runs elsewhere\n\n\
        Exit code: 0 when all is in sync, 1 when something is stale or refused, or nobody is connected,\n\
        2 when the control plane or the proxy cannot be asked."
)]
pub struct ProxyStatusArgs {
    /// Compare this proxy with the control plane
    #[arg(value_name = "PROXY")]
    pub proxy: Option<String>,

    /// The proxy's admin interface, where it is not one of `meltemi up`
    #[arg(long, value_name = "HOST:PORT", requires = "proxy")]
    pub admin: Option<String>,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,

    /// Which control plane.
    #[command(flatten)]
    pub mesh: MeshArgs,
}

/// Shows proxies, or compares one. What cannot be told is exit code 2 with a message.
pub fn proxy_status(args: &ProxyStatusArgs) -> ExitCode {
    conclude(match &args.proxy {
        Some(proxy) => compare(proxy, args),
        None => all(args),
    })
}

fn all(args: &ProxyStatusArgs) -> anyhow::Result<Outcome> {
    let page = ControlPlane::find(&args.mesh)?.get("/debug/syncz")?;
    let mut proxies: Vec<&Value> = page.as_array().into_iter().flatten().collect();
    proxies.sort_by_key(|proxy| proxy["proxy"].as_str().unwrap_or_default());
    let is_fine = !proxies.is_empty()
        && proxies.iter().all(|proxy| {
            TYPES.iter().all(|(_, name)| !matches!(status(proxy, name), Status::Stale | Status::Error))
        });
    let value: Vec<Value> = proxies.iter().map(|proxy| with_status(proxy)).collect();
    print(args.output, &json!(value), || list(&proxies))?;
    Ok(if is_fine { Outcome::Fine } else { Outcome::Finding })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Synced,
    Stale,
    Error,
    NotSent,
    Ignored,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Status::Synced => "SYNCED",
            Status::Stale => "STALE",
            Status::Error => "ERROR",
            Status::NotSent => "NOT SENT",
            Status::Ignored => "IGNORED",
        }
    }
}

fn status(proxy: &Value, name: &str) -> Status {
    let of = |suffix: &str| proxy.get(format!("{name}_{suffix}")).and_then(Value::as_str);
    let (sent, acked) = (of("sent"), of("acked").unwrap_or_default());
    match sent {
        _ if proxy["errors"].get(name).is_some() => Status::Error,
        None => Status::Ignored,
        Some("") => Status::NotSent,
        Some(sent) if sent == acked => Status::Synced,
        Some(_) => Status::Stale,
    }
}

fn with_status(proxy: &Value) -> Value {
    let words: Map<String, Value> = TYPES
        .iter()
        .map(|(title, name)| ((*title).to_ascii_lowercase(), json!(status(proxy, name).as_str())))
        .collect();
    let mut whole = proxy.clone();
    whole["status"] = Value::Object(words);
    whole
}

fn list(proxies: &[&Value]) -> String {
    if proxies.is_empty() {
        return "no proxy is connected\n".to_owned();
    }
    let rows = proxies.iter().map(|proxy| {
        let text = |name: &str| proxy[name].as_str().unwrap_or_default().to_owned();
        let [cds, lds, eds, rds, ecds] = TYPES.map(|(_, name)| status(proxy, name).as_str().to_owned());
        let version =
            [text("istio_version"), text("proxy_version")].into_iter().find(|text| !text.is_empty());
        let mode = text("mode");
        [text("proxy"), text("cluster_id"), cds, lds, eds, rds, ecds, version.unwrap_or_default(), mode]
    });
    let titles = ["NAME", "CLUSTER", "CDS", "LDS", "EDS", "RDS", "ECDS", "VERSION", "MODE"];
    let mut told = table(titles, rows);
    for proxy in proxies {
        for (name, error) in proxy["errors"].as_object().into_iter().flatten() {
            let who = proxy["proxy"].as_str().unwrap_or_default();
            told += &format!("\n{who} refuses its {name}s: {}\n", error.as_str().unwrap_or_default());
        }
    }
    told
}

/// What one side has of a kind and the other not, or otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Deviation {
    kind: &'static str,
    name: String,
    what: &'static str,
}

fn compare(proxy: &str, args: &ProxyStatusArgs) -> anyhow::Result<Outcome> {
    let control_plane = ControlPlane::find(&args.mesh)?;
    let id = if proxy.contains('.') || proxy.contains('~') {
        proxy.to_owned()
    } else {
        format!("{proxy}.default")
    };
    let served = control_plane
        .get(&format!("/debug/config_dump?proxyID={id}"))
        .context("`meltemi proxy-status` lists the proxies that are connected")?;
    let source = SourceArgs {
        proxy: args.admin.is_none().then(|| proxy.to_owned()),
        admin: args.admin.clone(),
        file: None,
        state_dir: args.mesh.state_dir.clone(),
    };
    let has = dynamic(&source)?;
    let found = deviations(&crate::proxy_config::dynamic_of("the control plane", &served)?, &has);
    let value = json!({ "proxy": id, "isInSync": found.is_empty(), "deviations": found.iter().map(|each| {
        json!({ "type": each.kind, "name": each.name, "what": each.what })
    }).collect::<Vec<_>>() });
    print(args.output, &value, || match found.is_empty() {
        true => format!("{id} has what the control plane has for it: {} resources\n", has.len()),
        false => {
            let rows =
                found.iter().map(|each| [each.kind.to_owned(), each.name.clone(), each.what.to_owned()]);
            table(["TYPE", "NAME", "WHAT"], rows)
        }
    })?;
    Ok(if found.is_empty() { Outcome::Fine } else { Outcome::Finding })
}

fn deviations(served: &[Resource], has: &[Resource]) -> Vec<Deviation> {
    let by_name = |list: &[Resource]| -> BTreeMap<(&'static str, String), Value> {
        list.iter().map(|each| ((each.kind, each.name.clone()), comparable(each))).collect()
    };
    let (served, has) = (by_name(served), by_name(has));
    let deviation =
        |(kind, name): &(&'static str, String), what| Deviation { kind, name: name.clone(), what };
    let mut found = Vec::new();
    for (key, wanted) in &served {
        match has.get(key) {
            // A proxy asks only for the routes and endpoints that it needs.
            None if key.0 == "route" || key.0 == "endpoint" => {}
            None => found.push(deviation(key, "the proxy does not have it")),
            Some(body) if body != wanted => found.push(deviation(key, "the proxy has another version")),
            Some(_) => {}
        }
    }
    // A proxy tells of the endpoints of static clusters and of those that need none, too.
    let surplus = has.keys().filter(|key| key.0 != "endpoint" && !served.contains_key(*key));
    found.extend(surplus.map(|key| deviation(key, "the control plane does not have it")));
    found
}

/// What both sides should have alike. An Envoy tells of endpoints as it sees them, with the rest filled in, so only
/// addresses are compared.
fn comparable(resource: &Resource) -> Value {
    if resource.kind != "endpoint" {
        return resource.body.clone();
    }
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let localities = list(&resource.body, "endpoints").into_iter();
    let endpoints = localities.flat_map(|locality| list(&locality, "lb_endpoints"));
    let mut addresses: Vec<String> =
        endpoints.map(|endpoint| endpoint["endpoint"]["address"].to_string()).collect();
    addresses.sort();
    json!(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy() -> Value {
        json!({"proxy": "web-0.shop", "cluster_id": "Kubernetes", "proxy_version": "envoy", "mode": "delta",
            "cluster_sent": "a", "cluster_acked": "a", "listener_sent": "b", "listener_acked": "a",
            "route_sent": "c", "route_acked": "", "endpoint_sent": "", "errors": {"route": "no such cluster"}})
    }

    #[test]
    fn what_was_sent_and_taken_has_a_word() {
        let words: Vec<&str> = TYPES.iter().map(|(_, name)| status(&proxy(), name).as_str()).collect();
        assert_eq!(words, ["SYNCED", "STALE", "NOT SENT", "ERROR", "IGNORED"]);
        let told = list(&[&proxy()]);
        assert!(told.contains("web-0.shop refuses its routes: no such cluster"), "{told}");
        assert_eq!(with_status(&proxy())["status"]["lds"], "STALE");
    }

    #[test]
    fn deviations_are_found_both_ways() {
        let resource = |kind, name: &str, body: u64| Resource { kind, name: name.into(), body: json!(body) };
        let served = [resource("cluster", "a", 1), resource("cluster", "b", 1), resource("route", "r", 1)];
        let has = [resource("cluster", "a", 2), resource("listener", "l", 1)];
        let found: Vec<_> =
            deviations(&served, &has).into_iter().map(|each| (each.name, each.what)).collect();
        assert_eq!(
            found,
            [
                ("a".to_owned(), "the proxy has another version"),
                ("b".to_owned(), "the proxy does not have it"),
                ("l".to_owned(), "the control plane does not have it"),
            ]
        );
        assert!(deviations(&served, &served).is_empty());
    }
}
