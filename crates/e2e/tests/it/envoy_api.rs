//! `docs/envoy-api.md` says what happens to every field of the Envoy API, found out from the code that decides.
//! `UPDATE_GOLDEN=1 cargo test -p meltemi-e2e --test it envoy_api` rewrites it.

use std::path::PathBuf;

use meltemi_compile::Rejection;
use meltemi_compile::coverage::{Unheeded, unheeded};
use meltemi_e2e::envoy_api::{Explorer, Outcome, Root};
use meltemi_envoy::config::bootstrap::v3::Bootstrap;
use meltemi_envoy::config::cluster::v3::Cluster;
use meltemi_envoy::config::endpoint::v3::ClusterLoadAssignment;
use meltemi_envoy::config::listener::v3::Listener;
use meltemi_envoy::config::route::v3::RouteConfiguration;
use meltemi_envoy::json::{Codec, descriptor_pool};
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage};

const HEAD: &str = "\
# The Envoy API, field by field

Generated from the code that decides; `UPDATE_GOLDEN=1 cargo test -p meltemi-e2e --test it envoy_api` rewrites it.
Every field of a message that we read is listed:

- **used**: it has the effect that Envoy's documentation gives it;
- **refused**: a resource that sets it is refused whole, by the field's path;
- **no effect**: it is accepted, because nothing is lost for the reason that is given.

A message that is not listed can only stand in a field that is refused.
";

fn outcome<T>(compile: impl FnOnce() -> Result<T, Vec<Rejection>>) -> Outcome {
    let (result, notes) = unheeded(compile);
    let rejections = result.err().unwrap_or_default();
    Outcome {
        rejections: rejections.into_iter().map(|r| (r.path, r.reason)).collect(),
        unheeded: notes
            .into_iter()
            .map(|Unheeded { field, reason }| (field.to_owned(), reason.to_owned()))
            .collect(),
    }
}

fn decoded<M: Message + Default>(bytes: &[u8]) -> M {
    M::decode(bytes).expect("what was just encoded decodes")
}

fn root<M: Name + Default>(pool: &DescriptorPool, file: &str, check: fn(&[u8]) -> Outcome) -> Root {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/envoy-api").join(file);
    let text = std::fs::read_to_string(&path).expect("the base is there");
    let message: M = Codec::new().parse(&text).expect("the base is valid");
    let descriptor = pool.get_message_by_name(&M::full_name()).expect("a known message");
    let base = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).expect("decodes");
    assert_eq!(check(&base.encode_to_vec()).rejections, [], "{file} is accepted");
    Root { check, base }
}

fn explored() -> Explorer {
    let pool = descriptor_pool();
    let listener = |bytes: &[u8]| outcome(|| meltemi_compile::listener(&decoded(bytes)));
    let cluster = |bytes: &[u8]| outcome(|| meltemi_compile::cluster(&decoded(bytes)));
    let endpoints = |bytes: &[u8]| outcome(|| meltemi_compile::endpoints(&decoded(bytes)));
    let routes = |bytes: &[u8]| outcome(|| meltemi_compile::route_table(&decoded(bytes)));
    let bootstrap = |bytes: &[u8]| {
        let mut notes = Vec::new();
        let mut outcome =
            outcome(|| meltemi_proxy::check_bootstrap(decoded(bytes)).map(|found| notes = found));
        outcome.unheeded.extend(
            notes
                .into_iter()
                .map(|(path, why)| (path.rsplit('.').next().unwrap_or(path).to_owned(), why.to_owned())),
        );
        outcome
    };
    let mut explorer = Explorer::new(&pool);
    for root in [
        root::<RouteConfiguration>(&pool, "routes.yaml", routes),
        root::<RouteConfiguration>(&pool, "weighted-routes.yaml", routes),
        root::<RouteConfiguration>(&pool, "retry-routes.yaml", routes),
        root::<Listener>(&pool, "listener.yaml", listener),
        root::<Listener>(&pool, "filter-state-listener.yaml", listener),
        root::<Listener>(&pool, "tcp-listener.yaml", listener),
        root::<Listener>(&pool, "connection-limit-listener.yaml", listener),
        root::<Listener>(&pool, "sni-listener.yaml", listener),
        root::<Listener>(&pool, "tunnel-listener.yaml", listener),
        root::<Listener>(&pool, "tls-listener.yaml", listener),
        root::<Cluster>(&pool, "cluster.yaml", cluster),
        root::<Cluster>(&pool, "eds-cluster.yaml", cluster),
        root::<Cluster>(&pool, "tls-cluster.yaml", cluster),
        root::<ClusterLoadAssignment>(&pool, "endpoints.yaml", endpoints),
        root::<Bootstrap>(&pool, "bootstrap.yaml", bootstrap),
    ] {
        explorer.explore(&root);
    }
    explorer
}

/// The messages of extensions that the page says are taken somewhere.
fn taken(page: &str) -> impl Iterator<Item = &str> {
    let lists = page.lines().filter(|line| line.ends_with("other types are refused |"));
    let quoted = lists.flat_map(|line| line.split('`').skip(3).step_by(2));
    quoted.map(|name| name.strip_prefix("TypedStruct of ").unwrap_or(name))
}

/// A name that is claimed but not known would be a promise that nothing keeps.
#[test]
fn extension_types_are_known() {
    let pool = descriptor_pool();
    let is_message = |name: &&str| name.starts_with("envoy.extensions.");
    let mut messages = meltemi_compile::EXTENSION_TYPES.iter().copied().filter(is_message);
    assert!(messages.all(|name| pool.get_message_by_name(name).is_some()));
    assert!(meltemi_compile::EXTENSION_TYPES.is_sorted());
}

#[test]
fn envoy_api_is_documented_as_the_code_decides() {
    let explorer = explored();
    assert!(
        explorer.unreached().is_empty(),
        "no valid form was found of {:?}: put one into testdata/envoy-api",
        explorer.unreached()
    );
    let text = format!("{HEAD}{}", explorer.table());
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/envoy-api.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).expect("the page is written");
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(page == text, "docs/envoy-api.md is stale: UPDATE_GOLDEN=1 rewrites it");
    let claimed: Vec<&str> =
        taken(&page).filter(|name| !meltemi_compile::EXTENSION_TYPES.contains(name)).collect();
    assert!(claimed.is_empty(), "taken, but not among EXTENSION_TYPES: {claimed:#?}");
}
