//! Configurations of shapes: what the translator gives, as sets that know what has changed in them, shared between shapes
//! that have the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use meltemi_api::Diagnostic;
use meltemi_envoy::type_url;
use meltemi_translate::{Options, Origins, ProxyShape, Session, Translator};
use meltemi_xds::{Config, ResourceSet};
use xxhash_rust::xxh3::xxh3_64;

use crate::mesh::Generation;

/// Findings that are logged; whoever has more has read enough.
const MAX_TOLD: usize = 1000;

/// A set that is in force somewhere, by its type and version.
type Sets = BTreeMap<(&'static str, String), Weak<ResourceSet>>;

/// The translator, and the sets in force.
pub(crate) struct Translations {
    translator: Translator,
    /// Of the generation that the translator is at, and of the one before.
    identifier: Option<String>,
    before: Option<String>,
    sets: Sets,
    /// Digests of the findings that were logged.
    told: BTreeSet<u64>,
}

impl Translations {
    pub(crate) fn new(options: Options) -> Translations {
        Translations {
            translator: Translator::new(options),
            identifier: None,
            before: None,
            sets: BTreeMap::new(),
            told: BTreeSet::new(),
        }
    }

    /// Goes on to a generation.
    pub(crate) fn advance(&mut self, generation: &Generation) -> Round<'_> {
        self.sets.retain(|_, set| set.strong_count() > 0);
        self.translator.advance(&generation.snapshot);
        self.before = self.identifier.take();
        let identifier = self.identifier.insert(generation.identifier()).clone();
        self.round(identifier)
    }

    /// Translates for new shapes; `None` before the first generation.
    pub(crate) fn current(&mut self) -> Option<Round<'_>> {
        let identifier = self.identifier.clone()?;
        Some(self.round(identifier))
    }

    fn round(&mut self, identifier: String) -> Round<'_> {
        let session = self.translator.session();
        let before = self.before.clone();
        Round {
            session,
            identifier,
            before,
            sets: &mut self.sets,
            moved: BTreeMap::new(),
            told: &mut self.told,
        }
    }
}

/// Translations of one generation.
pub(crate) struct Round<'a> {
    session: Session<'a>,
    identifier: String,
    before: Option<String>,
    sets: &'a mut Sets,
    /// What sets of endpoints become, by the version of what they were.
    moved: BTreeMap<String, Arc<ResourceSet>>,
    told: &'a mut BTreeSet<u64>,
}

impl Round<'_> {
    /// The configuration of a shape. `previous` is the one in force, and is `None` for a new shape. There are no
    /// origins where they are the same as before.
    pub(crate) fn config(
        &mut self,
        shape: &ProxyShape,
        previous: Option<&Config>,
    ) -> (Arc<Config>, Option<Arc<Origins>>) {
        if let Some(config) = previous.and_then(|previous| self.with_moved(shape, previous)) {
            return (Arc::new(config), None);
        }
        let resources = self.session.resources(shape);
        self.tell(shape, &resources.left_out);
        let mut types = BTreeMap::new();
        for (type_url, resources) in resources.by_type() {
            let set: ResourceSet = resources.iter().map(Arc::clone).collect();
            let previous = previous.and_then(|previous| previous.of_type(type_url));
            types.insert(type_url.to_owned(), self.shared(type_url, set, previous));
        }
        let config = Config { generation: self.identifier.clone(), types };
        (Arc::new(config), Some(Arc::new(resources.origins)))
    }

    /// Logs what has no effect at a proxy; the same of a thousand proxies once.
    fn tell(&mut self, shape: &ProxyShape, left_out: &[Diagnostic]) {
        for told in left_out {
            if self.told.len() >= MAX_TOLD || !self.told.insert(xxh3_64(format!("{told:?}").as_bytes())) {
                continue;
            }
            let Diagnostic { code, object, field, message, .. } = told;
            let object = object.as_ref().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(code, namespace = shape.namespace, object, field, message, "left out");
        }
    }

    /// The previous configuration with other endpoints, where nothing else has changed.
    fn with_moved(&mut self, shape: &ProxyShape, previous: &Config) -> Option<Config> {
        // One that was left behind, because its translation failed, has missed more than the last step.
        self.before.as_ref().filter(|before| **before == previous.generation)?;
        let endpoints = previous.of_type(type_url::ENDPOINT)?;
        let news = self.session.moved(shape)?;
        let known = self.moved.get(endpoints.version()).map(Arc::clone);
        let next = match known {
            Some(next) => next,
            None => {
                let next = self.shared(type_url::ENDPOINT, endpoints.with(news.iter().map(Arc::clone)), None);
                self.moved.insert(endpoints.version().to_owned(), Arc::clone(&next));
                next
            }
        };
        let mut types = previous.types.clone();
        types.insert(type_url::ENDPOINT.to_owned(), next);
        Some(Config { generation: self.identifier.clone(), types })
    }

    /// The set that has this content: the previous one, or another shape's, or this.
    fn shared(
        &mut self,
        type_url: &'static str,
        set: ResourceSet,
        previous: Option<&Arc<ResourceSet>>,
    ) -> Arc<ResourceSet> {
        let key = (type_url, set.version().to_owned());
        if let Some(known) = self.sets.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let set = previous.map_or_else(|| Arc::new(set.clone()), |previous| set.clone().following(previous));
        self.sets.insert(key, Arc::downgrade(&set));
        set
    }
}
