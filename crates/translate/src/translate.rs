//! [`translate`]: all resources of one proxy shape.

use meltemi_envoy::type_url;
use meltemi_snapshot::{MeshConfig, Snapshot};

use crate::cluster;
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
use crate::shape::{ProxyShape, Role};
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
    fn under(&self, mesh: &MeshConfig) -> Options {
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
    let mesh = &snapshot.config.mesh;
    let options = options.under(mesh);
    let context = Context::new(snapshot, shape, &options);
    let mut resources = Resources::default();
    let mut draft = Draft::default();
    match &shape.role {
        Role::Proxyless => {
            let built = grpc::build(&context, &mut resources.origins);
            draft.clusters.extend(built.clusters);
            draft.listeners.extend(built.listeners);
            draft.routes.extend(built.routes);
        }
        Role::Sidecar(sidecar) => {
            draft.clusters.extend(cluster::outbound(&context));
            resources.secrets = secret::build(&context, &cluster::credentials(&context));
            let inbound = inbound::build(&context, sidecar);
            draft.clusters.extend(inbound.clusters);
            draft.listeners.extend(inbound.listeners);
            let out = match sidecar.own_address() {
                Some(address) => {
                    own_address::build(&context, address, sidecar.http_proxy_port, &mut resources.origins)
                }
                None => outbound::build(&context, sidecar, &mut resources.origins),
            };
            draft.clusters.extend(out.clusters);
            draft.listeners.extend(out.listeners);
            draft.routes.extend(out.routes);
        }
        Role::Router(edge) => {
            draft.clusters.extend(cluster::outbound(&context));
            let gateway = gateway::build(&context, edge, &mut resources.origins);
            draft.clusters.extend(gateway.clusters);
            draft.listeners.extend(gateway.listeners);
            draft.routes.extend(gateway.routes);
            let mut credentials = gateway.credentials;
            credentials.extend(cluster::credentials(&context));
            resources.secrets = secret::build(&context, &credentials);
        }
    }
    serve(&context, &mut draft);
    if shape.role != Role::Proxyless {
        resources.left_out = envoy_filter::apply(&context, &mut draft, &mut resources.origins);
    }
    resources.encode(draft);
    resources.name_tables = name_table::build(&context);
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

impl Resources {
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
