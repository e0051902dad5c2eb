//! Which cluster a request goes to.
//!
//! Source: `envoy.config.route.v3.RouteAction.cluster_specifier`.

use std::borrow::Cow;

use crate::matcher::RequestView;
use crate::route::{ClusterChoice, WeightedCluster};

/// The outcome of [`ClusterChoice::pick`].
#[derive(Debug, Clone)]
pub struct Picked<'a> {
    /// Cluster name; empty when `cluster_header` names a header that is missing, which is then "not found".
    pub cluster: Cow<'a, str>,
    /// The entry of `weighted_clusters`, whose header edits and host rewrite apply too.
    pub entry: Option<&'a WeightedCluster>,
}

impl ClusterChoice {
    /// The cluster for a request; [`RequestView::random`] decides between weighted ones.
    pub fn pick<'a>(&'a self, view: &'a impl RequestView) -> Picked<'a> {
        match self {
            ClusterChoice::One(name) => Picked { cluster: Cow::Borrowed(name), entry: None },
            ClusterChoice::Weighted(entries, total) => {
                let entry = weighted(entries, view.random() % u64::from((*total).max(1)));
                Picked { cluster: entry.map_or(Cow::Borrowed(""), |e| Cow::Borrowed(&*e.name)), entry }
            }
            ClusterChoice::Header(name) => {
                let value = view.header(name).map_or(Cow::Borrowed(""), text);
                Picked { cluster: value, entry: None }
            }
        }
    }
}

fn weighted(entries: &[WeightedCluster], point: u64) -> Option<&WeightedCluster> {
    let mut end = 0;
    entries.iter().find(|entry| {
        end += u64::from(entry.weight);
        point < end
    })
}

fn text(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}
