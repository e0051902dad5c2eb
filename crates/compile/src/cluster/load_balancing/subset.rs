//! `lb_subset_config`, and the typed policy that says the same.

use meltemi_envoy::config::cluster::v3::cluster::LbSubsetConfig;
use meltemi_envoy::config::cluster::v3::cluster::lb_subset_config::LbSubsetSelector as OldSelector;
use meltemi_envoy::extensions::load_balancing_policies::subset::v3::Subset;
use meltemi_envoy::extensions::load_balancing_policies::subset::v3::subset::lb_subset_selector::LbSubsetSelectorFallbackPolicy;
use meltemi_envoy::extensions::load_balancing_policies::subset::v3::subset::{
    LbSubsetFallbackPolicy, LbSubsetSelector,
};

use super::typed::{WithSubsets, first_known};
use crate::ledger::{At, refuse};
use crate::load_balancing::{SubsetFallback, SubsetSelector, Subsets};
use crate::metadata_match::MetadataMatch;

/// Compiles the typed policy with the one inside it.
pub(super) fn compile(at: &At<'_>, message: &Subset) -> WithSubsets {
    let Some(inner) = &message.subset_lb_policy else {
        return at.field("subset_lb_policy").none("must be set");
    };
    let (policy, locality, nested) = first_known(&at.field("subset_lb_policy"), inner)?;
    if nested.is_some() {
        return at.field("subset_lb_policy").none("not supported: subsets of subsets");
    }
    Some((policy, locality, subsets(at, message)))
}

/// The old field as the typed message.
pub(super) fn legacy(message: &LbSubsetConfig) -> Subset {
    let LbSubsetConfig {
        fallback_policy,
        default_subset,
        subset_selectors,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
    } = message.clone();
    let selector = |selector: OldSelector| {
        let OldSelector { keys, single_host_per_subset, fallback_policy, fallback_keys_subset } = selector;
        LbSubsetSelector { keys, single_host_per_subset, fallback_policy, fallback_keys_subset }
    };
    Subset {
        fallback_policy,
        default_subset,
        subset_selectors: subset_selectors.into_iter().map(selector).collect(),
        allow_redundant_keys: false,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
        subset_lb_policy: None,
    }
}

/// `None` without selectors: then there are no subsets, in Envoy neither.
pub(super) fn subsets(at: &At<'_>, message: &Subset) -> Option<Subsets> {
    let Subset {
        fallback_policy,
        default_subset,
        subset_selectors,
        allow_redundant_keys,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
        subset_lb_policy: _,
    } = message;
    refuse!(at; metadata_fallback_policy);
    let fallback = match at.choice("fallback_policy", *fallback_policy)? {
        LbSubsetFallbackPolicy::NoFallback => SubsetFallback::NoFallback,
        LbSubsetFallbackPolicy::AnyEndpoint => SubsetFallback::AnyEndpoint,
        LbSubsetFallbackPolicy::DefaultSubset => SubsetFallback::DefaultSubset,
    };
    let selectors = at.each("subset_selectors", subset_selectors, selector);
    (!selectors.is_empty()).then(|| Subsets {
        fallback,
        default_subset: MetadataMatch::new(default_subset.as_ref().unwrap_or(&Default::default())),
        selectors,
        allow_redundant_keys: *allow_redundant_keys,
        locality_weight_aware: *locality_weight_aware,
        scale_locality_weight: *scale_locality_weight,
        panic_mode_any: *panic_mode_any,
        list_as_any: *list_as_any,
    })
}

fn selector(at: &At<'_>, message: &LbSubsetSelector) -> Option<SubsetSelector> {
    let LbSubsetSelector { keys, single_host_per_subset, fallback_policy, fallback_keys_subset } = message;
    let keys = sorted(keys);
    let fallback_keys = sorted(fallback_keys_subset);
    let policy = at.choice("fallback_policy", *fallback_policy)?;
    check_fallback_keys(
        &at.field("fallback_keys_subset"),
        policy == LbSubsetSelectorFallbackPolicy::KeysSubset,
        &keys,
        &fallback_keys,
    );
    let fallback = match policy {
        LbSubsetSelectorFallbackPolicy::NotDefined => None,
        LbSubsetSelectorFallbackPolicy::NoFallback => Some(SubsetFallback::NoFallback),
        LbSubsetSelectorFallbackPolicy::AnyEndpoint => Some(SubsetFallback::AnyEndpoint),
        LbSubsetSelectorFallbackPolicy::DefaultSubset => Some(SubsetFallback::DefaultSubset),
        LbSubsetSelectorFallbackPolicy::KeysSubset => Some(SubsetFallback::Keys(fallback_keys)),
    };
    Some(SubsetSelector { keys, single_host: *single_host_per_subset, fallback })
}

fn check_fallback_keys(at: &At<'_>, is_used: bool, keys: &[Box<str>], fallback: &[Box<str>]) {
    match (is_used, fallback) {
        (false, []) => {}
        (false, _) => at.reject("fallback_keys_subset can be set only for KEYS_SUBSET fallback_policy"),
        (true, []) => at.reject("fallback_keys_subset cannot be empty"),
        (true, _) if !fallback.iter().all(|key| keys.contains(key)) => {
            at.reject("fallback_keys_subset must be a subset of selector keys");
        }
        (true, _) if fallback.len() == keys.len() => {
            at.reject("fallback_keys_subset cannot be equal to keys")
        }
        (true, _) => {}
    }
}

fn sorted(keys: &[String]) -> Vec<Box<str>> {
    let mut keys: Vec<Box<str>> = keys.iter().map(|key| key.as_str().into()).collect();
    keys.sort();
    keys.dedup();
    keys
}
