//! MeshConfig over real sockets: its trust domain is in certificates, what may change while the mesh runs does, and what may
//! not is told.

use meltemi_envoy::config::cluster::v3::Cluster;

use super::identity::{CART, World, certificate};
use super::*;

fn config_map(mesh: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    {mesh}\n"
    )
}

#[tokio::test]
async fn certificates_say_the_trust_domain_of_mesh_config() {
    let said = config_map("{trustDomain: example.com, trustDomainAliases: [cluster.local]}");
    let world = World::start_with(&format!("{SERVICE}{said}"), &[]).await;
    let agent = world.agent("cart", "spiffe://example.com/ns/default/sa/cart");
    assert_eq!(certificate(&agent, None).await.id.as_str(), "spiffe://example.com/ns/default/sa/cart");
    // Who comes by a former name gets the present one.
    let former = world.agent("former", CART);
    assert_eq!(certificate(&former, None).await.id.as_str(), "spiffe://example.com/ns/default/sa/cart");
    world.running.stop().await;
}

#[tokio::test]
async fn a_trust_domain_that_is_not_in_force_is_told() {
    let flags = ["--trust-domain", "flag.example"];
    let said = |domain: &str| format!("{SERVICE}{}", config_map(&format!("trustDomain: {domain}")));
    let mut world = World::start_with(&said("example.com"), &flags).await;
    let told = world.running.prints("MEL0222").await;
    assert!(told.contains("`flag.example`, not with `example.com`"), "{told}");
    let id = "spiffe://flag.example/ns/default/sa/cart";
    assert_eq!(certificate(&world.agent("cart", id), None).await.id.as_str(), id);
    world.save(&said("flag.example"));
    world.running.prints("resolved: ").await;

    // The same without a flag: what was read at the start counts.
    let mut world = World::start_with(&said("example.com"), &[]).await;
    world.save(&said("other.example"));
    let told = world.running.prints("MEL0222").await;
    assert!(told.contains("`example.com`, not with `other.example`"), "{told}");
    let id = "spiffe://example.com/ns/default/sa/cart";
    assert_eq!(certificate(&world.agent("cart", id), None).await.id.as_str(), id);
}

#[tokio::test]
async fn a_policy_for_the_whole_mesh_changes_while_it_runs() {
    let directory = shop();
    let control_plane = Running::start(directory.path(), &[]).await;
    let mut proxy = Proxy::start(control_plane.xds, NODE, Mode::Delta).await;
    assert!(!is_upgraded(&clusters(&mut proxy).await));
    let mesh = directory.path().join("istio.yaml");
    std::fs::write(&mesh, config_map("h2UpgradePolicy: UPGRADE")).expect("write");
    assert!(is_upgraded(&clusters(&mut proxy).await));
    std::fs::remove_file(&mesh).expect("removed");
    assert!(!is_upgraded(&clusters(&mut proxy).await));
    control_plane.stop().await;
}

/// The next update of clusters that has the one of `reviews`.
async fn clusters(proxy: &mut Proxy) -> Cluster {
    loop {
        let update = proxy.update().await;
        proxy.ack(&update).await;
        let found =
            update.changed.iter().find(|resource| resource.name.starts_with("outbound|9080||reviews."));
        if let Some(resource) = found {
            return resource.body.unpack().expect("a cluster");
        }
    }
}

/// Plain HTTP/1 needs no options.
fn is_upgraded(cluster: &Cluster) -> bool {
    !cluster.typed_extension_protocol_options.is_empty()
}
