//! Waiting for secrets, rotation, and files that change.

use std::path::Path;

use meltemi_envoy::json::Codec;
use meltemi_xds::Mode;
use meltemi_xds::client::Update;

use super::*;

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

/// A certificate and its key as PEM.
fn pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn listener(sds: &str) -> Resource {
    let text = format!(
        "{{name: l, address: {{socket_address: {{address: 127.0.0.1, port_value: 80}}}}, filter_chains: [{{transport_socket: \
         {{name: tls, typed_config: {{'@type': {TLS}.DownstreamTlsContext, common_tls_context: \
         {{tls_certificate_sds_secret_configs: [{{name: cert{sds}}}]}}}}}}, filters: [{{name: d, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config}}}}]}}]}}"
    );
    let message: meltemi_envoy::config::listener::v3::Listener = Codec::new().parse(&text).unwrap();
    Resource::new("l", Any::pack(&message))
}

/// A cluster of discovered hosts. Each way to a context names secrets of its own.
fn cluster(sds: &str) -> Resource {
    let tls = |common: String| {
        format!(
            "{{name: tls, typed_config: {{'@type': {TLS}.UpstreamTlsContext, common_tls_context: {{{common}}}}}}}"
        )
    };
    let own = tls(format!("tls_certificate_sds_secret_configs: [{{name: cert{sds}}}]"));
    let of_match = tls(format!("validation_context_sds_secret_config: {{name: trust{sds}}}"));
    let behind = tls(format!(
        "combined_validation_context: {{default_validation_context: {{}}, validation_context_sds_secret_config: {{name: inner{sds}}}}}"
    ));
    let text = format!(
        "{{name: c, type: EDS, eds_cluster_config: {{eds_config: {{ads: {{}}, initial_fetch_timeout: 5s}}}}, transport_socket: {own}, \
         transport_socket_matches: [{{name: a, match: {{a: b}}, transport_socket: {of_match}}}, {{name: b, transport_socket: {{name: p, \
         typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport, \
         transport_socket: {behind}}}}}}}]}}"
    );
    let message: meltemi_envoy::config::cluster::v3::Cluster = Codec::new().parse(&text).unwrap();
    Resource::new("c", Any::pack(&message))
}

fn hosts() -> Resource {
    let message: meltemi_envoy::config::endpoint::v3::ClusterLoadAssignment =
        Codec::new().parse("{cluster_name: c}").unwrap();
    Resource::new("c", Any::pack(&message))
}

/// Roots of that name.
fn roots(name: &str) -> Resource {
    let message =
        serde_json::json!({"name": name, "validation_context": {"trusted_ca": {"inline_string": pair().0}}});
    let message: proto::Secret = Codec::new().from_json(&message).unwrap();
    Resource::new(name, Any::pack(&message))
}

fn secret(chain: serde_json::Value, key: serde_json::Value) -> Resource {
    let certificate = serde_json::json!({"certificate_chain": chain, "private_key": key});
    let message = serde_json::json!({"name": "cert", "tls_certificate": certificate});
    let message: proto::Secret = Codec::new().from_json(&message).unwrap();
    Resource::new("cert", Any::pack(&message))
}

fn inline((chain, key): &(String, String)) -> Resource {
    secret(serde_json::json!({ "inline_string": chain }), serde_json::json!({ "inline_string": key }))
}

/// A store whose slots are looked into.
struct World {
    store: Store,
    slots: Arc<Secrets>,
    now: Instant,
}

impl World {
    fn new() -> World {
        let mut world = World { store: Store::default(), slots: Arc::default(), now: Instant::now() };
        world.store.secrets.share(Arc::clone(&world.slots));
        world
    }

    fn update(&mut self, type_url: &str, resource: Resource) -> Vec<String> {
        let update = Update {
            type_url: type_url.to_owned(),
            changed: vec![resource],
            removed: Vec::new(),
            full: false,
            version: "1".to_owned(),
            mode: Mode::Sotw,
            control_plane: String::new(),
            nonce: String::new(),
        };
        let refused = self.store.apply(&update, &Origin::Ads, self.now, &mut |_| Ok(()));
        self.store.settle(self.now);
        refused.iter().map(ToString::to_string).collect()
    }

    fn serves(&self) -> bool {
        self.store.program().listeners.contains_key("l")
    }

    fn calls(&self) -> bool {
        self.store.program().clusters.contains_key("c")
    }

    fn wait(&mut self, seconds: u64) {
        self.now += std::time::Duration::from_secs(seconds);
        self.store.settle(self.now);
    }

    fn shown(&self) -> Option<Arc<Secret>> {
        let secret =
            SecretRef { name: "cert".into(), origin: Some(Origin::Ads), initial_fetch_timeout: None };
        self.slots.slot(&secret).load_full()
    }
}

#[test]
fn a_listener_waits_for_its_certificate_and_rotation_does_not_touch_it() {
    let mut world = World::new();
    assert!(world.update(type_url::LISTENER, listener(", sds_config: {ads: {}}")).is_empty());
    assert!(!world.serves());
    assert_eq!(world.store.missing_secrets().collect::<Vec<_>>(), ["cert".into()]);
    world.update(type_url::SECRET, inline(&pair()));
    assert!(world.serves());
    let first = world.shown().unwrap();
    world.store.dirty = false;
    world.update(type_url::SECRET, inline(&pair()));
    assert!(!Arc::ptr_eq(&first, &world.shown().unwrap()));
    assert!(!world.store.dirty, "workers get no new program");
}

#[test]
fn a_listener_serves_without_its_certificate_when_that_is_late_or_refused() {
    let mut world = World::new();
    world.update(type_url::LISTENER, listener(", sds_config: {ads: {}, initial_fetch_timeout: 2s}"));
    world.now += std::time::Duration::from_secs(2);
    world.store.settle(world.now);
    assert!(world.serves() && world.shown().is_none());

    let mut world = World::new();
    world.update(type_url::LISTENER, listener(", sds_config: {ads: {}, initial_fetch_timeout: 0s}"));
    let ((chain, _), (_, other)) = (pair(), pair());
    let refused = world.update(type_url::SECRET, inline(&(chain, other)));
    assert!(refused[0].starts_with("cert: tls_certificate.private_key"), "{refused:?}");
    assert!(world.serves() && world.shown().is_none());
}

#[test]
fn a_secret_of_the_bootstrap_must_be_in_it() {
    let mut world = World::new();
    let refused = world.update(type_url::LISTENER, listener(""));
    assert_eq!(refused, ["l: transport_socket: Unknown static secret: cert"]);
    let refused = world.update(type_url::CLUSTER, cluster(""));
    assert_eq!(refused, ["c: transport_socket: Unknown static secret: cert"]);
    let message: proto::Secret = inline(&pair()).body.unpack().unwrap();
    assert_eq!(world.store.load_static_secrets(&[message]), []);
    assert!(world.update(type_url::LISTENER, listener("")).is_empty());
    assert!(world.serves());
}

#[test]
fn a_cluster_waits_for_its_hosts_and_for_the_secrets_of_all_its_sockets() {
    let mut world = World::new();
    assert!(world.update(type_url::CLUSTER, cluster(", sds_config: {ads: {}}")).is_empty());
    let mut missing: Vec<_> = world.store.missing_secrets().collect();
    missing.sort();
    assert_eq!(missing, ["cert".into(), "inner".into(), "trust".into()]);
    world.update(type_url::SECRET, inline(&pair()));
    world.update(type_url::SECRET, roots("trust"));
    world.update(type_url::ENDPOINT, hosts());
    assert!(!world.calls());
    world.update(type_url::SECRET, roots("inner"));
    assert!(world.calls());

    let mut world = World::new();
    world.update(type_url::CLUSTER, cluster(", sds_config: {ads: {}}"));
    world.update(type_url::SECRET, inline(&pair()));
    world.update(type_url::SECRET, roots("trust"));
    world.update(type_url::SECRET, roots("inner"));
    assert!(!world.calls(), "there are no hosts");
    world.wait(5);
    assert!(world.calls(), "hosts are late");
}

#[test]
fn a_cluster_is_used_without_its_secrets_when_they_are_late() {
    let mut world = World::new();
    world.update(type_url::CLUSTER, cluster(", sds_config: {ads: {}, initial_fetch_timeout: 8s}"));
    world.wait(5);
    assert!(!world.calls(), "only the hosts are late");
    assert_eq!(world.store.next_deadline(world.now), Some(world.now + std::time::Duration::from_secs(3)));
    world.wait(3);
    assert!(world.calls() && world.shown().is_none());

    let mut world = World::new();
    world.update(type_url::CLUSTER, cluster(", sds_config: {ads: {}, initial_fetch_timeout: 0s}"));
    world.update(type_url::ENDPOINT, hosts());
    world.wait(1_000_000);
    assert!(!world.calls(), "it waits for ever");
}

#[test]
fn a_cluster_keeps_its_secrets_as_long_as_it_is_there() {
    let mut world = World::new();
    world.update(type_url::CLUSTER, cluster(", sds_config: {ads: {}}"));
    world.update(type_url::SECRET, inline(&pair()));
    assert!(world.shown().is_some());
    let update = Update {
        type_url: type_url::CLUSTER.to_owned(),
        changed: Vec::new(),
        removed: vec!["c".to_owned()],
        full: false,
        version: "2".to_owned(),
        mode: Mode::Sotw,
        control_plane: String::new(),
        nonce: String::new(),
    };
    world.store.apply(&update, &Origin::Ads, world.now, &mut |_| Ok(()));
    world.store.settle(world.now);
    assert!(world.shown().is_none());
    assert_eq!(world.store.missing_secrets().count(), 0);
}

#[test]
fn files_of_a_secret_are_read_again_and_only_taken_together() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let named = |path: &Path| serde_json::json!({ "filename": path });
    let (old, new) = (pair(), pair());
    write("chain", &old.0);
    write("key", &old.1);
    let mut world = World::new();
    world.update(type_url::LISTENER, listener(", sds_config: {ads: {}}"));
    world.update(type_url::SECRET, secret(named(&dir.path().join("chain")), named(&dir.path().join("key"))));
    let files = world.store.data_files();
    let (key, _) = files.first().unwrap();
    assert_eq!(files.len(), 2);
    let first = world.shown().unwrap();

    write("chain", &new.0);
    world.store.read_again(key);
    assert!(Arc::ptr_eq(&first, &world.shown().unwrap()));
    assert_eq!(world.store.subscriptions(type_url::SECRET).next().unwrap().1.unreadable, 1);
    write("key", &new.1);
    world.store.read_again(key);
    assert!(!Arc::ptr_eq(&first, &world.shown().unwrap()));
}
