//! All configuration of the process, without IO: what came, what is in force, what warms, what was refused.
//!
//! [`Store::apply`] takes an xDS update; good resources of a batch are taken even when others are refused, as
//! Envoy does. [`Store::settle`] then puts in force what has all that it refers to, in the order endpoints,
//! clusters, routes, listeners; [`Store::program`] is the result.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use meltemi_compile::filter::DiscoveredFilter;
use meltemi_compile::program::{Cluster, Discovery, DnsTargets, Endpoints, Listener, Name, Program};
use meltemi_compile::route::RouteTable;
use meltemi_compile::{Origin, Rejection};
use meltemi_envoy::config::bootstrap::v3::bootstrap::StaticResources;
use meltemi_envoy::config::core::v3::{self as core, address};
use meltemi_envoy::{Any, config, type_url};
use meltemi_xds::client::Update;
use meltemi_xds::{Mode, Resource};
use tokio::time::Instant;

use super::health;
use super::references::{self, Need};
use super::secrets::SecretTable;
use super::subscription::{ByName, TypeCounts};
use super::table::{Entry, Loaded, Refused, Table};
use crate::tls::Environment;
use crate::upstream::shared::HostStates;

/// A cluster with the endpoints of its own message.
#[derive(Debug)]
pub struct ClusterEntry {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// `load_assignment`.
    pub inline: Option<Arc<Endpoints>>,
    /// The Unix socket that stands in `load_assignment` of a static cluster. Only the proxy's own streams can use it.
    pub pipe: Option<Box<str>>,
}

/// The key of a DNS cluster's hosts: its name and the digest of the message that names the targets.
pub(super) type DnsKey = (Name, u64);

/// See the module.
#[derive(Debug, Default)]
pub struct Store {
    pub(super) listeners: Table<Listener>,
    pub(super) clusters: Table<ClusterEntry>,
    pub(super) endpoints: Table<Endpoints>,
    routes: Table<RouteTable>,
    filters: Table<DiscoveredFilter>,
    pub(super) secrets: SecretTable,
    /// Hosts of DNS clusters; empty after a first failure.
    pub(super) resolved: BTreeMap<DnsKey, Arc<Endpoints>>,
    /// Hosts in force of clusters with health checks: those that discovery names, and those that it dropped although
    /// they pass their checks.
    pub(super) checked: BTreeMap<Name, Arc<Endpoints>>,
    pub(super) hosts: Arc<HostStates>,
    pub(super) counts: BTreeMap<&'static str, TypeCounts>,
    pub(super) by_name: ByName,
    pub(super) dirty: bool,
}

/// Makes sure that a listener can be served, ahead of its use: binds its sockets, tries its logs.
pub(super) type Prepare<'a> = dyn FnMut(&Listener) -> Result<(), Rejection> + 'a;

impl Store {
    /// Takes the bootstrap's static resources.
    ///
    /// # Errors
    /// All that is refused; nothing should be served then.
    pub fn load_static(&mut self, resources: &StaticResources) -> Result<(), Vec<Rejection>> {
        let mut rejections = Vec::new();
        let now = Instant::now();
        let StaticResources { listeners, clusters, secrets } = resources;
        rejections.extend(self.load_static_secrets(secrets));
        for message in clusters {
            let taken = compile_static_cluster(message)
                .and_then(|entry| Ok((self.needs_of_cluster(&entry.cluster, message, now)?, entry)));
            match taken {
                Ok((needs, entry)) => {
                    let name = entry.cluster.name.clone();
                    let wait = references::cluster_timeout(message);
                    let loaded =
                        Loaded { needs, ..loaded_static(Any::pack(message), entry, deadline(now, wait)) };
                    rejections.extend(insert_static(&mut self.clusters, name, loaded));
                }
                Err(refused) => rejections.extend(refused),
            }
        }
        for message in listeners {
            let taken = meltemi_compile::listener_with(message, &Environment)
                .and_then(|listener| self.with_needs(listener, message, now));
            match taken {
                Ok((listener, needs)) => {
                    let name = listener.name.clone();
                    if let Some(reason) = self.address_conflict(&listener) {
                        rejections.push(Rejection::new(&*name, "address", reason));
                    }
                    let loaded = Loaded { needs, ..loaded_static(Any::pack(message), listener, None) };
                    rejections.extend(insert_static(&mut self.listeners, name, loaded));
                }
                Err(refused) => rejections.extend(refused),
            }
        }
        self.dirty = true;
        if rejections.is_empty() { Ok(()) } else { Err(rejections) }
    }

    /// Listeners in force or warming, for binding their sockets.
    pub(super) fn latest_listeners(&self) -> Vec<Arc<Listener>> {
        self.listeners.entries.values().filter_map(|entry| Some(Arc::clone(&entry.latest()?.value))).collect()
    }

    /// Takes an update of one type. The result is what was refused, empty for an ACK.
    pub(super) fn apply(
        &mut self,
        update: &Update,
        from: &Origin,
        now: Instant,
        prepare: &mut Prepare<'_>,
    ) -> Vec<Rejection> {
        let Some(kind) = type_url::PUSH_ORDER.into_iter().find(|kind| *kind == update.type_url) else {
            return vec![Rejection::new(&*update.type_url, "", "a type that was not asked for")];
        };
        let mut tally = TypeCounts::default();
        self.remove(kind, &update.removed, &mut tally);
        let mut rejections = Vec::new();
        for resource in &update.changed {
            let resource = &versioned(resource, update);
            let taken = match kind {
                type_url::CLUSTER => self.take_cluster(resource, now),
                type_url::ENDPOINT => self.take_endpoints(resource),
                type_url::LISTENER => self.take_listener(resource, now, prepare),
                type_url::ROUTE => self.take_routes(resource),
                type_url::EXTENSION_CONFIG => self.take_filter(resource),
                _ => self.take_secret(resource, from),
            };
            self.count_name(kind, resource, taken.as_ref().ok());
            match taken {
                Ok(Taken::New) => tally.added += 1,
                Ok(Taken::Changed) => tally.modified += 1,
                Ok(Taken::Same) => {}
                Err(refused) => {
                    self.remember_refusal(kind, resource, from, &refused);
                    rejections.extend(refused);
                }
            }
        }
        // Workers look into the slots of secrets; they need no new program for them.
        self.dirty |= kind != type_url::SECRET && tally.added + tally.modified + tally.removed > 0;
        self.count(kind, update, &tally, rejections.is_empty());
        rejections
    }

    fn count(&mut self, kind: &'static str, update: &Update, tally: &TypeCounts, accepted: bool) {
        let counts = self.counts.entry(kind).or_default();
        counts.added += tally.added;
        counts.modified += tally.modified;
        counts.removed += tally.removed;
        if accepted {
            counts.taken(&update.version);
        } else {
            counts.refused();
        }
    }

    fn count_name(&mut self, kind: &'static str, resource: &Resource, taken: Option<&Taken>) {
        if matches!(kind, type_url::CLUSTER | type_url::LISTENER) {
            return;
        }
        let counts = self.by_name.of(kind, &resource.name);
        match taken {
            Some(Taken::New) => counts.added += 1,
            Some(Taken::Changed) => counts.modified += 1,
            Some(Taken::Same) => {}
            None => return counts.refused(),
        }
        counts.taken(&resource.version);
    }

    /// Envoy keeps the endpoints and routes that a server takes away as long as something refers to them.
    fn remove(&mut self, kind: &str, names: &[String], tally: &mut TypeCounts) {
        for name in names {
            let removed = match kind {
                type_url::CLUSTER => self.clusters.remove(name),
                type_url::LISTENER => self.listeners.remove(name),
                // What is in its place then is the default.
                type_url::EXTENSION_CONFIG => self.filters.remove(name),
                _ => false,
            };
            tally.removed += u64::from(removed);
        }
    }

    fn take_cluster(&mut self, resource: &Resource, now: Instant) -> Result<Taken, Vec<Rejection>> {
        if self.clusters.touch(&resource.name, &resource.body, &resource.version) {
            return Ok(Taken::Same);
        }
        let message: config::cluster::v3::Cluster = unpack(resource)?;
        let entry = compile_cluster(&message)?;
        let name = entry.cluster.name.clone();
        if self.clusters.is_static(&name) {
            return Err(vec![Rejection::new(
                &*name,
                "name",
                "the bootstrap has a static cluster of this name",
            )]);
        }
        let wait = references::cluster_timeout(&message);
        let needs = self.needs_of_cluster(&entry.cluster, &message, now)?;
        let loaded = Loaded { needs, ..loaded(resource, entry, deadline(now, wait)) };
        Ok(Taken::of(self.clusters.insert(name, loaded)))
    }

    fn needs_of_cluster(
        &self,
        cluster: &Cluster,
        message: &config::cluster::v3::Cluster,
        now: Instant,
    ) -> Result<Vec<Need>, Vec<Rejection>> {
        let mut needs = references::cluster_needs(message, now)?;
        needs.extend(self.secrets_of_cluster(cluster, now)?);
        Ok(needs)
    }

    fn take_endpoints(&mut self, resource: &Resource) -> Result<Taken, Vec<Rejection>> {
        if self.endpoints.touch(&resource.name, &resource.body, &resource.version) {
            return Ok(Taken::Same);
        }
        let endpoints = meltemi_compile::endpoints(&unpack(resource)?)?;
        let name = Name::from(&*resource.name);
        Ok(Taken::of(self.endpoints.insert(name, loaded(resource, endpoints, None))))
    }

    fn take_routes(&mut self, resource: &Resource) -> Result<Taken, Vec<Rejection>> {
        if self.routes.touch(&resource.name, &resource.body, &resource.version) {
            return Ok(Taken::Same);
        }
        let table = meltemi_compile::route_table(&unpack(resource)?)?;
        Ok(Taken::of(self.routes.insert(table.name.clone(), loaded(resource, table, None))))
    }

    /// A type that a listener does not want is refused for all of them, as in Envoy.
    fn take_filter(&mut self, resource: &Resource) -> Result<Taken, Vec<Rejection>> {
        if self.filters.touch(&resource.name, &resource.body, &resource.version) {
            return Ok(Taken::Same);
        }
        let filter = meltemi_compile::filter::discovered(&unpack(resource)?)?;
        let listeners = self.listeners.entries.values().flat_map(Entry::both);
        let mut places = listeners.flat_map(|loaded| references::discoveries(&loaded.value, &resource.name));
        if let Some(place) = places.find(|place| !place.allows(&filter.type_name)) {
            let reason = format!("has type {} but expect {}", filter.type_name, place.types.join(", "));
            return Err(vec![Rejection::new(&*resource.name, "typed_config", reason)]);
        }
        let name = Name::from(&*resource.name);
        Ok(Taken::of(self.filters.insert(name, loaded(resource, filter, None))))
    }

    fn take_listener(
        &mut self,
        resource: &Resource,
        now: Instant,
        prepare: &mut Prepare<'_>,
    ) -> Result<Taken, Vec<Rejection>> {
        if self.listeners.touch(&resource.name, &resource.body, &resource.version) {
            return Ok(Taken::Same);
        }
        let message: config::listener::v3::Listener = unpack(resource)?;
        let listener = meltemi_compile::listener_with(&message, &Environment)?;
        let name = listener.name.clone();
        let refuse = |path: &str, reason: String| vec![Rejection::new(&*name, path, reason)];
        if self.listeners.is_static(&name) {
            return Err(refuse("name", "the bootstrap has a static listener of this name".to_owned()));
        }
        if let Some(reason) = self.address_conflict(&listener) {
            return Err(refuse("address", reason));
        }
        let (listener, needs) = self.with_needs(listener, &message, now)?;
        prepare(&listener).map_err(|rejection| vec![rejection])?;
        self.count_conflicts(&listener);
        let loaded = Loaded { needs, ..loaded(resource, listener, None) };
        Ok(Taken::of(self.listeners.insert(name, loaded)))
    }

    fn with_needs(
        &self,
        listener: Listener,
        message: &config::listener::v3::Listener,
        now: Instant,
    ) -> Result<(Listener, Vec<Need>), Vec<Rejection>> {
        let mut needs = references::listener_needs(message, now)?;
        needs.extend(self.secrets_of_listener(&listener, now)?);
        Ok((listener, needs))
    }

    /// What was discovered does not suit the new listener, which uses its default then.
    fn count_conflicts(&mut self, listener: &Listener) {
        for (name, found) in active(&self.filters) {
            let mut places = references::discoveries(listener, name);
            if places.any(|place| !place.allows(&found.value.type_name)) {
                self.by_name.of(type_url::EXTENSION_CONFIG, name).conflicts += 1;
            }
        }
    }

    /// Two listeners on one address would take each other's connections by chance.
    fn address_conflict(&self, listener: &Listener) -> Option<String> {
        if listener.address.port() == 0 {
            return None;
        }
        let latest = self.listeners.entries.values().filter_map(|entry| entry.latest());
        let other = latest
            .map(|loaded| &loaded.value)
            .find(|other| other.name != listener.name && other.address == listener.address)?;
        Some(format!("has duplicate address '{}' as existing listener '{}'", listener.address, other.name))
    }

    fn remember_refusal(&mut self, kind: &str, resource: &Resource, from: &Origin, rejections: &[Rejection]) {
        let details: Vec<String> = rejections.iter().map(Rejection::to_string).collect();
        let refused = Refused {
            message: resource.body.clone(),
            version: resource.version.clone(),
            at: SystemTime::now(),
            details: details.join("\n"),
        };
        let name = Name::from(&*resource.name);
        match kind {
            type_url::CLUSTER => self.clusters.refuse(name, refused),
            type_url::ENDPOINT => self.endpoints.refuse(name, refused),
            type_url::LISTENER => self.listeners.refuse(name, refused),
            type_url::ROUTE => self.routes.refuse(name, refused),
            type_url::EXTENSION_CONFIG => self.filters.refuse(name, refused),
            _ => self.refuse_secret(name, from, refused),
        }
    }

    /// Puts in force what is ready, forgets what nothing refers to any more.
    pub(crate) fn settle(&mut self, now: Instant) {
        self.count_late(now);
        self.dirty |= self.endpoints.settle(|_| true);
        self.settle_clusters(now);
        self.dirty |= self.routes.settle(|_| true);
        self.dirty |= self.filters.settle(|_| true);
        self.settle_listeners(now);
        self.forget_unused();
        self.settle_checked();
    }

    fn settle_clusters(&mut self, now: Instant) {
        let mut clusters = std::mem::take(&mut self.clusters);
        self.dirty |= clusters.settle(|loaded| {
            let mut secrets = loaded.needs.iter().filter(|need| need.kind == type_url::SECRET);
            secrets.all(|need| self.is_over_or_late(need, now)) && self.has_hosts(loaded, now)
        });
        self.clusters = clusters;
    }

    /// Whether a cluster waits for its hosts no longer.
    fn has_hosts(&self, loaded: &Loaded<ClusterEntry>, now: Instant) -> bool {
        let cluster = &loaded.value.cluster;
        let found = discovered(loaded, &self.endpoints, &self.resolved);
        let is_complete = matches!(cluster.discovery, Discovery::OriginalDst)
            || found.is_some_and(|found| health::is_checked(cluster, found, &self.hosts));
        let mut endpoints = loaded.needs.iter().filter(|need| need.kind == type_url::ENDPOINT);
        let gets_none =
            matches!(cluster.discovery, Discovery::Static) || endpoints.any(|need| self.is_over(need));
        is_complete || found.is_none() && gets_none || loaded.deadline.is_some_and(|at| at <= now)
    }

    fn settle_listeners(&mut self, now: Instant) {
        let mut listeners = std::mem::take(&mut self.listeners);
        self.dirty |=
            listeners.settle(|loaded| loaded.needs.iter().all(|need| self.is_over_or_late(need, now)));
        self.listeners = listeners;
    }

    fn is_over_or_late(&self, need: &Need, now: Instant) -> bool {
        need.until.is_some_and(|until| until <= now) || self.is_over(need)
    }

    fn forget_unused(&mut self) {
        let services = self.wanted_names(type_url::ENDPOINT);
        self.endpoints.entries.retain(|name, _| services.contains(name));
        let routes = self.wanted_names(type_url::ROUTE);
        self.routes.entries.retain(|name, _| routes.contains(name));
        let filters = self.wanted_names(type_url::EXTENSION_CONFIG);
        self.filters.entries.retain(|name, _| filters.contains(name));
        self.forget_secrets();
        let kinds = [type_url::ENDPOINT, type_url::ROUTE, type_url::EXTENSION_CONFIG];
        for (kind, wanted) in kinds.into_iter().zip([services, routes, filters]) {
            self.by_name.retain(kind, &wanted);
        }
        let targets = self.dns_targets();
        self.resolved.retain(|key, _| targets.contains_key(key));
    }

    /// Names to resolve; true for the clusters that use only the first address.
    pub(super) fn dns_targets(&self) -> BTreeMap<DnsKey, (Arc<DnsTargets>, bool)> {
        let clusters =
            self.clusters.entries.values().flat_map(Entry::both).map(|loaded| &loaded.value.cluster);
        clusters
            .filter_map(|cluster| {
                let targets = match &cluster.discovery {
                    Discovery::StrictDns(targets) => (Arc::clone(targets), false),
                    Discovery::LogicalDns(targets) => (Arc::clone(targets), true),
                    _ => return None,
                };
                Some(((cluster.name.clone(), cluster.digest), targets))
            })
            .collect()
    }

    /// Hosts of a DNS cluster.
    pub(super) fn resolve(&mut self, key: DnsKey, endpoints: Endpoints) {
        if self.resolved.get(&key).is_none_or(|known| **known != endpoints) {
            self.resolved.insert(key, Arc::new(endpoints));
            self.dirty = true;
        }
    }

    /// The program, if it changed since the last call.
    pub(super) fn take_program(&mut self) -> Option<Program> {
        std::mem::take(&mut self.dirty).then(|| self.program())
    }

    /// What is in force now.
    pub fn program(&self) -> Program {
        let mut program = Program::default();
        for (name, loaded) in active(&self.clusters) {
            let cluster = &loaded.value.cluster;
            if loaded.value.pipe.is_some() {
                continue;
            }
            let discovered = || discovered(loaded, &self.endpoints, &self.resolved);
            let endpoints = self.checked.get(name).or_else(discovered);
            program.clusters.insert(name.clone(), Arc::clone(cluster));
            program.endpoints.extend(endpoints.map(|endpoints| (name.clone(), Arc::clone(endpoints))));
        }
        let filters = active(&self.filters).map(|(name, filter)| (name.clone(), Arc::clone(&filter.value)));
        program.filters.extend(filters);
        program
            .routes
            .extend(active(&self.routes).map(|(name, table)| (name.clone(), Arc::clone(&table.value))));
        let listeners = active(&self.listeners);
        program
            .listeners
            .extend(listeners.map(|(name, listener)| (name.clone(), Arc::clone(&listener.value))));
        program
    }

    /// When [`Store::settle`] has something to do even if nothing comes.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        [self.clusters.next_deadline(now), self.listeners.next_deadline(now)].into_iter().flatten().min()
    }

    /// Clusters in force and warming.
    pub fn cluster_counts(&self) -> (u64, u64) {
        self.clusters.counts()
    }

    /// Listeners in force and warming.
    pub fn listener_counts(&self) -> (u64, u64) {
        self.listeners.counts()
    }

    /// What happened to a type so far.
    pub fn counts(&self, type_url: &str) -> TypeCounts {
        self.counts.get(type_url).cloned().unwrap_or_default()
    }

    /// Listeners by name.
    pub fn listeners(&self) -> &BTreeMap<Name, Entry<Listener>> {
        &self.listeners.entries
    }

    /// Clusters by name.
    pub fn clusters(&self) -> &BTreeMap<Name, Entry<ClusterEntry>> {
        &self.clusters.entries
    }

    /// EDS assignments by service name.
    pub fn endpoints(&self) -> &BTreeMap<Name, Entry<Endpoints>> {
        &self.endpoints.entries
    }

    /// RDS route configurations by name.
    pub fn routes(&self) -> &BTreeMap<Name, Entry<RouteTable>> {
        &self.routes.entries
    }

    /// Filters of extension discovery by name.
    pub fn filters(&self) -> &BTreeMap<Name, Entry<DiscoveredFilter>> {
        &self.filters.entries
    }
}

/// The hosts that discovery names for a cluster, as far as it has.
pub(super) fn discovered<'s>(
    loaded: &'s Loaded<ClusterEntry>,
    endpoints: &'s Table<Endpoints>,
    resolved: &'s BTreeMap<DnsKey, Arc<Endpoints>>,
) -> Option<&'s Arc<Endpoints>> {
    let cluster = &loaded.value.cluster;
    match &cluster.discovery {
        Discovery::Static | Discovery::OriginalDst => loaded.value.inline.as_ref(),
        Discovery::Eds(service) => endpoints.active(service),
        Discovery::StrictDns(_) | Discovery::LogicalDns(_) => {
            resolved.get(&(cluster.name.clone(), cluster.digest))
        }
    }
}

/// What taking a resource did.
pub(super) enum Taken {
    New,
    Changed,
    Same,
}

impl Taken {
    pub(super) fn of(is_new: bool) -> Taken {
        if is_new { Taken::New } else { Taken::Changed }
    }
}

pub(super) fn active<T>(table: &Table<T>) -> impl Iterator<Item = (&Name, &Loaded<T>)> {
    table.entries.iter().filter_map(|(name, entry)| Some((name, entry.active.as_ref()?)))
}

fn compile_cluster(message: &config::cluster::v3::Cluster) -> Result<ClusterEntry, Vec<Rejection>> {
    let (cluster, inline) = meltemi_compile::cluster_with(message, &Environment)?;
    Ok(ClusterEntry { cluster: Arc::new(cluster), inline: inline.map(Arc::new), pipe: None })
}

/// A cluster of the bootstrap may have a Unix socket for its only endpoint, as Istio's agent gives the control plane.
fn compile_static_cluster(message: &config::cluster::v3::Cluster) -> Result<ClusterEntry, Vec<Rejection>> {
    let mut message = message.clone();
    let Some(address) = only_address(&mut message) else { return compile_cluster(&message) };
    let Some(address::Address::Pipe(pipe)) = &address.address else { return compile_cluster(&message) };
    let (path, mode) = (pipe.path.clone(), pipe.mode);

    if path.is_empty() || mode != 0 {
        let reason = "must have a path and no mode";
        return Err(vec![Rejection::new(&*message.name, "load_assignment", reason)]);
    }
    // The rest of the message is checked with an address that nothing uses. Keepalive is TCP's.
    let socket = core::SocketAddress {
        address: "127.0.0.1".to_owned(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(0)),
        ..core::SocketAddress::default()
    };
    address.address = Some(address::Address::SocketAddress(socket));
    message.upstream_connection_options = None;
    let (cluster, _) = meltemi_compile::cluster_with(&message, &Environment)?;
    Ok(ClusterEntry { cluster: Arc::new(cluster), inline: None, pipe: Some(path.into()) })
}

/// The address of the only endpoint.
fn only_address(message: &mut config::cluster::v3::Cluster) -> Option<&mut core::Address> {
    use config::endpoint::v3::lb_endpoint::HostIdentifier;
    let [locality] = message.load_assignment.as_mut()?.endpoints.as_mut_slice() else { return None };
    let [endpoint] = locality.lb_endpoints.as_mut_slice() else { return None };
    match endpoint.host_identifier.as_mut()? {
        HostIdentifier::Endpoint(endpoint) => endpoint.address.as_mut(),
        HostIdentifier::EndpointName(_) => None,
    }
}

pub(super) fn unpack<M: prost::Name + Default>(resource: &Resource) -> Result<M, Vec<Rejection>> {
    resource.body.unpack().map_err(|error| vec![Rejection::new(&*resource.name, "", error.to_string())])
}

/// A resource with the version under which the server sent it, which is the update's unless each has its own.
fn versioned(resource: &Resource, update: &Update) -> Resource {
    let version = match update.mode {
        Mode::Sotw => &update.version,
        Mode::Delta => &resource.version,
    };
    Resource { version: version.clone(), ..resource.clone() }
}

fn deadline(now: Instant, wait: Option<Duration>) -> Option<Instant> {
    wait.map(|wait| now + wait)
}

fn loaded<T>(resource: &Resource, value: T, deadline: Option<Instant>) -> Loaded<T> {
    Loaded {
        message: resource.body.clone(),
        version: resource.version.clone(),
        updated: SystemTime::now(),
        value: Arc::new(value),
        needs: Vec::new(),
        deadline,
    }
}

fn loaded_static<T>(message: Any, value: T, deadline: Option<Instant>) -> Loaded<T> {
    Loaded {
        message,
        version: String::new(),
        updated: SystemTime::now(),
        value: Arc::new(value),
        needs: Vec::new(),
        deadline,
    }
}

fn insert_static<T>(table: &mut Table<T>, name: Name, loaded: Loaded<T>) -> Option<Rejection> {
    if table.entries.contains_key(&name) {
        return Some(Rejection::new(&*name, "name", "two static resources have this name"));
    }
    table.insert(name.clone(), loaded);
    table.entries.entry(name).or_default().is_static = true;
    None
}

#[cfg(test)]
mod tests;
