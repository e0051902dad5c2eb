//! `meltemi get`: the objects that a running control plane has in force, as `kubectl get` lists them. Leaves out files: what
//! is in those, and not in force, `meltemi validate` tells.

use std::process::ExitCode;

use anyhow::{anyhow, ensure};
use clap::Args;
use meltemi_api::Kind;
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, MeshArgs};
use crate::output::{Format, Outcome, conclude, print, table};

/// Short names of kinds, as `kubectl` and `istioctl` have them.
const SHORT: [(&str, &str); 17] = [
    ("vs", "VirtualService"),
    ("dr", "DestinationRule"),
    ("gw", "Gateway"),
    ("se", "ServiceEntry"),
    ("we", "WorkloadEntry"),
    ("wg", "WorkloadGroup"),
    ("sc", "Sidecar"),
    ("ef", "EnvoyFilter"),
    ("pc", "ProxyConfig"),
    ("pa", "PeerAuthentication"),
    ("ra", "RequestAuthentication"),
    ("ap", "AuthorizationPolicy"),
    ("svc", "Service"),
    ("deploy", "Deployment"),
    ("sa", "ServiceAccount"),
    ("ns", "Namespace"),
    ("cm", "ConfigMap"),
];

/// The word for objects of every kind.
const ALL: &str = "all";

/// Show the objects that a running mesh has in force.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "Show the objects that a running mesh has in force.\n\n\
        Those are the last good versions: an edit with an error is not among them, and while an earlier generation is \
        served (`meltemi rollback`) they are its. Of Secrets the names are shown, of Deployments all but the environment.",
    after_help = "Examples:\n  \
        meltemi get vs                          the VirtualServices of all namespaces\n  \
        meltemi get vs reviews -n shop -o yaml  one in full\n  \
        meltemi get vs,dr,gw                    several kinds\n  \
        meltemi get all -n shop                 everything in a namespace\n\n\
        Exit code: 0 when there are some, 1 when there are none, 2 when there is no such kind or the control plane\n\
        cannot be asked."
)]
pub struct GetArgs {
    /// The kind: its name, its plural or short name (vs, dr, gw, se, we, wg, sc, ef, pa, svc, …), several with commas, or all
    #[arg(value_name = "KIND")]
    pub kind: String,

    /// Only the object of this name
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Only objects of this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,

    /// Which control plane.
    #[command(flatten)]
    pub mesh: MeshArgs,
}

/// Shows objects. What cannot be told is exit code 2 with a message.
pub fn get(args: &GetArgs) -> ExitCode {
    conclude(run(args))
}

fn run(args: &GetArgs) -> anyhow::Result<Outcome> {
    let kinds = kinds(&args.kind)?;
    let page = ControlPlane::find(&args.mesh)?.get("/debug/objectz")?;
    let is_asked = |entry: &&Value| {
        let metadata = &entry["object"]["metadata"];
        let is = |asked: &Option<String>, has: &Value| asked.as_deref().is_none_or(|asked| has == asked);
        kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|kind| entry["object"]["kind"] == kind.as_str()))
            && is(&args.namespace, &metadata["namespace"])
            && is(&args.name, &metadata["name"])
    };
    let found: Vec<&Value> = page.as_array().into_iter().flatten().filter(is_asked).collect();
    let objects: Vec<&Value> = found.iter().map(|entry| &entry["object"]).collect();
    let value = match (objects.as_slice(), &args.name) {
        ([only], Some(_)) => (*only).clone(),
        _ => json!({ "apiVersion": "v1", "kind": "List", "items": objects }),
    };
    print(args.output, &value, || list(&found))?;
    Ok(if found.is_empty() { Outcome::Finding } else { Outcome::Fine })
}

/// The kinds of a list of names; `None` for all.
fn kinds(names: &str) -> anyhow::Result<Option<Vec<Kind>>> {
    if names.eq_ignore_ascii_case(ALL) {
        return Ok(None);
    }
    let known = || Kind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
    let kind =
        |name| kind(name).ok_or_else(|| anyhow!("there is no kind `{name}`; there are {}, and all", known()));
    let kinds: Vec<Kind> =
        names.split(',').filter(|name| !name.is_empty()).map(kind).collect::<Result<_, _>>()?;
    ensure!(!kinds.is_empty(), "say which kind: {}, or all", known());
    Ok(Some(kinds))
}

/// A kind by its name, its plural, or its short name.
fn kind(name: &str) -> Option<Kind> {
    let name = name.to_ascii_lowercase();
    let short = SHORT.iter().find(|(short, _)| *short == name).map(|(_, kind)| kind.to_ascii_lowercase());
    let wanted = short.unwrap_or(name);
    let is_it = |kind: &Kind| {
        let singular = kind.as_str().to_ascii_lowercase();
        let plural = match singular.strip_suffix('y') {
            Some(stem) if !stem.ends_with('a') => format!("{stem}ies"),
            _ if singular.ends_with('s') => format!("{singular}es"),
            _ => format!("{singular}s"),
        };
        wanted == singular || wanted == plural
    };
    Kind::ALL.iter().copied().find(is_it)
}

fn list(found: &[&Value]) -> String {
    if found.is_empty() {
        return "there is no such object in force\n".to_owned();
    }
    let rows = found.iter().map(|entry| {
        let (object, origin) = (&entry["object"], &entry["origin"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let file = origin["file"].as_str().unwrap_or_default();
        let file = file.rsplit('/').next().unwrap_or(file);
        [
            text(&object["kind"]),
            text(&object["metadata"]["namespace"]),
            text(&object["metadata"]["name"]),
            about(object),
            format!("{file}:{}", origin["line"]),
        ]
    });
    table(["KIND", "NAMESPACE", "NAME", "ABOUT", "WRITTEN AT"], rows)
}

/// What an object is about, in the words of its own fields.
fn about(object: &Value) -> String {
    let spec = &object["spec"];
    let words = |value: &Value| -> String {
        let all = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        all.collect::<Vec<_>>().join(",")
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match object["kind"].as_str().unwrap_or_default() {
        "VirtualService" | "ServiceEntry" => words(&spec["hosts"]),
        "DestinationRule" => text(&spec["host"]),
        "WorkloadEntry" => text(&spec["address"]),
        "PeerAuthentication" => text(&spec["mtls"]["mode"]),
        "Gateway" => ports(&spec["servers"], "/port/number"),
        "Service" => ports(&spec["ports"], "/port"),
        _ => String::new(),
    }
}

fn ports(list: &Value, path: &str) -> String {
    let numbers = list.as_array().into_iter().flatten().filter_map(|each| each.pointer(path));
    numbers.map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_many_names() {
        for name in ["vs", "VirtualService", "virtualservice", "virtualservices", "VS"] {
            assert_eq!(kind(name), Some(Kind::VirtualService), "{name}");
        }
        assert_eq!(kind("serviceentries"), Some(Kind::ServiceEntry));
        assert_eq!(kind("gateways"), Some(Kind::Gateway));
        assert_eq!(kind("svc"), Some(Kind::Service));
        assert_eq!(kinds("vs,dr").unwrap(), Some(vec![Kind::VirtualService, Kind::DestinationRule]));
        assert_eq!(kinds("all").unwrap(), None);
        let refusal = kinds("pods-of-whales").unwrap_err().to_string();
        assert!(refusal.contains("VirtualService, DestinationRule"), "{refusal}");
    }

    #[test]
    fn objects_are_listed_with_what_they_are_about_and_where_they_stand() {
        let entry = json!({"origin": {"file": "/shop/traffic.yaml", "line": 12}, "object": {"kind": "VirtualService",
            "metadata": {"namespace": "shop", "name": "cart"}, "spec": {"hosts": ["cart", "cart.example"]}}});
        let told = list(&[&entry]);
        let line: Vec<&str> = told.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(line, ["VirtualService", "shop", "cart", "cart,cart.example", "traffic.yaml:12"]);
        assert_eq!(list(&[]), "there is no such object in force\n");
    }
}
