//! Sentences about single proxies become sentences about the mesh: what is said of several is said once, with who they are.

use std::collections::{BTreeMap, BTreeSet};

use meltemi_translate::Role;
use serde::Serialize;

use super::Proxy;
use super::host::Knowledge;

/// Proxies that are named; more are counted.
const MAX_NAMED: usize = 4;

/// A sentence about one proxy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Said {
    pub(super) text: String,
    /// The host that it is about, if it is about calls to one.
    pub(super) host: Option<String>,
    /// What the user wrote that makes the difference.
    pub(super) by: Option<String>,
}

impl Said {
    pub(super) fn new(text: String) -> Said {
        Said { text, host: None, by: None }
    }

    pub(super) fn of(host: &str, text: String) -> Said {
        Said { text, host: Some(host.to_owned()), by: None }
    }
}

/// Something that would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Statement {
    /// What, and for whom.
    pub text: String,
    /// The proxies.
    pub proxies: Vec<String>,
    /// What the user wrote that makes the difference, as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// All sentences, each once, in the order in which they were said first.
pub(super) fn gather(said: Vec<(String, Said)>, knowledge: &Knowledge, all: &[Proxy]) -> Vec<Statement> {
    let mut order: Vec<Said> = Vec::new();
    let mut proxies: BTreeMap<Said, BTreeSet<String>> = BTreeMap::new();
    for (proxy, said) in said {
        let of = proxies.entry(said.clone()).or_default();
        if of.is_empty() {
            order.push(said);
        }
        of.insert(proxy);
    }
    let statements = order.into_iter().map(|said| {
        let of = proxies.remove(&said).unwrap_or_default();
        let whom = whom(&of, said.host.as_deref(), knowledge, all);
        Statement {
            text: format!("{} for {whom}", said.text),
            proxies: of.into_iter().collect(),
            by: said.by,
        }
    });
    statements.collect()
}

/// In the fewest words.
fn whom(of: &BTreeSet<String>, host: Option<&str>, knowledge: &Knowledge, all: &[Proxy]) -> String {
    let is_all_of = |wanted: fn(&Proxy) -> bool| {
        let mut wanted = all.iter().filter(|proxy| wanted(proxy)).peekable();
        wanted.peek().is_some() && wanted.all(|proxy| of.contains(&proxy.name))
    };
    if host.is_some_and(|host| knowledge.callers(host).is_subset(of)) {
        return "all callers".to_owned();
    }
    let is_sidecar = |proxy: &Proxy| matches!(proxy.role(), RoleName::Sidecar);
    let is_gateway = |proxy: &Proxy| matches!(proxy.role(), RoleName::Gateway);
    if of.len() == all.len() {
        return "all proxies".to_owned();
    }
    let names: BTreeSet<&str> =
        all.iter().filter(|proxy| is_sidecar(proxy)).map(|proxy| proxy.name.as_str()).collect();
    if of.len() == names.len() && is_all_of(is_sidecar) {
        return "all sidecars".to_owned();
    }
    if of.len() + names.len() == all.len() && is_all_of(is_gateway) {
        return "all gateways".to_owned();
    }
    let names = workloads(of, all);
    match names.len() {
        count if count <= MAX_NAMED => names.join(", "),
        _ => format!("{} of {} proxies", of.len(), all.len()),
    }
}

#[derive(Clone, Copy)]
enum RoleName {
    Sidecar,
    Gateway,
    Other,
}

impl Proxy {
    fn role(&self) -> RoleName {
        match self.shape.role {
            Role::Sidecar { .. } => RoleName::Sidecar,
            Role::Router { .. } => RoleName::Gateway,
            _ => RoleName::Other,
        }
    }
}

/// The proxies, replicas of one workload together.
fn workloads(of: &BTreeSet<String>, all: &[Proxy]) -> Vec<String> {
    let workload = |name: &str| {
        let (instance, namespace) =
            name.split_once('.').map_or((name, ""), |(instance, rest)| (instance, rest));
        let stem =
            instance.rsplit_once('-').filter(|(_, index)| index.parse::<u32>().is_ok()).map(|(stem, _)| stem);
        (stem.unwrap_or(instance).to_owned(), namespace.to_owned())
    };
    let mut left = of.clone();
    let mut names = Vec::new();
    while let Some(first) = left.pop_first() {
        let mates: BTreeSet<String> = all
            .iter()
            .map(|proxy| proxy.name.clone())
            .filter(|name| workload(name) == workload(&first))
            .collect();
        if mates.len() > 1 && mates.iter().all(|name| of.contains(name)) {
            left.retain(|name| !mates.contains(name));
            let (stem, namespace) = workload(&first);
            names.push(if namespace.is_empty() { stem } else { format!("{stem}.{namespace}") });
        } else {
            names.push(first);
        }
    }
    names
}
