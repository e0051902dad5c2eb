//! The outcome of a translation: encoded resources with content versions, and where each came from.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_api::{Diagnostic, ObjectId};
pub use meltemi_envoy::Resource;
use meltemi_envoy::type_url;

/// All resources of one proxy shape. Each list is sorted by name, without duplicates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// LDS.
    pub listeners: Vec<Arc<Resource>>,
    /// RDS: the route configurations that the listeners name.
    pub routes: Vec<Arc<Resource>>,
    /// CDS.
    pub clusters: Vec<Arc<Resource>>,
    /// EDS: an assignment for each EDS cluster, empty when it has no endpoint.
    pub endpoints: Vec<Arc<Resource>>,
    /// SDS: the credentials that listeners and clusters name, as far as the proxy may read them.
    pub secrets: Vec<Arc<Resource>>,
    /// ECDS: the configurations that patches give to filters by name.
    pub extension_configs: Vec<Arc<Resource>>,
    /// What of the user's objects this proxy does not get, and why.
    pub left_out: Vec<Diagnostic>,
    /// NDS: the names that the workload resolves, one table or none.
    pub name_tables: Vec<Arc<Resource>>,
    /// Where resources came from. Not on the wire, so a moved line changes no version.
    pub origins: Origins,
}

impl Resources {
    /// The lists with their type URLs, in the order in which a server pushes them.
    pub fn by_type(&self) -> [(&'static str, &[Arc<Resource>]); 7] {
        [
            (type_url::CLUSTER, &self.clusters),
            (type_url::ENDPOINT, &self.endpoints),
            (type_url::LISTENER, &self.listeners),
            (type_url::ROUTE, &self.routes),
            (type_url::SECRET, &self.secrets),
            (type_url::EXTENSION_CONFIG, &self.extension_configs),
            (type_url::NAME_TABLE, &self.name_tables),
        ]
    }
}

/// The side table: which field of which object a part of a resource came from.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    own: BTreeMap<Place, Origin>,
    /// Parts that several proxies have; what is their own comes before them.
    shared: Vec<Arc<Resources>>,
}

impl PartialEq for Origins {
    fn eq(&self, other: &Origins) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Origins {}

/// A part of a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Type URL of the resource.
    pub type_url: &'static str,
    /// Name of the resource.
    pub resource: String,
    /// Path of protobuf field names in it, such as `virtual_hosts[0].routes[1]`; empty for the whole.
    pub path: String,
}

/// What the user wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The object.
    pub object: ObjectId,
    /// Path in the object, such as `spec.http[0]`; empty for the whole.
    pub field: String,
    /// File of the object.
    pub file: Arc<str>,
    /// Line in the file, from 1.
    pub line: u32,
}

impl Origins {
    pub(crate) fn insert(&mut self, type_url: &'static str, resource: &str, path: String, origin: Origin) {
        self.own.insert(Place { type_url, resource: resource.to_owned(), path }, origin);
    }

    /// Takes the origins of a part over.
    pub(crate) fn share(&mut self, part: &Arc<Resources>) {
        self.shared.push(Arc::clone(part));
    }

    fn get(&self, place: &Place) -> Option<&Origin> {
        let own = self.own.get(place);
        own.or_else(|| self.shared.iter().find_map(|part| part.origins.get(place)))
    }

    /// Forgets everything of one resource, which is in no part that others have.
    pub(crate) fn forget(&mut self, type_url: &'static str, resource: &str) {
        self.own.retain(|place, _| place.type_url != type_url || place.resource != resource);
    }

    /// Where the part came from, or the closest part around it that is known.
    pub fn find(&self, type_url: &'static str, resource: &str, path: &str) -> Option<&Origin> {
        let mut path = path;
        loop {
            let place = Place { type_url, resource: resource.to_owned(), path: path.to_owned() };
            if let Some(origin) = self.get(&place) {
                return Some(origin);
            }
            if path.is_empty() {
                return None;
            }
            path = path.rfind('.').map_or("", |dot| &path[..dot]);
        }
    }

    /// All entries, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (&Place, &Origin)> {
        let mut all = BTreeMap::new();
        self.collect(&mut all);
        all.into_iter()
    }

    fn collect<'a>(&'a self, all: &mut BTreeMap<&'a Place, &'a Origin>) {
        self.shared.iter().for_each(|part| part.origins.collect(all));
        all.extend(&self.own);
    }
}
