//! The trust domain that the mesh runs with: what the command line says, else MeshConfig as it was at the start. Every
//! certificate says it, so it does not change while the mesh runs. Leaves out who is let in because of it.

use anyhow::Context;
use meltemi_api::{Diagnostic, codes};
use meltemi_identity::TrustDomain;
use meltemi_snapshot::MeshConfig;
use meltemi_translate::MeshIdentity;

use crate::CaArgs;

/// What identities begin with where nobody says it. Istio's default.
const DEFAULT: &str = "cluster.local";

/// The trust domain of a running mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trust {
    pub(crate) domain: TrustDomain,
    pub(crate) aliases: Vec<TrustDomain>,
    /// Whether the command line says the aliases.
    by_flag: bool,
}

impl Trust {
    /// The flags win over MeshConfig, each for itself.
    ///
    /// # Errors
    /// If MeshConfig has no sound trust domain, which the parser excludes.
    pub(crate) fn of(args: &CaArgs, mesh: &MeshConfig) -> anyhow::Result<Trust> {
        let wire = mesh.wire();
        let said = wire.and_then(|wire| wire.trust_domain.as_deref()).unwrap_or(DEFAULT);
        let domain = args.trust_domain.clone().map_or_else(|| said.parse().context("trustDomain"), Ok)?;
        let aliases = match (args.trust_domain_alias.as_slice(), wire) {
            ([], Some(wire)) => {
                let read = |name: &String| name.parse().context("trustDomainAliases");
                wire.trust_domain_aliases.iter().map(read).collect::<anyhow::Result<_>>()?
            }
            (of_flags, _) => of_flags.to_vec(),
        };
        Ok(Trust { domain, aliases, by_flag: !args.trust_domain_alias.is_empty() })
    }

    /// The trust domain, then its aliases.
    pub(crate) fn all(&self) -> Vec<TrustDomain> {
        std::iter::once(&self.domain).chain(&self.aliases).cloned().collect()
    }

    /// What certificates say of the mesh.
    pub(crate) fn identity(&self) -> MeshIdentity {
        MeshIdentity {
            trust_domain: self.domain.to_string(),
            aliases: self.aliases.iter().map(ToString::to_string).collect(),
        }
    }

    /// What MeshConfig says now and is not in force.
    pub(crate) fn findings(&self, mesh: &MeshConfig) -> Vec<Diagnostic> {
        let Some(wire) = mesh.wire() else { return Vec::new() };
        let mut found = Vec::new();
        let help =
            "start it again, without the flag if there is one, when every workload may get new certificates";
        if let Some(said) = wire.trust_domain.as_deref().filter(|said| *said != self.domain.as_str()) {
            let message = format!("the mesh runs with the trust domain `{}`, not with `{said}`", self.domain);
            let diagnostic = Diagnostic::new(&codes::NEEDS_RESTART, message).help(help);
            found.push(mesh.finding("trustDomain", diagnostic));
        }
        let is_known = |name: &String| self.aliases.iter().any(|alias| alias.as_str() == name);
        let said = &wire.trust_domain_aliases;
        let is_same = said.len() == self.aliases.len() && said.iter().all(is_known);
        let is_left_to_flags = self.by_flag && said.is_empty();
        if !is_same && !is_left_to_flags {
            let names: Vec<&str> = self.aliases.iter().map(TrustDomain::as_str).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let message = format!("the mesh runs with other aliases of its trust domain: {names}");
            let diagnostic = Diagnostic::new(&codes::NEEDS_RESTART, message);
            found.push(mesh.finding("trustDomainAliases", diagnostic.help(help)));
        }
        found
    }
}
