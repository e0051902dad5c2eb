//! The Gateways of one workload as one: whose servers are open, on which ports, and which of them share a port.
//!
//! Source: Istio `pilot/pkg/model/gateway.go` (`mergeGateways`, `resolvePorts`) and `push_context.go`
//! (`mergeGateways`, which Gateways select a workload).
//! Differs: a server name that two TLS servers of a port want belongs to the older one also where they name different
//! namespaces in front of it. Istio sends both, and Envoy refuses the listener.

mod target;
mod topology;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use meltemi_api::istio;

use crate::config::{Gateway, ServerHost, ServerKind, labels_match, oldest_first};
use crate::mesh::Snapshot;

use self::target::{SERVICES_ANNOTATION, Target};

pub use self::topology::GatewayTopology;

/// Whose Gateways are meant.
#[derive(Debug, Clone, Copy)]
pub struct GatewayWorkload<'a> {
    /// Namespace of the workload.
    pub namespace: &'a str,
    /// Labels of the workload.
    pub labels: &'a BTreeMap<String, String>,
    /// Its addresses, by which it is known as an endpoint.
    pub addresses: &'a [IpAddr],
    /// Clients come through Services, so that a server listens on the `targetPort` of its port. Otherwise nothing
    /// stands before the workload.
    pub is_behind_services: bool,
}

/// The servers of all Gateways that select a workload.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MergedGateway {
    /// What is open, by port and `bind`.
    pub ports: Vec<MergedPort>,
    /// Servers that are not open, and why.
    pub rejected: Vec<Rejected>,
}

/// The servers on one port and address.
#[derive(Debug, Clone, PartialEq)]
pub struct MergedPort {
    /// The port that is listened on.
    pub number: u16,
    /// The `bind` of the servers; `None` for all addresses.
    pub bind: Option<String>,
    /// Those without encryption: requests of all of them, or the bytes of one.
    pub plain: Vec<GatewayServer>,
    /// Those whose connections begin with TLS.
    pub encrypted: Vec<GatewayServer>,
}

/// A server of a Gateway.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayServer {
    /// The Gateway.
    pub gateway: Arc<Gateway>,
    /// Position among its servers.
    pub index: usize,
}

/// A server that is not open.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// The server.
    pub server: GatewayServer,
    /// The port that it would be on.
    pub port: u16,
    /// Why.
    pub reason: Rejection,
}

/// Why a server is not open.
#[derive(Debug, Clone, PartialEq)]
pub enum Rejection {
    /// The port speaks another protocol for this server.
    Protocol(GatewayServer),
    /// The host at this position of `hosts` belongs to that server.
    Host(usize, GatewayServer),
}

impl GatewayServer {
    /// What the user wrote.
    pub fn spec(&self) -> &istio::Server {
        &self.gateway.spec().servers[self.index]
    }

    /// What it makes of a connection.
    pub fn kind(&self) -> ServerKind {
        Gateway::kind(self.spec())
    }

    /// Its hosts, with the namespaces that may claim them.
    pub fn hosts(&self) -> Vec<ServerHost> {
        let namespace = &self.gateway.name.namespace;
        self.spec().hosts.iter().map(|host| ServerHost::parse(host, namespace)).collect()
    }

    /// The port that it names, which clients and routes know it by.
    pub fn port(&self) -> u16 {
        // `parse` lets no other number in.
        u16::try_from(self.spec().port.number).unwrap_or_default()
    }

    /// Its `bind`, if it says one.
    pub fn bind(&self) -> Option<&str> {
        self.spec().bind.as_deref().filter(|bind| !bind.is_empty())
    }
}

impl MergedGateway {
    /// The servers for a workload, older Gateways first.
    pub fn of(snapshot: &Snapshot, workload: GatewayWorkload<'_>) -> MergedGateway {
        let mut gateways: Vec<&Arc<Gateway>> = snapshot.config.gateways.values().collect();
        gateways.sort_by(|a, b| oldest_first(&a.object, &b.object));
        let targets = if workload.is_behind_services && !gateways.is_empty() {
            target::of_workload(snapshot, &workload)
        } else {
            Vec::new()
        };
        let mut merge = Merge::default();
        for gateway in gateways {
            let Some(selected) = Selected::by(gateway, &workload, &targets) else { continue };
            for index in 0..gateway.spec().servers.len() {
                let server = GatewayServer { gateway: Arc::clone(gateway), index };
                for port in selected.ports(server.port()) {
                    merge.add(&server, port);
                }
            }
        }
        MergedGateway { ports: merge.ports.into_values().collect(), rejected: merge.rejected }
    }
}

/// How a Gateway found a workload.
enum Selected<'a> {
    /// By its labels: what no Service has a port for is listened on as it is.
    ByLabels(&'a [Target<'a>]),
    /// By the Services that it names: it has no other ports than theirs.
    ByService(Vec<&'a Target<'a>>),
}

impl<'a> Selected<'a> {
    fn by(
        gateway: &Gateway,
        workload: &GatewayWorkload<'_>,
        targets: &'a [Target<'a>],
    ) -> Option<Selected<'a>> {
        if let Some(names) = gateway.object.meta.annotations.get(SERVICES_ANNOTATION) {
            let namespace = &gateway.name.namespace;
            let is_named = |target: &&Target<'_>| target.is_of(names, namespace);
            let named: Vec<&Target<'_>> = targets.iter().filter(is_named).collect();
            return (!named.is_empty()).then_some(Selected::ByService(named));
        }
        labels_match(&gateway.spec().selector, workload.labels).then_some(Selected::ByLabels(targets))
    }

    /// The ports that are listened on for a server's.
    fn ports(&self, number: u16) -> BTreeSet<u16> {
        match self {
            Selected::ByLabels(targets) => {
                let mut translating = targets.iter().filter(|t| t.translates && t.port == number);
                BTreeSet::from([translating.next().map_or(number, |t| t.target)])
            }
            Selected::ByService(targets) => {
                targets.iter().filter(|t| t.port == number).map(|t| t.target).collect()
            }
        }
    }
}

type PortKey = (u16, Option<String>);

#[derive(Default)]
struct Merge {
    ports: BTreeMap<PortKey, MergedPort>,
    /// Which server has a host of servers with TLS settings.
    hosts: BTreeMap<PortKey, BTreeMap<String, GatewayServer>>,
    rejected: Vec<Rejected>,
}

impl Merge {
    fn add(&mut self, server: &GatewayServer, number: u16) {
        let key = (number, server.bind().map(str::to_owned));
        let conflict = self.host_conflict(server, &key).or_else(|| self.protocol_conflict(server, &key));
        if let Some(reason) = conflict {
            self.rejected.push(Rejected { server: server.clone(), port: number, reason });
            return;
        }
        if server.spec().tls.is_some() {
            let own = claimed(server).into_iter().map(|host| (host, server.clone()));
            self.hosts.entry(key.clone()).or_default().extend(own);
        }
        let (number, bind) = key.clone();
        let empty = || MergedPort { number, bind, plain: Vec::new(), encrypted: Vec::new() };
        let port = self.ports.entry(key).or_insert_with(empty);
        let list = if server.kind().is_encrypted() { &mut port.encrypted } else { &mut port.plain };
        list.push(server.clone());
    }

    /// A host belongs to the server that had it first, and a server has all of its hosts or is not open.
    fn host_conflict(&self, server: &GatewayServer, key: &PortKey) -> Option<Rejection> {
        server.spec().tls.as_ref()?;
        let taken = self.hosts.get(key)?;
        let own = claimed(server).into_iter().enumerate();
        own.filter_map(|(position, host)| Some(Rejection::Host(position, taken.get(&host)?.clone()))).next()
    }

    /// Servers of plain HTTP share a port, and so do those of TLS; plain text may join TLS, but not the reverse.
    fn protocol_conflict(&self, server: &GatewayServer, key: &PortKey) -> Option<Rejection> {
        let first = self.ports.get(key)?.plain.first()?;
        let fits = server.kind() == ServerKind::Http && first.kind() == ServerKind::Http;
        (!fits).then(|| Rejection::Protocol(first.clone()))
    }
}

/// What a server claims on its port: server names, or, without encryption, hosts of a namespace.
fn claimed(server: &GatewayServer) -> Vec<String> {
    let is_encrypted = server.kind().is_encrypted();
    let claim = |host: ServerHost| match host.namespace {
        Some(namespace) if !is_encrypted => format!("{namespace}/{}", host.host),
        _ => host.host.to_string(),
    };
    server.hosts().into_iter().map(claim).collect()
}
