//! The direction of the crate edges: data flows one way, and the planes meet only on the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use meltemi_e2e::peers;

/// Each crate and the crates of the workspace that it may use. A new edge is a decision: see ARCHITECTURE.md.
const ALLOWED: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("envoy", &[]),
    ("http", &[]),
    ("identity", &[]),
    ("runtime", &[]),
    ("snapshot", &["api", "identity"]),
    ("compile", &["envoy", "identity"]),
    ("xds", &["envoy", "runtime"]),
    ("sources", &["api", "runtime"]),
    ("translate", &["api", "snapshot", "identity", "envoy"]),
    ("proxy", &["envoy", "xds", "compile", "http", "identity", "runtime"]),
    ("agent", &["envoy", "xds", "identity", "runtime"]),
    ("traffic", &["http", "runtime"]),
    ("local", &["api", "identity", "runtime", "agent"]),
    ("control", &["api", "envoy", "identity", "runtime", "snapshot", "sources", "translate", "xds"]),
    ("analysis", &["api", "snapshot"]),
    ("explain", &["api", "snapshot", "translate", "compile", "envoy"]),
    ("cli", &["analysis", "api", "explain", "identity", "local", "snapshot", "sources"]),
    ("meltemi", &["agent", "cli", "control", "local", "proxy", "runtime", "traffic"]),
    ("e2e", &["api", "compile", "envoy", "http", "identity", "proxy", "snapshot", "translate", "xds"]),
];

/// Crates that must stay pure: no runtime, no Kubernetes client, no sockets.
const PURE: &[&str] = &["api", "identity", "snapshot", "translate", "compile", "explain", "analysis"];

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(peers::repository())
        .output()
        .expect("cargo runs");
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

fn short(name: &str) -> &str {
    name.strip_prefix("meltemi-").unwrap_or(name)
}

/// Ordinary dependencies by crate; those of tests may look anywhere.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages").iter();
    let edges = packages.map(|package| {
        let all = package["dependencies"].as_array().expect("dependencies").iter();
        let normal = all.filter(|dependency| dependency["kind"].is_null());
        let names = normal.map(|dependency| dependency["name"].as_str().expect("a name").to_owned());
        (short(package["name"].as_str().expect("a name")).to_owned(), names.collect())
    });
    edges.collect()
}

#[test]
fn crates_use_only_what_lies_before_them() {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    for (name, dependencies) in dependencies() {
        let allowed = allowed.get(name.as_str()).unwrap_or_else(|| panic!("{name} is not in the table"));
        let ours = dependencies.iter().filter(|d| d.starts_with("meltemi-")).map(|d| short(d));
        for used in ours {
            assert!(allowed.contains(&used), "{name} may not use {used}");
        }
    }
}

#[test]
fn pure_crates_have_no_runtime() {
    let dependencies = dependencies();
    for name in PURE {
        for banned in ["tokio", "hyper", "tonic", "kube", "socket2", "rustix"] {
            assert!(!dependencies[*name].contains(banned), "{name} must not use {banned}");
        }
    }
}
