//! [`translate`]: all resources of one proxy shape.

use std::sync::Arc;

use meltemi_envoy::type_url;
use meltemi_snapshot::{MeshConfig, Service, Snapshot};

use crate::cluster;
use crate::common::Common;
use crate::context::Context;
use crate::draft::Draft;
use crate::envoy_filter;
use crate::gateway;
use crate::grpc;
use crate::listener::{self, inbound, outbound, own_address};
use crate::message::duration;
use crate::name_table;
use crate::resources::{Origin, Origins, Resource, Resources};
use crate::serving::Serving;
use crate::shape::{ProxyShape, Role, SidecarShape};
use crate::tls::secret;

/// What holds for the whole mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Where proxies write their access log if MeshConfig does not say it; `None` for nowhere.
    pub access_log_file: Option<String>,
    /// Who vouches for whom; `None` without a CA, and then no proxy speaks mutual TLS.
    pub identity: Option<MeshIdentity>,
    /// What MeshConfig says of requests; [`translate`] fills it in.
    pub serving: Serving,
}

impl Options {
    /// With what MeshConfig says in place of the defaults.
    pub(crate) fn under(&self, mesh: &MeshConfig) -> Options {
        let access_log_file = mesh.access_log_file.as_ref().or(self.access_log_file.as_ref());
        Options {
            access_log_file: access_log_file.filter(|path| !path.is_empty()).cloned(),
            identity: self.identity.clone(),
            serving: Serving::of(mesh),
        }
    }
}

/// The trust domain of the mesh: the identity of a workload is `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshIdentity {
    /// Its name.
    pub trust_domain: String,
    /// Other names of it, old ones or those of meshes that are trusted as this one.
    pub aliases: Vec<String>,
}

impl MeshIdentity {
    /// The identities that a service account goes by.
    pub(crate) fn of_account(&self, namespace: &str, account: &str) -> Vec<String> {
        self.prefixes().iter().map(|prefix| format!("{prefix}ns/{namespace}/sa/{account}")).collect()
    }

    /// What the identities of the mesh begin with.
    pub(crate) fn prefixes(&self) -> Vec<String> {
        let names = std::iter::once(&self.trust_domain).chain(&self.aliases);
        let mut prefixes: Vec<String> = names.map(|name| format!("spiffe://{name}/")).collect();
        prefixes.sort();
        prefixes.dedup();
        prefixes
    }
}

/// The resources of the proxies of one shape. The same snapshot and shape give the same bytes, however the snapshot
/// came about.
pub fn translate(snapshot: &Snapshot, shape: &ProxyShape, options: &Options) -> Resources {
    let options = options.under(&snapshot.config.mesh);
    let scope = Arc::new(Context::scope(snapshot, shape));
    of_context(&Context { snapshot, shape, options: &options, scope, common: &Common::default() })
}

/// The resources of the proxies of one shape, with what it has in common with others. What EnvoyFilters patch is its own.
pub(crate) fn of_context(context: &Context<'_>) -> Resources {
    let shares = !envoy_filter::patches(context);
    let mut resources = Resources::default();
    let mut draft = Draft::default();
    match &context.shape.role {
        Role::Proxyless => {
            let built = grpc::build(context, &mut resources.origins);
            draft.clusters.extend(built.clusters);
            draft.listeners.extend(built.listeners);
            draft.routes.extend(built.routes);
        }
        Role::Sidecar(sidecar) => {
            if shares {
                resources.add_outbound_clusters(context);
            } else {
                draft.clusters.extend(cluster::outbound(context));
            }
            resources.secrets = secret::build(context, &cluster::credentials(context));
            let inbound = inbound::build(context, sidecar);
            draft.clusters.extend(inbound.clusters);
            draft.listeners.extend(inbound.listeners);
            let out = match sidecar.own_address() {
                None if shares => {
                    // Of two listeners of one name the first one counts.
                    serve(context, &mut draft);
                    resources.encode(std::mem::take(&mut draft));
                    resources.add(&context.common.outbound(|| outbound_of(context, sidecar)));
                    outbound::Outbound::default()
                }
                Some(address) => {
                    own_address::build(context, address, sidecar.http_proxy_port, &mut resources.origins)
                }
                None => outbound::build(context, sidecar, &mut resources.origins),
            };
            resources.left_out.extend(out.left_out);
            draft.clusters.extend(out.clusters);
            draft.listeners.extend(out.listeners);
            draft.routes.extend(out.routes);
        }
        Role::Router(edge) => {
            draft.clusters.extend(cluster::outbound(context));
            let gateway = gateway::build(context, edge, &mut resources.origins);
            draft.clusters.extend(gateway.clusters);
            draft.listeners.extend(gateway.listeners);
            draft.routes.extend(gateway.routes);
            let mut credentials = gateway.credentials;
            credentials.extend(cluster::credentials(context));
            resources.secrets = secret::build(context, &credentials);
        }
    }
    serve(context, &mut draft);
    if context.shape.role != Role::Proxyless {
        let patches = envoy_filter::apply(context, &mut draft, &mut resources.origins);
        resources.left_out.extend(patches);
    }
    resources.encode(draft);
    resources.name_tables = name_table::build(context);
    resources.sort();
    resources
}

/// What MeshConfig says of every listener and route.
fn serve(context: &Context<'_>, draft: &mut Draft) {
    if context.options.serving.omits_attempt_count {
        let hosts = draft.routes.iter_mut().flat_map(|routes| &mut routes.virtual_hosts);
        hosts.for_each(|host| host.include_request_attempt_count = false);
    }
    // The mesh's time to find out what is spoken, where a sidecar waits for it.
    let wanted = context.snapshot.config.mesh.wire().and_then(|wire| wire.protocol_detection_timeout);
    let Some(wanted) = wanted.filter(|_| !context.is_gateway()) else { return };
    let timeouts = draft.listeners.iter_mut().map(|built| &mut built.listener.listener_filters_timeout);
    timeouts.flatten().for_each(|timeout| *timeout = duration(wanted));
}

/// The outbound listeners of a sidecar, and their routes.
fn outbound_of(context: &Context<'_>, sidecar: &SidecarShape) -> Resources {
    let mut part = Resources::default();
    let out = outbound::build(context, sidecar, &mut part.origins);
    part.left_out = out.left_out;
    let clusters = out.clusters;
    let mut draft = Draft { clusters, listeners: out.listeners, routes: out.routes, ..Draft::default() };
    serve(context, &mut draft);
    part.encode(draft);
    part
}

/// The clusters of a service with their endpoints.
pub(crate) fn clusters_of(context: &Context<'_>, service: &Service) -> Resources {
    let mut part = Resources::default();
    cluster::of_service(context, service).into_iter().for_each(|built| part.add_cluster(built));
    part
}

impl Resources {
    fn add_outbound_clusters(&mut self, context: &Context<'_>) {
        for service in context.scope.services() {
            self.add(&context.common.clusters(service, || clusters_of(context, service)));
        }
        cluster::of_policy(context).into_iter().for_each(|built| self.add_cluster(built));
    }

    /// Adds a part that others may have as well.
    fn add(&mut self, part: &Arc<Resources>) {
        self.listeners.extend_from_slice(&part.listeners);
        self.routes.extend_from_slice(&part.routes);
        self.clusters.extend_from_slice(&part.clusters);
        self.endpoints.extend_from_slice(&part.endpoints);
        self.left_out.extend_from_slice(&part.left_out);
        self.origins.share(part);
    }

    fn encode(&mut self, draft: Draft) {
        draft.clusters.into_iter().for_each(|built| self.add_cluster(built));
        draft.listeners.into_iter().for_each(|built| self.add_listener(built));
        self.routes.extend(draft.routes.iter().map(|r| Resource::encode(&r.name, r)));
        for (config, origin) in draft.extension_configs {
            self.extension_configs.push(Resource::encode(&config.name, &config));
            note(&mut self.origins, type_url::EXTENSION_CONFIG, &config.name, Some(origin));
        }
    }

    fn add_cluster(&mut self, built: cluster::Built) {
        let name = built.cluster.name.clone();
        if let Some(assignment) = &built.endpoints {
            self.endpoints.push(Resource::encode(&name, assignment));
        }
        self.clusters.push(Resource::encode(&name, &built.cluster));
        note(&mut self.origins, type_url::CLUSTER, &name, built.origin);
    }

    fn add_listener(&mut self, built: listener::Built) {
        let name = built.listener.name.clone();
        self.listeners.push(Resource::encode(&name, &built.listener));
        note(&mut self.origins, type_url::LISTENER, &name, built.origin);
    }

    /// By name; of two with the same name the first one counts.
    fn sort(&mut self) {
        let (secrets, extensions) = (&mut self.secrets, &mut self.extension_configs);
        let routes = &mut self.routes;
        for list in
            [&mut self.listeners, routes, &mut self.clusters, &mut self.endpoints, secrets, extensions]
        {
            list.sort_by(|a, b| a.name.cmp(&b.name));
            list.dedup_by(|later, earlier| later.name == earlier.name);
        }
    }
}

fn note(origins: &mut Origins, type_url: &'static str, resource: &str, origin: Option<Origin>) {
    if let Some(origin) = origin {
        origins.insert(type_url, resource, String::new(), origin);
    }
}
