//! What a worker serves at one moment: a program, and the worker's own clusters for it.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use meltemi_compile::program::{Name, Program};

use crate::record::Routes;
use crate::stats::WorkerStats;
use crate::upstream::Cluster;
use crate::upstream::shared::HostStates;

/// An immutable view; a request keeps the one that it began with.
#[derive(Debug, Default)]
pub(crate) struct Generation {
    pub(crate) program: Arc<Program>,
    clusters: HashMap<Name, Rc<Cluster>, foldhash::fast::RandomState>,
    routes: HashMap<Name, Routes, foldhash::fast::RandomState>,
}

impl Generation {
    /// The generation of `program`, taking over from `old` whatever did not change.
    pub(crate) fn next(
        old: &Generation,
        program: Arc<Program>,
        stats: &WorkerStats,
        states: &HostStates,
    ) -> Generation {
        let clusters = program
            .clusters
            .iter()
            .map(|(name, config)| {
                let endpoints = program.endpoints.get(name);
                let cluster = Cluster::next(old.clusters.get(name), config, endpoints, stats, states);
                (name.clone(), cluster)
            })
            .collect();
        let routes =
            program.routes.iter().map(|(name, table)| (name.clone(), Rc::new(table.clone()))).collect();
        let next = Generation { program, clusters, routes };
        if let Some(peers) = states.local_cluster().and_then(|name| next.cluster(name)) {
            next.clusters().for_each(|cluster| cluster.set_peers(peers));
        }
        for (name, cluster) in &old.clusters {
            if !next.clusters.contains_key(name) {
                cluster.close();
            }
        }
        next
    }

    /// A cluster by name.
    pub(crate) fn cluster(&self, name: &str) -> Option<&Rc<Cluster>> {
        self.clusters.get(name)
    }

    /// The route table of that name.
    pub(crate) fn routes(&self, name: &str) -> Option<&Routes> {
        self.routes.get(name)
    }

    /// All clusters.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = &Rc<Cluster>> {
        self.clusters.values()
    }
}
