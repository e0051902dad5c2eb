//! Subsets of a cluster's hosts, by what the `envoy.lb` metadata of each says.
//!
//! Every combination of values that a selector's keys take on some host is a subset with a layout of its own. Source:
//! Envoy's `SubsetLoadBalancer`. Zones are not looked at within subsets.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use meltemi_compile::load_balancing::{LbPolicy, SubsetFallback, SubsetSelector, Subsets};
use meltemi_compile::metadata_match::{Criterion, MetadataMatch, value_digest};
use meltemi_compile::program::{Host, Locality};
use prost_types::Value;
use prost_types::value::Kind;

use super::layout::{Layout, Plan};
use super::turns::View;
use super::{Asked, Candidate};
use crate::stats::ClusterCounts;

/// The subsets of a cluster.
#[derive(Debug)]
pub(crate) struct SubsetLayouts {
    /// All hosts, where some fallback needs them.
    any: Option<Arc<Layout>>,
    /// The hosts of `default_subset`, likewise.
    default: Option<Arc<Layout>>,
    subsets: Vec<Subset>,
    /// Subsets by [`index_key`].
    index: HashMap<u64, Vec<usize>>,
}

#[derive(Debug)]
struct Subset {
    values: Vec<(Box<str>, Value)>,
    members: Members,
}

#[derive(Debug)]
enum Members {
    /// Of `single_host_per_subset`: the first host, whatever its health.
    Single(u32),
    Many(Arc<Layout>),
}

/// A subset while its hosts are collected.
struct Collected {
    values: Vec<(Box<str>, Value)>,
    is_single: bool,
    hosts: Vec<u32>,
}

impl SubsetLayouts {
    /// The subsets of all hosts.
    pub(crate) fn new(plan: Plan<'_>, config: &Subsets) -> SubsetLayouts {
        let hosts: Vec<&Host> = plan.endpoints.priorities.iter().flatten().collect();
        let wants = |fallback: &SubsetFallback| {
            config.fallback == *fallback
                || config.selectors.iter().any(|selector| selector.fallback.as_ref() == Some(fallback))
        };
        let layout = |members: &[u32]| Arc::new(layout_of(plan, config, &hosts, members));
        let numbers = || 0..hosts.len() as u32;
        let any = (wants(&SubsetFallback::AnyEndpoint) || config.panic_mode_any)
            .then(|| layout(&numbers().collect::<Vec<_>>()));
        let default = wants(&SubsetFallback::DefaultSubset).then(|| {
            let is_in = |number: &u32| {
                let criteria = config.default_subset.criteria().iter();
                criteria
                    .clone()
                    .all(|criterion| holds(hosts[*number as usize], criterion, config.list_as_any))
            };
            layout(&numbers().filter(is_in).collect::<Vec<_>>())
        });
        let (collected, index) = collect(&hosts, config);
        let subsets = collected
            .into_iter()
            .map(|subset| Subset {
                members: match subset.is_single {
                    true => Members::Single(subset.hosts[0]),
                    false => Members::Many(layout(&subset.hosts)),
                },
                values: subset.values,
            })
            .collect();
        SubsetLayouts { any, default, subsets, index }
    }

    fn find(&self, wanted: Wanted<'_>) -> Option<usize> {
        let key = index_key(wanted.criteria().map(|criterion| criterion.digest));
        self.index.get(&key)?.iter().copied().find(|subset| {
            let values = &self.subsets[*subset].values;
            values.len() == wanted.criteria().count()
                && values
                    .iter()
                    .zip(wanted.criteria())
                    .all(|((name, value), criterion)| *name == criterion.name && *value == criterion.value)
        })
    }

    fn find_values(&self, values: &[(Box<str>, Value)]) -> Option<usize> {
        let key = index_key(values.iter().map(|(_, value)| value_digest(value)));
        self.index.get(&key)?.iter().copied().find(|subset| self.subsets[*subset].values == values)
    }
}

/// The digests of a subset's values as one.
fn index_key(digests: impl Iterator<Item = u64>) -> u64 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    digests.fold(0, |key: u64, digest| (key.rotate_left(5) ^ digest).wrapping_mul(MULTIPLIER))
}

fn collect(hosts: &[&Host], config: &Subsets) -> (Vec<Collected>, HashMap<u64, Vec<usize>>) {
    let mut collected: Vec<Collected> = Vec::new();
    let mut index: HashMap<u64, Vec<usize>> = HashMap::new();
    for (number, host) in (0..).zip(hosts) {
        for selector in &config.selectors {
            for values in combinations(host, selector, config.list_as_any) {
                let key = index_key(values.iter().map(|(_, value)| value_digest(value)));
                let slots = index.entry(key).or_default();
                let slot = slots.iter().copied().find(|slot| collected[*slot].values == values);
                let slot = slot.unwrap_or_else(|| {
                    collected.push(Collected { values, is_single: selector.single_host, hosts: Vec::new() });
                    slots.push(collected.len() - 1);
                    collected.len() - 1
                });
                if collected[slot].hosts.last() != Some(&number) {
                    collected[slot].hosts.push(number);
                }
            }
        }
    }
    (collected, index)
}

/// The values of a host for all keys of a selector; none when it lacks one. Lists may stand for each of their values.
fn combinations(host: &Host, selector: &SubsetSelector, list_as_any: bool) -> Vec<Vec<(Box<str>, Value)>> {
    let mut found = vec![Vec::new()];
    for key in &selector.keys {
        let Some(value) = host.lb_metadata(key) else { return Vec::new() };
        let values = match &value.kind {
            Some(Kind::ListValue(list)) if list_as_any => &list.values[..],
            _ => std::slice::from_ref(value),
        };
        found = found
            .iter()
            .flat_map(|before: &Vec<(Box<str>, Value)>| {
                values.iter().map(move |value| {
                    let mut with = before.clone();
                    with.push((key.clone(), value.clone()));
                    with
                })
            })
            .collect();
    }
    if selector.keys.is_empty() { Vec::new() } else { found }
}

fn holds(host: &Host, criterion: &Criterion, list_as_any: bool) -> bool {
    let Some(value) = host.lb_metadata(&criterion.name) else { return false };
    match &value.kind {
        Some(Kind::ListValue(list)) if list_as_any => list.values.contains(&criterion.value),
        _ => *value == criterion.value,
    }
}

fn layout_of(plan: Plan<'_>, config: &Subsets, hosts: &[&Host], members: &[u32]) -> Layout {
    let weights = |priority: usize| {
        let weights =
            plan.endpoints.locality_weights.get(priority).filter(|_| config.locality_weight_aware)?;
        match config.scale_locality_weight {
            true => Some(scaled(plan, priority, weights, hosts, members)),
            false => Some(weights.clone()),
        }
    };
    Layout::new(plan, &|number| members.binary_search(&number).is_ok(), &weights)
}

/// The weights of localities, less the part of their hosts that is not in the subset.
fn scaled(
    plan: Plan<'_>,
    priority: usize,
    weights: &BTreeMap<Arc<Locality>, u32>,
    hosts: &[&Host],
    members: &[u32],
) -> BTreeMap<Arc<Locality>, u32> {
    let before: usize = plan.endpoints.priorities.iter().take(priority).map(Vec::len).sum();
    let all = before..before + plan.endpoints.priorities[priority].len();
    let scale = |(locality, weight): (&Arc<Locality>, &u32)| {
        let here = || all.clone().filter(|number| hosts[*number].locality == *locality);
        let left = here().filter(|number| members.binary_search(&(*number as u32)).is_ok()).count();
        // In single precision, as Envoy.
        let weight = (u64::from(*weight) * left as u64) as f32 / here().count().max(1) as f32;
        (Arc::clone(locality), weight.round() as u32)
    };
    weights.iter().map(scale).collect()
}

/// The criteria of a request, or only those of some names.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    all: &'a MetadataMatch,
    only: Option<&'a [Box<str>]>,
}

impl<'a> Wanted<'a> {
    fn criteria(self) -> impl Iterator<Item = &'a Criterion> {
        self.all
            .criteria()
            .iter()
            .filter(move |criterion| self.only.is_none_or(|only| only.contains(&criterion.name)))
    }

    fn has(self, name: &str) -> bool {
        self.criteria().any(|criterion| *criterion.name == *name)
    }

    fn only(self, names: &'a [Box<str>]) -> Wanted<'a> {
        Wanted { all: self.all, only: Some(names) }
    }
}

/// The subsets and the turns in each.
#[derive(Debug)]
pub(crate) struct SubsetViews {
    layouts: Arc<SubsetLayouts>,
    config: Rc<Subsets>,
    any: Option<View>,
    default: Option<View>,
    /// By subset; nothing for a single host.
    views: Vec<Option<View>>,
}

impl SubsetViews {
    pub(crate) fn new<H: Candidate>(
        policy: LbPolicy,
        config: &Subsets,
        layouts: Arc<SubsetLayouts>,
        hosts: &[H],
        old: Option<&SubsetViews>,
    ) -> SubsetViews {
        let view =
            |layout: &Arc<Layout>, old: Option<&View>| View::new(policy, Arc::clone(layout), hosts, old);
        let views = layouts.subsets.iter().map(|subset| {
            let Members::Many(layout) = &subset.members else { return None };
            let old = old.and_then(|old| old.views[old.layouts.find_values(&subset.values)?].as_ref());
            Some(view(layout, old))
        });
        SubsetViews {
            views: views.collect(),
            any: layouts.any.as_ref().map(|layout| view(layout, old.and_then(|old| old.any.as_ref()))),
            default: layouts
                .default
                .as_ref()
                .map(|layout| view(layout, old.and_then(|old| old.default.as_ref()))),
            config: Rc::new(config.clone()),
            layouts,
        }
    }

    /// The next host of the subset that the request asks for, or of the fallback.
    pub(crate) fn pick<H: Candidate>(
        &mut self,
        hosts: &[H],
        asked: &Asked<'_>,
        counts: &ClusterCounts,
    ) -> Option<u32> {
        let config = Rc::clone(&self.config);
        match asked.metadata {
            Some(all) => self.pick_wanted(&config, Wanted { all, only: None }, hosts, asked, counts),
            None => self.fall_back(hosts, asked, counts),
        }
    }

    fn pick_wanted<H: Candidate>(
        &mut self,
        config: &Subsets,
        wanted: Wanted<'_>,
        hosts: &[H],
        asked: &Asked<'_>,
        counts: &ClusterCounts,
    ) -> Option<u32> {
        let mut selectors = config.selectors.iter().filter(|_| config.allow_redundant_keys);
        let wanted = match selectors.find(|selector| selector.keys.iter().all(|key| wanted.has(key))) {
            Some(selector) => Wanted { all: wanted.all, only: Some(&selector.keys) },
            None => wanted,
        };
        if let Some(subset) = self.layouts.find(wanted) {
            counts.lb_subsets_selected.inc();
            return match &self.layouts.subsets[subset].members {
                Members::Single(host) => Some(*host),
                Members::Many(_) => self.views[subset].as_mut()?.pick(hosts, asked, counts),
            };
        }
        match selector_fallback(config, wanted) {
            Some(SubsetFallback::NoFallback) => None,
            Some(SubsetFallback::AnyEndpoint) => self.any.as_mut()?.pick(hosts, asked, counts),
            Some(SubsetFallback::DefaultSubset) => self.default.as_mut()?.pick(hosts, asked, counts),
            // Fewer keys every time, so this ends.
            Some(SubsetFallback::Keys(keys)) => {
                self.pick_wanted(config, wanted.only(keys), hosts, asked, counts)
            }
            None => self.fall_back(hosts, asked, counts),
        }
    }

    fn fall_back<H: Candidate>(
        &mut self,
        hosts: &[H],
        asked: &Asked<'_>,
        counts: &ClusterCounts,
    ) -> Option<u32> {
        let fallback = match self.config.fallback {
            SubsetFallback::AnyEndpoint => self.any.as_mut(),
            SubsetFallback::DefaultSubset => self.default.as_mut(),
            SubsetFallback::NoFallback | SubsetFallback::Keys(_) => None,
        };
        if let Some(host) = fallback?.pick(hosts, asked, counts) {
            counts.lb_subsets_fallback.inc();
            return Some(host);
        }
        let any = self.any.as_mut().filter(|_| self.config.panic_mode_any);
        let host = any?.pick(hosts, asked, counts)?;
        counts.lb_subsets_fallback_panic.inc();
        Some(host)
    }
}

/// The fallback of the selector whose keys are these names. As in Envoy, a selector whose keys begin those of an earlier
/// one (in order of the alphabet) has none.
fn selector_fallback<'c>(config: &'c Subsets, wanted: Wanted<'_>) -> Option<&'c SubsetFallback> {
    let names = || wanted.criteria().map(|criterion| &*criterion.name);
    let is_meant = |selector: &SubsetSelector| {
        selector.keys.len() == names().count() && selector.keys.iter().map(|key| &**key).eq(names())
    };
    let found = config.selectors.iter().position(is_meant)?;
    let keys = &config.selectors[found].keys;
    let is_hidden = config.selectors[..found].iter().any(|earlier| earlier.keys.starts_with(keys));
    config.selectors[found].fallback.as_ref().filter(|_| !is_hidden)
}
