//! [`translate`]: all resources of one proxy shape.

use meltemi_envoy::type_url;
use meltemi_snapshot::{MeshConfig, Snapshot};

use crate::cluster;
use crate::context::Context;
use crate::gateway;
use crate::grpc;
use crate::listener::{self, inbound, outbound, own_address};
use crate::resources::{Origin, Origins, Resource, Resources};
use crate::shape::{ProxyShape, Role};
use crate::tls::secret;

/// What holds for the whole mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Where proxies write their access log if MeshConfig does not say it; `None` for nowhere.
    pub access_log_file: Option<String>,
    /// Who vouches for whom; `None` without a CA, and then no proxy speaks mutual TLS.
    pub identity: Option<MeshIdentity>,
}

impl Options {
    /// With what MeshConfig says in place of the defaults.
    fn under(&self, mesh: &MeshConfig) -> Options {
        let access_log_file = mesh.access_log_file.as_ref().or(self.access_log_file.as_ref());
        Options {
            access_log_file: access_log_file.filter(|path| !path.is_empty()).cloned(),
            identity: self.identity.clone(),
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
    let context = Context::new(snapshot, shape, &options);
    let mut resources = Resources::default();
    match &shape.role {
        Role::Proxyless => {
            let built = grpc::build(&context, &mut resources.origins);
            built.clusters.into_iter().for_each(|c| resources.add_cluster(c));
            built.listeners.into_iter().for_each(|l| resources.add_listener(l));
            resources.routes.extend(built.routes.iter().map(|r| Resource::encode(&r.name, r)));
        }
        Role::Sidecar(sidecar) => {
            resources.add_outbound_clusters(&context);
            resources.secrets = secret::build(&context, &cluster::credentials(&context));
            let inbound = inbound::build(&context, sidecar);
            inbound.clusters.into_iter().for_each(|c| resources.add_cluster(c));
            inbound.listeners.into_iter().for_each(|l| resources.add_listener(l));
            let out = match sidecar.own_address() {
                Some(address) => {
                    own_address::build(&context, address, sidecar.http_proxy_port, &mut resources.origins)
                }
                None => outbound::build(&context, sidecar, &mut resources.origins),
            };
            out.listeners.into_iter().for_each(|l| resources.add_listener(l));
            resources.routes.extend(out.routes.iter().map(|r| Resource::encode(&r.name, r)));
        }
        Role::Router(edge) => {
            resources.add_outbound_clusters(&context);
            let gateway = gateway::build(&context, edge, &mut resources.origins);
            gateway.clusters.into_iter().for_each(|c| resources.add_cluster(c));
            gateway.listeners.into_iter().for_each(|l| resources.add_listener(l));
            resources.routes.extend(gateway.routes.iter().map(|r| Resource::encode(&r.name, r)));
            let mut credentials = gateway.credentials;
            credentials.extend(cluster::credentials(&context));
            resources.secrets = secret::build(&context, &credentials);
        }
    }
    resources.sort();
    resources
}

impl Resources {
    fn add_outbound_clusters(&mut self, context: &Context<'_>) {
        cluster::outbound(context).into_iter().for_each(|built| self.add_cluster(built));
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
        let secrets = &mut self.secrets;
        for list in [&mut self.listeners, &mut self.routes, &mut self.clusters, &mut self.endpoints, secrets]
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
