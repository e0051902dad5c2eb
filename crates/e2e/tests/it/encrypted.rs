//! What our own sidecars of a running shop say to each other: nobody on the way reads it, who has no certificate is let in
//! as PeerAuthentication says, and a change of that fails no request.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use meltemi_e2e::client;
use meltemi_e2e::mesh::{Mesh, RECOMMENDATION};
use meltemi_e2e::process::{DEADLINE, until};
use meltemi_e2e::sniffer::Sniffer;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const HEADER: &str = "marker-in-the-header";
const BODY: &str = "marker-in-the-body";
/// What the program answers to a body of [`BODY_BYTES`]; nobody else says it.
const RESPONSE: &str = "\"body_bytes\": 7351";
const BODY_BYTES: usize = 7351;
/// What somebody without a sidecar says.
const OPEN: &str = "marker-of-plaintext";

/// One replica: where its sidecar and its program listen.
struct Replica {
    name: String,
    sidecar: SocketAddr,
    program: SocketAddr,
    security: String,
}

fn replicas(running: &Value) -> Vec<Replica> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let address = |row: &Value, key: &str| text(row, key).parse().expect("an address");
    let rows = running["replicas"].as_array().expect("replicas").iter();
    rows.map(|row| Replica {
        name: text(row, "workload"),
        sidecar: address(row, "address"),
        program: address(row, "program"),
        security: text(row, "security"),
    })
    .collect()
}

/// A PeerAuthentication for the namespace of the shop.
fn policy(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: all, namespace: default}}\nspec: \
         {{mtls: {{mode: {mode}}}}}\n"
    )
}

/// The status that a caller without a certificate gets from a sidecar; `None` if it is not let in.
async fn in_plaintext(sidecar: SocketAddr) -> Option<u16> {
    let request = Request::get("/v1/product-info").header("host", "product-info").header("x-marker", OPEN);
    let answer = client::http1(sidecar, request.body(Bytes::new()).expect("a request")).await;
    answer.ok().map(|answer| answer.status().as_u16())
}

/// What the control plane says of every port.
async fn all_calls_are_mutual(running: &Value) {
    let admin = running["control_plane"].as_str().and_then(|url| url.strip_prefix("http://")).expect("a URL");
    let admin: SocketAddr = admin.parse().expect("an address");
    let told = until("all calls are mutual TLS", DEADLINE, async || {
        let page = client::get(admin, "control-plane", "/debug/mtlsz").await.ok()?;
        let ports: Vec<Value> = serde_json::from_slice(page.body()).ok()?;
        let is_mutual = |call: &Value| call["sends"] == "mtls" && call["is_let_in"] == true;
        let calls = |port: &Value| port["calls"].as_array().cloned().unwrap_or_default();
        let all = ports.iter().all(|port| !calls(port).is_empty() && calls(port).iter().all(is_mutual));
        (ports.len() >= 9 && all).then_some(())
    });
    told.await.expect("every replica of the shop is called with mutual TLS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_between_two_sidecars_reads_what_they_say() {
    let mesh = Mesh::shop(&["-o", "json"]).await.expect("the shop is up");
    let running = mesh.running().await.expect("it runs");
    let replicas = replicas(&running);
    // A busy control plane may not have heard of every replica when the table is printed.
    let known = ["mtls", "uncalled"];
    assert!(replicas.iter().all(|replica| known.contains(&replica.security.as_str())), "{running:#}");
    all_calls_are_mutual(&running).await;
    let (sidecars, programs): (Vec<_>, Vec<_>) = replicas
        .iter()
        .filter(|replica| replica.name.starts_with("frontend"))
        .map(|replica| (replica.sidecar, replica.program))
        .unzip();
    let words = [HEADER, BODY, RESPONSE, OPEN];
    let Some(sniffer) = Sniffer::start(&words, &[sidecars.clone(), programs.clone()].concat()).await else {
        return;
    };
    let body = BODY.repeat(BODY_BYTES / BODY.len() + 1)[..BODY_BYTES].to_owned();
    let request = Request::post(RECOMMENDATION)
        .header("host", "localhost")
        .header("x-marker", HEADER)
        .body(body.into());
    let answer = client::http1(mesh.gateway, request.expect("a request")).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    // What the sniffer sees where there is no TLS …
    for word in [HEADER, BODY, RESPONSE] {
        sniffer.sees(word, &programs).await;
    }
    // … and at the sidecars, when somebody comes without.
    for sidecar in &sidecars {
        assert!(in_plaintext(*sidecar).await.is_some(), "PERMISSIVE lets everybody in");
        sniffer.sees(OPEN, &[*sidecar]).await;
    }
    for word in [HEADER, BODY, RESPONSE] {
        for sidecar in &sidecars {
            assert!(!sniffer.has_seen(word, *sidecar), "{word} is in the clear at {sidecar}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_lets_in_the_mesh_alone() {
    let mesh = Mesh::shop(&["-o", "json"]).await.expect("the shop is up");
    let replicas = replicas(&mesh.running().await.expect("it runs"));
    let open = replicas.iter().find(|replica| replica.name == "product-info-v1-0").expect("a replica");
    assert_eq!(in_plaintext(open.sidecar).await, Some(200));
    let load = mesh.load(50, Duration::from_secs(5)).expect("load runs");
    mesh.save("strict.yaml", &policy("STRICT")).expect("saved");
    for replica in &replicas {
        let refused = until("plaintext is refused", DEADLINE, async || {
            in_plaintext(replica.sidecar).await.is_none().then_some(())
        });
        refused.await.unwrap_or_else(|e| panic!("{e}: {}: {}", replica.name, mesh.up.output()));
    }
    let report = load.report().await.expect("a report");
    assert_eq!(report.failed(), 0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_mode_fails_no_request() {
    let mesh = Mesh::shop(&["-o", "json"]).await.expect("the shop is up");
    let replicas = replicas(&mesh.running().await.expect("it runs"));
    let watched = replicas.iter().find(|replica| replica.name == "product-info-v1-0").expect("a replica");
    let load = mesh.load(50, Duration::from_secs(8)).expect("load runs");
    for mode in ["STRICT", "DISABLE", "STRICT", "PERMISSIVE", "DISABLE", "PERMISSIVE"] {
        mesh.save("policy.yaml", &policy(mode)).expect("saved");
        let in_force = until("the mode is in force", DEADLINE, async || {
            (in_plaintext(watched.sidecar).await.is_some() == (mode != "STRICT")).then_some(())
        });
        in_force.await.unwrap_or_else(|e| panic!("{e}: {mode}: {}", mesh.up.output()));
        // The others hear of it a little later.
        mesh.served(20).await.unwrap_or_else(|e| panic!("{e:#}: {mode}"));
    }
    let report = load.report().await.expect("a report");
    assert_eq!(report.failed(), 0, "{report:?}");
}

/// Its certificate is gone with it, and so is the credential that the first one was got with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_is_killed_comes_back_with_a_certificate() {
    let mesh = Mesh::shop(&["-o", "json"]).await.expect("the shop is up");
    mesh.save("strict.yaml", &policy("STRICT")).expect("saved");
    let sidecar =
        || mesh.members_with(&[" proxy ", "product-info-v1-0.json"]).first().map(|member| member.pid);
    let load = mesh.load(50, Duration::from_secs(6)).expect("load runs");
    let first = sidecar().expect("it runs");
    kill_process(Pid::from_raw(first).expect("a pid is positive"), Signal::KILL).expect("it runs");
    let back = until("it is ready again", DEADLINE, async || {
        let output = mesh.up.output();
        let mut after = output.lines().skip_while(|line| !line.contains("\"event\":\"ended\""));
        after.any(|line| line.contains("\"ready\"") && line.contains("product-info-v1-0")).then_some(())
    });
    back.await.unwrap_or_else(|e| panic!("{e}: {}", mesh.up.output()));
    assert_ne!(sidecar(), Some(first));
    let report = load.report().await.expect("a report");
    assert_eq!(report.failed(), 0, "{report:?}");
}
