//! MeshConfig under `meltemi up`: its trust domain is in the identities that are minted, an edit is in force without a
//! restart, and an edit that needs one is told.

use std::net::SocketAddr;

use meltemi_e2e::client;
use meltemi_e2e::mesh::Mesh;
use meltemi_e2e::process::{DEADLINE, until};
use serde_json::Value;

const FILE: &str = "istio.yaml";

fn config_map(mesh: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    {mesh}\n"
    )
}

/// The admin interface of the only sidecar of a workload.
fn admin(mesh: &Mesh, name: &str) -> SocketAddr {
    let members = mesh.members_with(&[" proxy ", &format!("/sa/{name} ")]);
    let member = members.first().unwrap_or_else(|| panic!("no sidecar of {name}: {:?}", mesh.members()));
    let words: Vec<&str> = member.command.split(' ').collect();
    let at = words.iter().position(|word| *word == "-c").expect("a bootstrap");
    let text = std::fs::read_to_string(words[at + 1]).expect("the bootstrap");
    let bootstrap: Value = serde_json::from_str(&text).expect("JSON");
    let address = bootstrap["admin"]["address"]["socket_address"]["address"].as_str().expect("an address");
    SocketAddr::new(address.parse().expect("an address"), 15_000)
}

/// Whether a sidecar speaks HTTP/2 to a service, by its own account.
async fn speaks_http2(admin: SocketAddr, cluster: &str) -> bool {
    let answer = client::get(admin, "admin", "/config_dump").await.expect("a dump");
    let dump: Value = serde_json::from_slice(answer.body()).expect("JSON");
    let sections = dump["configs"].as_array().expect("sections");
    let clusters = sections.iter().filter_map(|section| section["dynamic_active_clusters"].as_array());
    let cluster = clusters
        .flatten()
        .map(|entry| &entry["cluster"])
        .find(|found| found["name"] == cluster)
        .expect("the cluster is there");
    cluster["typed_extension_protocol_options"].to_string().contains("http2_protocol_options")
}

#[tokio::test(flavor = "multi_thread")]
async fn mesh_config_counts_and_may_change() {
    let mesh =
        Mesh::shop_with(&[], &[(FILE, &config_map("trustDomain: shop.example"))]).await.expect("the shop");
    let with_identity = mesh.members_with(&[" proxy ", "--identity=spiffe://"]);
    let of_domain = mesh.members_with(&[" proxy ", "--identity=spiffe://shop.example/ns/default/sa/"]);
    assert!(!of_domain.is_empty() && of_domain.len() == with_identity.len(), "{with_identity:?}");
    let before = mesh.members();

    let frontend = admin(&mesh, "frontend");
    let recommendation = "outbound|8080||recommendation.default.svc.cluster.local";
    assert!(!speaks_http2(frontend, recommendation).await);
    mesh.save(FILE, &config_map("{trustDomain: shop.example, h2UpgradePolicy: UPGRADE}")).expect("saved");
    until("calls travel in HTTP/2", DEADLINE, async || {
        mesh.versions(None).await.expect("the shop answers");
        speaks_http2(frontend, recommendation).await.then_some(())
    })
    .await
    .expect("in time");

    mesh.save(FILE, &config_map("trustDomain: other.example")).expect("saved");
    until("the change of trust domain is told", DEADLINE, async || {
        mesh.up.output().contains("MEL0222").then_some(())
    })
    .await
    .expect("in time");
    mesh.versions(None).await.expect("the shop answers");
    let pids = |members: &[meltemi_e2e::mesh::Member]| {
        let mut pids: Vec<i32> = members.iter().map(|member| member.pid).collect();
        pids.sort_unstable();
        pids
    };
    assert_eq!(pids(&mesh.members()), pids(&before), "nothing was restarted");
}
