//! [`translate`]: all resources of one proxy shape.

use meltemi_envoy::type_url;
use meltemi_snapshot::Snapshot;

use crate::cluster;
use crate::context::Context;
use crate::gateway;
use crate::listener::{self, inbound, outbound};
use crate::resources::{Origin, Origins, Resource, Resources};
use crate::shape::{ProxyShape, Role};

/// What holds for the whole mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Where proxies write their access log; `None` for nowhere.
    pub access_log_file: Option<String>,
}

/// The resources of the proxies of one shape. The same snapshot and shape give the same bytes, however the snapshot
/// came about.
pub fn translate(snapshot: &Snapshot, shape: &ProxyShape, options: &Options) -> Resources {
    let context = Context::new(snapshot, shape, options);
    let mut resources = Resources::default();
    for built in cluster::outbound(&context) {
        resources.add_cluster(built);
    }
    match &shape.role {
        Role::Sidecar { address, http_proxy_port } => {
            for (listener, cluster) in inbound::build(&context, *address) {
                resources.add_cluster(cluster);
                resources.add_listener(listener);
            }
            let out = outbound::build(&context, *address, *http_proxy_port, &mut resources.origins);
            out.listeners.into_iter().for_each(|l| resources.add_listener(l));
            resources.routes.extend(out.routes.iter().map(|r| Resource::encode(&r.name, r)));
        }
        Role::Router { bind } => {
            let (listeners, routes) = gateway::build(&context, *bind, &mut resources.origins);
            listeners.into_iter().for_each(|l| resources.add_listener(l));
            resources.routes.extend(routes.iter().map(|r| Resource::encode(&r.name, r)));
        }
    }
    resources.sort();
    resources
}

impl Resources {
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
        for list in [&mut self.listeners, &mut self.routes, &mut self.clusters, &mut self.endpoints] {
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
