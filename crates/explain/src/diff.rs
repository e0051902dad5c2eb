//! What would change for which proxies from one mesh to another: in resources, and in plain words.
//!
//! Both meshes are translated for every proxy, and what differs is put into words by rules (weights, timeouts, mutual TLS,
//! endpoints, …). What no rule speaks of is told field by field, so that the words are all that changes. Leaves out where
//! meshes and proxies come from.

mod cluster;
mod endpoint;
mod fields;
mod host;
mod listener;
mod route;
mod statement;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meltemi_envoy::config::core::v3::Node;
use meltemi_envoy::json::Codec;
use meltemi_envoy::type_url;
use meltemi_snapshot::Snapshot;
use meltemi_translate::{MeshIdentity, Options, ProxyShape, Resource, Resources, translate};
use serde::Serialize;
use serde_json::Value as Json;

use host::Knowledge;
use statement::{Said, gather};

pub use statement::Statement;

/// Istio's default trust domain.
const TRUST_DOMAIN: &str = "cluster.local";

/// A proxy of both meshes.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// What it is called.
    pub name: String,
    /// What its configuration depends on.
    pub shape: ProxyShape,
}

impl Proxy {
    /// The proxies of nodes as xDS carries them, in the JSON of protobuf: each with its name, and whether it asks over TLS
    /// with a certificate of its namespace.
    ///
    /// # Errors
    /// If one is no node that can be served.
    pub fn of_nodes<'n>(
        nodes: impl Iterator<Item = (&'n str, &'n Json, bool)>,
    ) -> Result<Vec<Proxy>, String> {
        // One for all: it holds the descriptors of the whole Envoy API.
        let codec = Codec::new();
        let proxies = nodes.map(|(name, node, is_authenticated)| {
            let wrong = |reason: String| format!("the proxy {name} cannot be served: {reason}");
            let node: Node = codec.from_json(node).map_err(|error| wrong(error.to_string()))?;
            let shape = ProxyShape::from_node(&node).map_err(|error| wrong(error.to_string()))?;
            Ok(Proxy { name: name.to_owned(), shape: ProxyShape { is_authenticated, ..shape } })
        });
        proxies.collect()
    }
}

/// The difference of two meshes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Difference {
    /// All of it in words.
    pub statements: Vec<Statement>,
    /// The resources that differ, of proxies that have any.
    pub proxies: Vec<ProxyDifference>,
    /// How many proxies were looked at.
    pub compared: usize,
}

/// What differs for one proxy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProxyDifference {
    /// The proxy.
    pub proxy: String,
    /// The resources, in the order in which they would be sent.
    pub resources: Vec<ResourceDifference>,
}

/// A resource that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResourceDifference {
    /// `cluster`, `endpoint`, `listener`, `route`, `secret`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What would happen to it.
    pub change: Change,
}

/// What happens to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is new.
    Added,
    /// It is another one.
    Changed,
    /// It is gone.
    Removed,
}

/// A resource before and after; one of them may be missing.
struct Pair<'r> {
    type_url: &'static str,
    name: &'r str,
    before: Option<&'r Resource>,
    after: Option<&'r Resource>,
}

impl Pair<'_> {
    fn change(&self) -> Change {
        match (self.before, self.after) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            _ => Change::Changed,
        }
    }
}

/// What would change for these proxies from one mesh to the other. Pure: the same meshes give the same words.
pub fn compare(before: &Snapshot, after: &Snapshot, proxies: &[Proxy]) -> Difference {
    let codec = Codec::new();
    let (options_before, options_after) = (options(before), options(after));
    let mut difference = Difference { compared: proxies.len(), ..Difference::default() };
    let (mut said, mut knowledge) = (Vec::new(), Knowledge::default());
    for proxy in proxies {
        let old = translate(before, &proxy.shape, &options_before);
        let new = translate(after, &proxy.shape, &options_after);
        knowledge.learn(&proxy.name, [&old, &new]);
        let pairs = pairs(&old, &new);
        if pairs.is_empty() {
            continue;
        }
        let modes = listener::Modes::of([before, after], &proxy.shape);
        let words = Words { codec: &codec, origins: [&old, &new], modes };
        said.extend(words.all(&pairs).into_iter().map(|said| (proxy.name.clone(), said)));
        let resources = pairs.iter().map(|pair| ResourceDifference {
            kind: kind(pair.type_url),
            name: pair.name.to_owned(),
            change: pair.change(),
        });
        difference
            .proxies
            .push(ProxyDifference { proxy: proxy.name.clone(), resources: resources.collect() });
    }
    difference.statements = gather(said, &knowledge, proxies);
    difference
}

/// Who vouches for whom, by MeshConfig. Both meshes have an authority.
fn options(snapshot: &Snapshot) -> Options {
    let said = snapshot.config.mesh.wire();
    let trust_domain =
        said.and_then(|mesh| mesh.trust_domain.clone()).unwrap_or_else(|| TRUST_DOMAIN.to_owned());
    let aliases = said.map(|mesh| mesh.trust_domain_aliases.clone()).unwrap_or_default();
    Options { identity: Some(MeshIdentity { trust_domain, aliases }), ..Options::default() }
}

/// The resources that are not the same.
fn pairs<'r>(old: &'r Resources, new: &'r Resources) -> Vec<Pair<'r>> {
    let mut pairs = Vec::new();
    for ((type_url, before), (_, after)) in old.by_type().into_iter().zip(new.by_type()) {
        let by_name = |list: &'r [Arc<Resource>]| -> BTreeMap<&'r str, &'r Resource> {
            list.iter().map(|resource| (&*resource.name, &**resource)).collect()
        };
        let (before, after) = (by_name(before), by_name(after));
        let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
        for name in names {
            let (before, after) = (before.get(name).copied(), after.get(name).copied());
            let is_same = before.map(|resource| &resource.version) == after.map(|resource| &resource.version);
            if !is_same {
                pairs.push(Pair { type_url, name, before, after });
            }
        }
    }
    pairs
}

fn kind(of: &str) -> &'static str {
    match of {
        type_url::CLUSTER => "cluster",
        type_url::ENDPOINT => "endpoint",
        type_url::LISTENER => "listener",
        type_url::ROUTE => "route",
        _ => "secret",
    }
}

/// Puts the difference of one proxy into words.
struct Words<'a> {
    codec: &'a Codec,
    /// Before and after.
    origins: [&'a Resources; 2],
    modes: listener::Modes,
}

impl Words<'_> {
    fn all(&self, pairs: &[Pair<'_>]) -> Vec<Said> {
        let of_clusters: BTreeSet<&str> = pairs
            .iter()
            .filter(|pair| pair.type_url == type_url::CLUSTER && pair.change() != Change::Changed)
            .map(|pair| pair.name)
            .collect();
        let mut said = self.modes.said();
        for pair in pairs {
            match pair.type_url {
                type_url::CLUSTER => said.extend(cluster::words(pair.name, &self.json(pair))),
                // That a destination comes or goes is said once.
                type_url::ENDPOINT if of_clusters.contains(pair.name) => {}
                type_url::ENDPOINT => said.extend(endpoint::words(pair.name, &self.json(pair))),
                type_url::LISTENER => said.extend(listener::words(pair.name, &self.json(pair), &self.modes)),
                type_url::ROUTE => {
                    let origin = |side: usize, path: &str| {
                        let origins = &self.origins[side].origins;
                        let origin = origins.find(type_url::ROUTE, pair.name, path)?;
                        Some(format!("{} {}", origin.object, origin.field).trim_end().to_owned())
                    };
                    said.extend(route::words(pair.name, &self.json(pair), &origin));
                }
                _ => said.push(secret(pair)),
            }
        }
        said
    }

    /// Both messages, `null` where there is none.
    fn json(&self, pair: &Pair<'_>) -> [Json; 2] {
        [pair.before, pair.after].map(|resource| {
            let json = resource.map(|resource| self.codec.any_to_json(&resource.body));
            // What was translated just now can be written.
            json.and_then(Result::ok).unwrap_or_default()
        })
    }
}

/// Of keys nothing is said but that they are others.
fn secret(pair: &Pair<'_>) -> Said {
    let verb = match pair.change() {
        Change::Added => "comes",
        Change::Changed => "is replaced",
        Change::Removed => "is taken away",
    };
    Said::new(format!("the secret {} {verb}", pair.name))
}

#[cfg(test)]
mod tests;
