//! [`Translator`]: [`translate`](crate::translate) for many proxies and one snapshot after the other.
//!
//! Proxies of one class share the parts that they have in common, and where nothing but endpoints moved, a translation
//! is the assignments of the services concerned. What comes out is always what `translate` gives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use meltemi_snapshot::{Scope, Service, Snapshot};

use crate::class::{Selection, addresses_of, is_balanced, own_addresses};
use crate::common::{Common, ServiceKey, key_of};
use crate::context::Context;
use crate::envoy_filter;
use crate::resources::{Resource, Resources};
use crate::shape::{ProxyShape, Role};
use crate::translate::{Options, clusters_of, of_context};

/// Translates for many proxies, and goes from one snapshot to the next.
#[derive(Debug)]
pub struct Translator {
    options: Options,
    /// With what the snapshot's MeshConfig says.
    effective: Options,
    snapshot: Snapshot,
    selection: Selection,
    classes: BTreeMap<ProxyShape, Common>,
    moved: Option<Moved>,
}

/// What moved between the last two snapshots, when it was endpoints alone.
#[derive(Debug)]
struct Moved {
    services: Vec<Arc<Service>>,
    /// The services' addresses, before and after.
    addresses: BTreeSet<IpAddr>,
    /// The parts of the classes before.
    outdated: BTreeMap<(ProxyShape, ServiceKey), Arc<Resources>>,
}

impl Translator {
    /// A translator of an empty snapshot.
    pub fn new(options: Options) -> Translator {
        let snapshot = Snapshot::default();
        Translator {
            effective: options.under(&snapshot.config.mesh),
            options,
            snapshot,
            selection: Selection::default(),
            classes: BTreeMap::new(),
            moved: None,
        }
    }

    /// Goes on to another snapshot, and keeps what holds there too.
    pub fn advance(&mut self, snapshot: &Snapshot) {
        let before = std::mem::replace(&mut self.snapshot, snapshot.clone());
        let is_same_config = Arc::ptr_eq(&before.config, &snapshot.config);
        let only_endpoints = is_same_config
            && Arc::ptr_eq(&before.services, &snapshot.services)
            && Arc::ptr_eq(&before.secrets, &snapshot.secrets);
        // Of a service whose endpoints are dialled themselves, listeners and classes depend on them.
        let moved = only_endpoints.then(|| self.moved_since(&before));
        self.moved = moved.filter(|moved| moved.services.iter().all(|service| is_balanced(service)));
        if self.moved.is_none() {
            self.effective = self.options.under(&snapshot.config.mesh);
            self.selection = Selection::of(snapshot);
            self.classes.clear();
        }
    }

    fn moved_since(&self, before: &Snapshot) -> Moved {
        let has_moved = |service: &&Arc<Service>| {
            let endpoints = [before, &self.snapshot].map(|snapshot| &snapshot.endpoints);
            service
                .ports
                .iter()
                .any(|port| endpoints[0].of(service, port.number) != endpoints[1].of(service, port.number))
        };
        let services: Vec<_> = self.snapshot.services.iter().filter(has_moved).map(Arc::clone).collect();
        let addresses = services
            .iter()
            .flat_map(|service| addresses_of(before, service).chain(addresses_of(&self.snapshot, service)));
        let addresses = addresses.collect();
        let mut outdated = BTreeMap::new();
        for (class, common) in &self.classes {
            for key in services.iter().map(|service| key_of(service)) {
                if let Some(part) = common.forget_clusters(&key) {
                    outdated.insert((class.clone(), key), part);
                }
            }
        }
        Moved { services, addresses, outdated }
    }

    /// Begins to translate for proxies.
    pub fn session(&mut self) -> Session<'_> {
        let Translator { effective, snapshot, selection, classes, moved, .. } = self;
        let frame = Frame { snapshot, options: effective, selection, moved: moved.as_ref() };
        Session { frame, classes, scopes: BTreeMap::new(), assignments: BTreeMap::new() }
    }
}

/// What all translations of a session are of.
#[derive(Clone, Copy)]
struct Frame<'a> {
    snapshot: &'a Snapshot,
    options: &'a Options,
    selection: &'a Selection,
    moved: Option<&'a Moved>,
}

/// Assignments of a class that moved; `None` where more than them may have changed.
type Assignments = Option<Arc<[Arc<Resource>]>>;

/// Translations for proxies of one snapshot.
pub struct Session<'a> {
    frame: Frame<'a>,
    classes: &'a mut BTreeMap<ProxyShape, Common>,
    scopes: BTreeMap<ProxyShape, Arc<Scope<'a>>>,
    assignments: BTreeMap<ProxyShape, Assignments>,
}

impl Session<'_> {
    /// All resources of the proxies of one shape: what [`translate`](crate::translate) gives.
    pub fn resources(&mut self, shape: &ProxyShape) -> Resources {
        let class = self.frame.selection.class(shape);
        self.with_context(&class, shape, of_context)
    }

    /// The assignments that replace those of the snapshot before, when nothing else has changed for the proxies of a shape
    /// since then. `None` if something else may have.
    pub fn moved(&mut self, shape: &ProxyShape) -> Option<Arc<[Arc<Resource>]>> {
        let moved = self.frame.moved?;
        if !matches!(shape.role, Role::Sidecar(_))
            || own_addresses(shape).iter().any(|own| moved.addresses.contains(own))
        {
            return None;
        }
        let class = self.frame.selection.class(shape);
        if self.with_context(&class, shape, envoy_filter::patches) {
            return None;
        }
        if let Some(known) = self.assignments.get(&class) {
            return known.clone();
        }
        let assignments = self.of_class(moved, &class);
        self.assignments.insert(class, assignments.clone());
        assignments
    }

    fn of_class(&mut self, moved: &Moved, class: &ProxyShape) -> Assignments {
        let mut news = Vec::new();
        for service in &moved.services {
            let Some(old) = moved.outdated.get(&(class.clone(), key_of(service))) else { continue };
            let new = self.with_context(class, class, |context| {
                let seen = context.scope.service(&service.host)?;
                (seen.namespace == service.namespace).then(|| clusters_of(context, seen))
            })?;
            if new.clusters != old.clusters {
                return None;
            }
            news.extend(new.endpoints.iter().filter(|now| !old.endpoints.contains(now)).map(Arc::clone));
        }
        Some(news.into())
    }

    fn with_context<T>(
        &mut self,
        class: &ProxyShape,
        shape: &ProxyShape,
        then: impl FnOnce(&Context<'_>) -> T,
    ) -> T {
        if !self.classes.contains_key(class) {
            self.classes.insert(class.clone(), Common::default());
        }
        let common = &self.classes[class];
        let Frame { snapshot, options, .. } = self.frame;
        let scope = self.scopes.get(class).map(Arc::clone);
        let scope = scope.unwrap_or_else(|| Arc::new(Context::scope(snapshot, shape)));
        self.scopes.entry(class.clone()).or_insert_with(|| Arc::clone(&scope));
        then(&Context { snapshot, shape, options, scope, common })
    }
}
