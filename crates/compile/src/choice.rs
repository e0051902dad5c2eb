//! Which cluster a request goes to.
//!
//! Source: `envoy.config.route.v3.RouteAction.cluster_specifier` and `WeightedCluster`.

use std::borrow::Cow;
use std::cell::Cell;

use http::{HeaderName, HeaderValue};

use crate::filter::PerFilterConfigs;
use crate::matcher::{HeaderSubject, RequestView};
use crate::metadata_match::MetadataMatch;
use crate::program::Name;
use crate::route::{Forward, RouteEdits};

/// `cluster_specifier`.
#[derive(Debug)]
pub enum ClusterChoice {
    /// `cluster` or `cluster_header`.
    One(ClusterName),
    /// `weighted_clusters`.
    Weighted(Box<WeightedClusters>),
}

/// A cluster by its name, or by a header that holds the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterName {
    /// The name; empty is a cluster that is never there.
    Fixed(Name),
    /// `cluster_header`: its first value.
    Header(HeaderSubject),
}

/// `envoy.config.route.v3.WeightedCluster`.
#[derive(Debug)]
pub struct WeightedClusters {
    /// `clusters`.
    pub entries: Vec<WeightedCluster>,
    /// The sum of their weights.
    pub total: u32,
    /// `random_value_specifier`.
    pub point: PointSource,
    /// Whether any entry has filter configurations of its own.
    pub has_filters: bool,
}

/// Where the point comes from that decides between weighted clusters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PointSource {
    /// The request's random number.
    Random,
    /// `header_name`: the number in that header, when it is there once.
    Header(HeaderName),
    /// `use_hash_policy`: the hash of the route's policies, when they give one.
    HashPolicy,
}

/// An entry of `weighted_clusters`.
#[derive(Debug)]
pub struct WeightedCluster {
    /// `name` or `cluster_header`.
    pub cluster: ClusterName,
    /// `metadata_match` over that of the route; `None` when neither says anything.
    pub metadata_match: Option<MetadataMatch>,
    /// `weight`; may be 0.
    pub weight: u32,
    /// Header changes of the entry.
    pub edits: RouteEdits,
    /// `host_rewrite_literal` of the entry.
    pub host_rewrite: Option<HeaderValue>,
    /// `typed_per_filter_config` of the entry.
    pub filters: PerFilterConfigs,
}

/// The outcome of [`Forward::pick`].
#[derive(Debug, Clone, Copy)]
pub struct Picked<'f> {
    /// The cluster.
    pub cluster: &'f ClusterName,
    /// The entry of `weighted_clusters`, whose header edits and host rewrite apply too.
    pub entry: Option<&'f WeightedCluster>,
}

impl Forward {
    /// The cluster for a request.
    pub fn pick<'f>(&'f self, view: &impl RequestView) -> Picked<'f> {
        match &self.cluster {
            ClusterChoice::One(cluster) => Picked { cluster, entry: None },
            ClusterChoice::Weighted(weighted) => {
                let entry = weighted.entry(self.point(&weighted.point, view));
                Picked { cluster: &entry.cluster, entry: Some(entry) }
            }
        }
    }

    /// Whether an entry of `weighted_clusters` says anything to a filter.
    pub fn has_entry_filters(&self) -> bool {
        matches!(&self.cluster, ClusterChoice::Weighted(weighted) if weighted.has_filters)
    }

    fn point(&self, source: &PointSource, view: &impl RequestView) -> u64 {
        let point = match source {
            PointSource::Random => None,
            PointSource::Header(name) => only_number(view, name),
            PointSource::HashPolicy => self.hash.hash(view, None),
        };
        point.unwrap_or_else(|| view.random())
    }
}

impl WeightedClusters {
    fn entry(&self, point: u64) -> &WeightedCluster {
        let point = point % u64::from(self.total);
        let mut end = 0;
        let entry = self.entries.iter().find(|entry| {
            end += u64::from(entry.weight);
            point < end
        });
        entry.expect("invariant: the weights add up to the total")
    }
}

impl ClusterName {
    /// The name for a request; empty when the header that should hold it is missing.
    pub fn text<'n>(&'n self, view: &impl RequestView) -> Cow<'n, str> {
        match self {
            ClusterName::Fixed(name) => Cow::Borrowed(name),
            ClusterName::Header(subject) => {
                let value = subject.first_value(view).unwrap_or_default();
                Cow::Owned(String::from_utf8_lossy(&value).into_owned())
            }
        }
    }
}

/// The number in a header that has one value.
fn only_number(view: &impl RequestView, name: &HeaderName) -> Option<u64> {
    let (values, number) = (Cell::new(0), Cell::new(None));
    view.any_header_value(name, &|value| {
        values.set(values.get() + 1);
        number.set(std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok()));
        false
    });
    number.get().filter(|_| values.get() == 1)
}
