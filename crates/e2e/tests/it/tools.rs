//! The commands that look at a running mesh, on the shop: once with our own proxies, once with stock Envoys.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use meltemi_e2e::mesh::Mesh;
use meltemi_e2e::peers;
use meltemi_e2e::process::until;
use serde_json::Value;

/// Far longer than it takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// The folder of state of the only mesh below its home.
fn state_dir(mesh: &Mesh) -> String {
    let home = mesh.dir.parent().expect("a folder").join("state/meltemi");
    let entry = std::fs::read_dir(home).expect("it is there").next().expect("one mesh").expect("readable");
    entry.path().display().to_string()
}

/// Runs a command on the mesh; its exit code and what it printed.
fn run(mesh: &Mesh, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(peers::meltemi());
    let output = command.args(arguments).env("MELTEMI_STATE_DIR", state_dir(mesh)).output().expect("it runs");
    let told = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&told).into_owned())
}

fn json(mesh: &Mesh, arguments: &[&str]) -> Value {
    let (code, text) = run(mesh, &[arguments, &["-o", "json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {code:?} {text}"))
}

/// Everything is in sync a moment after the shop serves.
async fn in_sync(mesh: &Mesh) -> String {
    let synced = until("all proxies are in sync", DEADLINE, async || {
        let (code, told) = run(mesh, &["proxy-status"]);
        (code == Some(0)).then_some(told)
    });
    synced.await.unwrap_or_else(|error| panic!("{error}\n{}", run(mesh, &["proxy-status"]).1))
}

fn lines(told: &str, of: &[&str]) -> bool {
    told.lines().any(|line| of.iter().all(|part| line.contains(part)))
}

/// What is the same on both kinds of proxy.
async fn check(mesh: &Mesh) {
    let told = in_sync(mesh).await;
    assert!(lines(&told, &["NAME", "CLUSTER", "CDS", "LDS", "EDS", "RDS"]), "{told}");
    assert!(lines(&told, &["frontend-v1-0.default", "SYNCED"]), "{told}");
    let (code, told) = run(mesh, &["ps", "frontend-v1-0"]);
    assert!(code == Some(0) && told.contains("has what the control plane has"), "{code:?} {told}");

    let (code, told) = run(mesh, &["pc", "listener", "frontend-v1-0", "--port", "15002"]);
    assert!(code == Some(0) && lines(&told, &["15002", "ALL", "Route: http_proxy"]), "{code:?} {told}");
    let (code, told) = run(mesh, &["pc", "route", "frontend-v1-0", "--name", "http_proxy"]);
    assert!(code == Some(0) && lines(&told, &["http_proxy", "recommendation"]), "{code:?} {told}");
    let fqdn =
        ["pc", "cluster", "frontend-v1-0", "--fqdn", "recommendation.default", "--direction", "outbound"];
    let (code, told) = run(mesh, &fqdn);
    assert_eq!((code, told.lines().count()), (Some(0), 5), "the service and three subsets: {told}");
    let clusters = json(mesh, &[&fqdn[..], &["--subset", "v3"]].concat());
    assert_eq!(
        clusters[0]["name"], "outbound|8080|v3|recommendation.default.svc.cluster.local",
        "{clusters}"
    );
    assert_eq!(clusters[0]["edsClusterConfig"]["edsConfig"]["resourceApiVersion"], "V3", "{clusters}");
    let name = clusters[0]["name"].as_str().expect("a name").to_owned();
    let (code, told) = run(mesh, &["pc", "endpoint", "frontend-v1-0", "--cluster", &name]);
    assert!(
        code == Some(0)
            && lines(&told, &["ENDPOINT", "OUTLIER CHECK"])
            && lines(&told, &["127.", "OK", "|v3|"]),
        "{told}"
    );
    let (code, told) = run(mesh, &["pc", "bootstrap", "frontend-v1-0"]);
    assert!(code == Some(0) && lines(&told, &["node", "~frontend-v1-0.default~"]), "{told}");
    let (code, told) = run(mesh, &["pc", "log", "frontend-v1-0", "--level", "debug"]);
    assert!(code == Some(0) && lines(&told, &["LOGGER", "LEVEL"]) && lines(&told, &["debug"]), "{told}");
    let all = json(mesh, &["pc", "all", "frontend-v1-0"]);
    for part in ["clusters", "listeners", "routes", "endpoints"] {
        assert!(all[part].as_array().is_some_and(|list| list.len() > 1), "{part} of {all}");
    }
    assert_eq!(run(mesh, &["pc", "cluster", "frontend-v1-0", "--fqdn", "nobody"]).0, Some(1));
    let (code, told) = run(mesh, &["pc", "cluster", "nobody-0"]);
    assert!(code == Some(2) && told.contains("frontend-v1-0"), "{told}");
}

/// A copy of the folder in which an edit is made.
fn edited(mesh: &Mesh, to: &Path, from: &str, into: &str) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(&mesh.dir).expect("readable") {
        let path = entry.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        let name = path.file_name().expect("a name");
        let text = if name == "traffic.yaml" { text.replacen(from, into, 1) } else { text };
        std::fs::write(to.join(name), text).expect("written");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_running_shop_is_looked_at() {
    let mesh = Mesh::shop(&[]).await.expect("the shop is up");
    check(&mesh).await;
    let (code, told) = run(&mesh, &["get", "vs"]);
    assert!(
        code == Some(0) && lines(&told, &["VirtualService", "default", "recommendation", "traffic.yaml:"]),
        "{told}"
    );
    let object = json(&mesh, &["get", "virtualservices", "recommendation"]);
    assert_eq!(
        (object["kind"].as_str(), object["metadata"]["name"].as_str()),
        (Some("VirtualService"), Some("recommendation"))
    );
    assert_eq!(run(&mesh, &["get", "vs", "nobody"]).0, Some(1));
    assert_eq!(run(&mesh, &["get", "whales"]).0, Some(2));
    let (code, told) = run(&mesh, &["describe", "recommendation"]);
    assert!(
        lines(&told, &["subset v3", "1 endpoint"]) && lines(&told, &["routes calls of it"]),
        "{code:?} {told}"
    );
    let (_, told) = run(&mesh, &["describe", "workload/recommendation-v1"]);
    assert!(lines(&told, &["lets in PERMISSIVE"]) && lines(&told, &["service recommendation."]), "{told}");

    let folder = mesh.dir.display().to_string();
    let (code, told) = run(&mesh, &["diff", &folder]);
    assert!(code == Some(0) && told.starts_with("nothing changes for "), "{code:?} {told}");
    let other = mesh.dir.with_file_name("other");
    edited(&mesh, &other, "exact: jason", "exact: maria");
    let other = other.display().to_string();
    for arguments in [&["diff", &other][..], &["diff", &folder, &other]] {
        let (code, told) = run(&mesh, arguments);
        assert!(
            code == Some(1) && told.contains("maria") && told.contains("nothing else changes"),
            "{code:?} {told}"
        );
        assert!(lines(&told, &["end-user: maria", "v3"]), "{told}");
    }
    let (code, told) = run(&mesh, &["diff", &other, &format!("{folder}/none")]);
    assert!(code == Some(2) && told.contains("cannot be read"), "{code:?} {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_on_envoy_is_looked_at() {
    let Some(envoy) = peers::envoy() else { return };
    let mesh = Mesh::shop(&["--proxy", &envoy.display().to_string()]).await.expect("the shop is up");
    check(&mesh).await;
}

#[test]
fn a_control_plane_that_is_not_there_is_told_with_the_next_step() {
    let address = format!("127.0.0.1:{}", meltemi_e2e::backend::free_port().expect("a port"));
    for command in
        [&["rollback"][..], &["get", "vs"], &["proxy-status"], &["describe", "reviews"], &["diff", "."]]
    {
        let mut words = command.to_vec();
        words.extend(["--control-plane", &address]);
        let output = Command::new(peers::meltemi()).args(words).output().expect("it runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {told}");
        assert!(told.contains("--control-plane HOST:PORT"), "{command:?}: {told}");
    }
}
