//! Servers of Gateways that get in each other's way, and the Secrets that they name.

use std::collections::BTreeSet;

use meltemi_api::istio::{Server, ServerTlsSettings, TlsMode};
use meltemi_api::{Diagnostic, codes};

use crate::check::{Workloads, server_name};
use crate::config::Gateway;
use crate::gateway::{GatewayWorkload, MergedGateway, Rejected, Rejection};
use crate::mesh::Snapshot;
use crate::secret::{CA_SUFFIX, CredentialName};

pub(super) fn check(snapshot: &Snapshot, workloads: &Workloads<'_>, diagnostics: &mut Vec<Diagnostic>) {
    for gateway in snapshot.config.gateways.values() {
        for (index, server) in gateway.spec().servers.iter().enumerate() {
            let secrets = Credentials { snapshot, workloads, gateway, index };
            secrets.check(server, diagnostics);
        }
    }
    for finding in closed_servers(snapshot) {
        let is_known = |known: &Diagnostic| known.object == finding.object && known.field == finding.field;
        if !diagnostics.iter().any(is_known) {
            diagnostics.push(finding);
        }
    }
}

/// Servers and server names that some workload does not open: one workload for each selector.
fn closed_servers(snapshot: &Snapshot) -> Vec<Diagnostic> {
    let gateways = || snapshot.config.gateways.values();
    let workloads: BTreeSet<_> = gateways().map(|g| (&g.spec().selector, &*g.name.namespace)).collect();
    let found = workloads.into_iter().flat_map(|(labels, namespace)| {
        let workload = GatewayWorkload { namespace, labels, addresses: &[], is_behind_services: true };
        let merged = MergedGateway::of(snapshot, workload);
        let names = merged.ports.iter().flat_map(|port| server_name::check(snapshot, port));
        merged.rejected.iter().map(closed).chain(names).collect::<Vec<_>>()
    });
    found.collect()
}

fn closed(Rejected { server, port, reason }: &Rejected) -> Diagnostic {
    let at = format!("spec.servers[{}]", server.index);
    match reason {
        Rejection::Protocol(first) => {
            let owner = &first.gateway.object.id;
            let message = format!("port {port} already speaks another protocol for {owner}");
            let field = format!("{at}.port.protocol");
            Diagnostic::new(&codes::PORT_CONFLICT, message).at(&server.gateway.object, field)
        }
        Rejection::Host(position, first) => {
            let host = &server.hosts()[*position].host;
            let message = format!("`{host}` on port {port} already belongs to {}", first.gateway.object.id);
            let field = format!("{at}.hosts[{position}]");
            Diagnostic::new(&codes::DUPLICATE_SERVER, message).at(&server.gateway.object, field)
        }
    }
}

/// The Secrets of one server.
struct Credentials<'a> {
    snapshot: &'a Snapshot,
    workloads: &'a Workloads<'a>,
    gateway: &'a Gateway,
    index: usize,
}

impl Credentials<'_> {
    fn check(&self, server: &Server, diagnostics: &mut Vec<Diagnostic>) {
        let Some(tls) =
            server.tls.as_ref().filter(|tls| !tls.mode().is_passthrough() && !tls.mode().is_of_mesh())
        else {
            return;
        };
        let list = !tls.credential_names.is_empty();
        for (position, name) in tls.credentials().iter().enumerate() {
            let field =
                if list { format!("credentialNames[{position}]") } else { "credentialName".to_owned() };
            diagnostics.extend(self.key_pair(name, &field));
        }
        diagnostics.extend(self.ca(tls));
    }

    fn key_pair(&self, name: &str, field: &str) -> Option<Diagnostic> {
        let (namespace, name) = self.place(name);
        let secrets = &self.snapshot.secrets;
        let Some(secret) = secrets.get(&namespace, name) else {
            return Some(self.unknown(&namespace, name, field));
        };
        if secrets.key_pair(&namespace, name).is_some() {
            return None;
        }
        let found = secret.keys().collect::<Vec<_>>().join(", ");
        let message =
            format!("Secret {namespace}/{name} has neither `tls.crt` and `tls.key` nor `cert` and `key`");
        let help = if found.is_empty() { "it is empty".to_owned() } else { format!("it has {found}") };
        Some(self.at(Diagnostic::new(&codes::INCOMPLETE_SECRET, message).help(help), field))
    }

    fn ca(&self, tls: &ServerTlsSettings) -> Option<Diagnostic> {
        let (name, field) = match &tls.ca_cert_credential_name {
            Some(name) => (name.clone(), "caCertCredentialName"),
            None => (format!("{}{CA_SUFFIX}", tls.credentials().first()?), "credentialName"),
        };
        let asks = matches!(tls.mode(), TlsMode::Mutual | TlsMode::OptionalMutual);
        let (namespace, name) = self.place(&name);
        let secrets = &self.snapshot.secrets;
        let stripped = name.strip_suffix(CA_SUFFIX).unwrap_or(name);
        let is_there = secrets.get(&namespace, name).or_else(|| secrets.get(&namespace, stripped)).is_some();
        if !asks || !is_there || secrets.ca_certificates(&namespace, name).is_some() {
            return None;
        }
        let message = format!(
            "Secret {namespace}/{stripped} has neither `ca.crt` nor `cacert` for client certificates"
        );
        let help = format!("add it there, or to a Secret `{stripped}{CA_SUFFIX}`");
        Some(self.at(Diagnostic::new(&codes::INCOMPLETE_SECRET, message).help(help), field))
    }

    /// Where a name leads: to the namespace of the gateway's workload, which may not be known.
    fn place<'n>(&self, name: &'n str) -> (String, &'n str) {
        let name = CredentialName::parse(name);
        let of_workload = self.workloads.namespaces(&self.gateway.spec().selector);
        let own = match of_workload.as_slice() {
            [only] => only,
            _ => &*self.gateway.name.namespace,
        };
        (name.namespace.unwrap_or(own).to_owned(), name.name)
    }

    fn unknown(&self, namespace: &str, name: &str, field: &str) -> Diagnostic {
        let message = format!("there is no Secret {namespace}/{name}");
        let help = "a gateway reads Secrets of the namespace that its workload runs in";
        self.at(Diagnostic::new(&codes::UNKNOWN_SECRET, message).help(help), field)
    }

    fn at(&self, diagnostic: Diagnostic, field: &str) -> Diagnostic {
        diagnostic.at(&self.gateway.object, format!("spec.servers[{}].tls.{field}", self.index))
    }
}
