//! What is served: named opaque resources, sets of them, and one proxy's whole configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_envoy::Any;
use xxhash_rust::xxh3::Xxh3;

/// One resource. Its bytes are shared between all streams that serve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The name that clients subscribe to.
    pub name: String,
    /// Equal versions promise equal bodies; [`Resource::new`] uses a digest of the body.
    pub version: String,
    /// The encoded message.
    pub body: Any,
}

impl Resource {
    /// A resource whose version is the digest of its bytes.
    pub fn new(name: impl Into<String>, body: Any) -> Resource {
        let mut digest = Xxh3::new();
        digest.update(body.type_url.as_bytes());
        digest.update(&[0]);
        digest.update(&body.value);
        Resource { name: name.into(), version: format!("{:016x}", digest.digest()), body }
    }
}

/// The resources of one type, ordered by name, immutable. Equal contents have equal versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceSet {
    resources: BTreeMap<String, Arc<Resource>>,
    version: String,
}

impl ResourceSet {
    /// Digest over the names and versions of the resources.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The resource of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.resources.get(name)
    }

    /// The resources in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }
}

/// Of two resources of one name the later wins.
impl FromIterator<Arc<Resource>> for ResourceSet {
    fn from_iter<I: IntoIterator<Item = Arc<Resource>>>(resources: I) -> ResourceSet {
        let resources: BTreeMap<_, _> = resources.into_iter().map(|r| (r.name.clone(), r)).collect();
        let version = digest(resources.values().map(|r| (r.name.as_str(), r.version.as_str())));
        ResourceSet { resources, version }
    }
}

impl FromIterator<Resource> for ResourceSet {
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> ResourceSet {
        resources.into_iter().map(Arc::new).collect()
    }
}

/// Digest of named versions, in the order given.
pub(crate) fn digest<'a>(versions: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut digest = Xxh3::new();
    for (name, version) in versions {
        digest.update(name.as_bytes());
        digest.update(&[0]);
        digest.update(version.as_bytes());
        digest.update(&[0]);
    }
    format!("{:016x}", digest.digest())
}

/// All that one proxy is served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Identifies the generation of the mesh that this was made from; sent in `control_plane.identifier`,
    /// never in resource versions.
    pub generation: String,
    /// The resources by type URL.
    pub types: BTreeMap<String, Arc<ResourceSet>>,
}

impl Config {
    /// The resources of one type; none if the type is absent.
    pub fn of_type(&self, type_url: &str) -> Option<&Arc<ResourceSet>> {
        self.types.get(type_url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn resource(name: &str, body: &'static str) -> Resource {
        Resource::new(name, Any { type_url: "t".into(), value: Bytes::from_static(body.as_bytes()) })
    }

    #[test]
    fn versions_follow_contents_and_not_their_order() {
        let one: ResourceSet = [resource("a", "1"), resource("b", "2")].into_iter().collect();
        let two: ResourceSet = [resource("b", "2"), resource("a", "1")].into_iter().collect();
        assert_eq!(one, two);
        let changed: ResourceSet = [resource("a", "1"), resource("b", "3")].into_iter().collect();
        assert_ne!(one.version(), changed.version());
        let renamed: ResourceSet = [resource("a", "1"), resource("c", "2")].into_iter().collect();
        assert_ne!(one.version(), renamed.version());
    }
}
