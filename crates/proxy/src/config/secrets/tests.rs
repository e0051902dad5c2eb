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
    let message: proto::Secret = inline(&pair()).body.unpack().unwrap();
    assert_eq!(world.store.load_static_secrets(&[message]), []);
    assert!(world.update(type_url::LISTENER, listener("")).is_empty());
    assert!(world.serves());
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
