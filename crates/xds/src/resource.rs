//! What is served: sets of named opaque resources, and one proxy's whole configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use meltemi_envoy::Resource;
use xxhash_rust::xxh3::Xxh3;

use crate::limits::{MAX_STEP_NAMES, MAX_STEPS};

/// The resources of one type, ordered by name, immutable. Equal contents have equal versions.
///
/// A set that follows another one ([`ResourceSet::following`]) knows what has changed, so that a server has to look at
/// that only, however many resources there are.
#[derive(Debug, Clone, Default)]
pub struct ResourceSet {
    resources: Vec<Arc<Resource>>,
    version: String,
    /// The way here from earlier sets, the last step first.
    steps: Vec<Step>,
}

/// What makes a set of the one before it.
#[derive(Debug, Clone)]
struct Step {
    /// The version of the earlier set.
    from: String,
    /// Names of resources that are new, have changed, or are gone.
    names: Arc<[Arc<str>]>,
}

impl PartialEq for ResourceSet {
    fn eq(&self, other: &ResourceSet) -> bool {
        self.resources == other.resources
    }
}

impl Eq for ResourceSet {}

impl ResourceSet {
    /// Digest over the names and versions of the resources.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The resource of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        let place = self.resources.binary_search_by(|resource| (*resource.name).cmp(name)).ok()?;
        self.resources.get(place)
    }

    /// The resources in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Resource>> {
        self.resources.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// This set as the successor of another one: the other one itself if they are equal, and resources of the other one
    /// where they are.
    pub fn following(mut self, previous: &Arc<ResourceSet>) -> Arc<ResourceSet> {
        if self.version == previous.version {
            return Arc::clone(previous);
        }
        let mut names = Vec::new();
        for resource in &mut self.resources {
            match previous.get(&resource.name) {
                Some(earlier) if earlier.version == resource.version => *resource = Arc::clone(earlier),
                _ => names.push(Arc::clone(&resource.name)),
            }
        }
        let gone = previous.resources.iter().filter(|earlier| self.get(&earlier.name).is_none());
        names.extend(gone.map(|earlier| Arc::clone(&earlier.name)));
        self.come_from(previous, names);
        Arc::new(self)
    }

    /// This set with some resources replaced or added.
    pub fn with(&self, news: impl IntoIterator<Item = Arc<Resource>>) -> ResourceSet {
        let mut resources = self.resources.clone();
        let mut names = Vec::new();
        for resource in news {
            names.push(Arc::clone(&resource.name));
            match resources.binary_search_by(|other| other.name.cmp(&resource.name)) {
                Ok(place) => resources[place] = resource,
                Err(place) => resources.insert(place, resource),
            }
        }
        let mut next = ResourceSet::of_sorted(resources);
        if next.version == self.version {
            next.steps.clone_from(&self.steps);
        } else {
            next.come_from(self, names);
        }
        next
    }

    fn come_from(&mut self, previous: &ResourceSet, names: Vec<Arc<str>>) {
        self.steps.clear();
        if names.len() <= MAX_STEP_NAMES {
            self.steps.push(Step { from: previous.version.clone(), names: names.into() });
            self.steps.extend(previous.steps.iter().take(MAX_STEPS - 1).cloned());
        }
    }

    /// The names of all resources that may differ from the set of that version; `None` if the way from there is not known.
    pub(crate) fn changed_since(&self, version: &str) -> Option<BTreeSet<&Arc<str>>> {
        if self.version == version {
            return Some(BTreeSet::new());
        }
        let steps = self.steps.iter().position(|step| step.from == version)?;
        Some(self.steps[..=steps].iter().flat_map(|step| step.names.iter()).collect())
    }

    fn of_sorted(resources: Vec<Arc<Resource>>) -> ResourceSet {
        let version = digest(resources.iter().map(|r| (&*r.name, r.version.as_str())));
        ResourceSet { resources, version, steps: Vec::new() }
    }
}

/// Of two resources of one name the later wins.
impl FromIterator<Arc<Resource>> for ResourceSet {
    fn from_iter<I: IntoIterator<Item = Arc<Resource>>>(resources: I) -> ResourceSet {
        let mut resources: Vec<_> = resources.into_iter().collect();
        // The sort is stable; reversed twice, the last of equals is the one that stays.
        resources.reverse();
        resources.sort_by(|a, b| a.name.cmp(&b.name));
        resources.dedup_by(|later, earlier| later.name == earlier.name);
        ResourceSet::of_sorted(resources)
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
    use meltemi_envoy::Any;

    fn resource(name: &str, body: &'static str) -> Resource {
        Resource::new(name, Any { type_url: "t".into(), value: Bytes::from_static(body.as_bytes()) })
    }

    fn set(resources: &[(&str, &'static str)]) -> ResourceSet {
        resources.iter().map(|(name, body)| resource(name, body)).collect()
    }

    fn changed(set: &ResourceSet, since: &str) -> Option<Vec<String>> {
        Some(set.changed_since(since)?.into_iter().map(|name| name.to_string()).collect())
    }

    #[test]
    fn versions_follow_contents_and_not_their_order() {
        let one = set(&[("a", "1"), ("b", "2")]);
        let two = set(&[("b", "2"), ("a", "1")]);
        assert_eq!(one, two);
        assert_ne!(one.version(), set(&[("a", "1"), ("b", "3")]).version());
        assert_ne!(one.version(), set(&[("a", "1"), ("c", "2")]).version());
        let twice = set(&[("a", "1"), ("a", "2")]);
        assert_eq!(twice, set(&[("a", "2")]), "the later wins");
    }

    #[test]
    fn a_set_knows_what_changed_on_the_way_to_it() {
        let first = Arc::new(set(&[("a", "1"), ("b", "1"), ("c", "1")]));
        let second = set(&[("a", "2"), ("b", "1"), ("c", "1")]).following(&first);
        let third = Arc::new(second.with([Arc::new(resource("d", "1"))]));
        let fourth = set(&[("a", "2"), ("c", "1"), ("d", "1")]).following(&third);
        assert!(Arc::ptr_eq(&fourth.resources[1], &first.resources[2]), "what is equal is shared");
        assert_eq!(changed(&fourth, third.version()), Some(vec!["b".to_owned()]));
        assert_eq!(changed(&fourth, first.version()), Some(["a", "b", "d"].map(String::from).to_vec()));
        assert_eq!(changed(&fourth, fourth.version()), Some(Vec::new()));
        assert_eq!(changed(&first, fourth.version()), None);
        assert!(Arc::ptr_eq(&set(&[("a", "2"), ("c", "1"), ("d", "1")]).following(&fourth), &fourth));
    }
}
