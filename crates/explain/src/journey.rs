//! [`Journey`]: a request from hop to hop, as far as the mesh carries it.

use std::collections::BTreeMap;

use meltemi_envoy::config::cluster::v3::Cluster;
use meltemi_snapshot::{Endpoint, EndpointAddress};
use serde::Serialize;

use crate::call::{Call, HeaderValues, Mode, Protocol, Security};
use crate::chance::{self, Chance};
use crate::explanation::Explanation;
use crate::mesh::Mesh;
use crate::proxy::{Kind, Proxy};
use crate::verdict::Share;
use crate::workload::Workload;

/// Proxies on the way that are followed: sidecar, egress gateway, and what lies behind.
const MAX_HOPS: usize = 4;

/// What a client asks for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `:method`.
    pub method: String,
    /// `http`, `https` or `tcp`.
    pub scheme: String,
    /// Host of the URL.
    pub host: String,
    /// Port of the URL, or the scheme's.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// The client speaks HTTP/2 from the start.
    pub is_http2: bool,
    /// Headers.
    pub headers: BTreeMap<String, HeaderValues>,
}

/// A request through the mesh.
#[derive(Debug, Clone, Serialize)]
pub struct Journey {
    /// Who sends it.
    pub from: String,
    /// What each proxy does with it.
    pub hops: Vec<Hop>,
}

impl Journey {
    /// Whether the request gets to somebody, or is answered by a proxy on purpose.
    pub fn arrives(&self) -> bool {
        self.hops.iter().all(|hop| hop.explanation.verdict.error.is_none())
    }
}

/// What one proxy does.
#[derive(Debug, Clone, Serialize)]
pub struct Hop {
    /// Whose proxy.
    pub proxy: String,
    /// `outbound`, `inbound` or `gateway`.
    pub direction: &'static str,
    /// What it does.
    #[serde(flatten)]
    pub explanation: Explanation,
    /// Where the request may go.
    pub destinations: Vec<Destination>,
}

/// A cluster, with its share of the requests and its endpoints.
#[derive(Debug, Clone, Serialize)]
pub struct Destination {
    /// The cluster.
    pub cluster: String,
    /// Its share in percent.
    pub percent: f64,
    /// How connections to it are secured, in words.
    pub security: &'static str,
    /// Its endpoints with their chances.
    pub endpoints: Vec<Chance>,
}

impl Mesh {
    /// Follows a request from a workload, or from outside to a gateway (`gateway/NAME`).
    ///
    /// # Errors
    /// If there is no such workload, or none of its kind can have a proxy.
    pub fn follow(&self, from: &str, request: &Request) -> Result<Journey, String> {
        let from = self.find(from)?;
        let mode = if from.kind == Kind::Router { Mode::Gateway } else { Mode::Outbound };
        let call = self.call(&from, mode, request);
        let mut journey = Journey { from: from.title(), hops: Vec::new() };
        self.hop(&from, &call, &mut journey.hops)?;
        Ok(journey)
    }

    fn call(&self, from: &Workload, mode: Mode, request: &Request) -> Call {
        let is_default = matches!((request.scheme.as_str(), request.port), ("http", 80) | ("https", 443));
        let host =
            if is_default { request.host.clone() } else { format!("{}:{}", request.host, request.port) };
        let address = self.address(&from.namespace, &request.host).unwrap_or_default();
        Call {
            mode,
            address: if mode == Mode::Outbound { address } else { String::new() },
            port: request.port,
            protocol: match (request.scheme.as_str(), request.is_http2) {
                ("tcp", _) => Protocol::Tcp,
                (_, true) => Protocol::Http2,
                _ => Protocol::Http,
            },
            tls: if request.scheme == "https" { Security::Tls } else { Security::Plaintext },
            host,
            method: request.method.clone(),
            path: request.path.clone(),
            headers: request.headers.clone(),
            ..Call::default()
        }
    }

    /// The address that a name resolves to for a client in `namespace`; `None` when the mesh knows none.
    fn address(&self, namespace: &str, host: &str) -> Option<String> {
        if host.parse::<std::net::IpAddr>().is_ok() {
            return Some(host.to_owned());
        }
        let in_own = format!("{host}.{namespace}.svc.cluster.local");
        let in_other = format!("{}.svc.cluster.local", host.trim_end_matches(".svc"));
        let services = || self.snapshot.services.iter();
        let by_name = |name: &str| services().find(|service| service.host.as_str() == name);
        let service = [host, &in_own, &in_other].into_iter().find_map(by_name)?;
        service.addresses.iter().find(|address| !address.contains('/')).cloned()
    }

    /// One proxy, and those behind it.
    fn hop(&self, workload: &Workload, call: &Call, hops: &mut Vec<Hop>) -> Result<(), String> {
        let address = (call.mode == Mode::Inbound).then_some(call.address.as_str());
        let proxy = self.proxy(&workload.proxy(address))?;
        let explanation = proxy.explain(call);
        let destinations = match call.mode {
            // Behind the proxy of a workload is the workload.
            Mode::Inbound => Vec::new(),
            Mode::Outbound | Mode::Gateway => self.destinations(&proxy, &explanation.verdict.clusters),
        };
        let next = self.next_hops(&destinations, call, &explanation);
        hops.push(Hop {
            proxy: workload.title(),
            direction: direction(call.mode),
            explanation,
            destinations,
        });
        for (workload, call) in next {
            if hops.len() < MAX_HOPS {
                self.hop(&workload, &call, hops)?;
            }
        }
        Ok(())
    }

    fn destinations(&self, proxy: &Proxy, shares: &[Share]) -> Vec<Destination> {
        let total: f64 = shares.iter().map(|share| f64::from(share.weight)).sum();
        let of = |share: &Share| Destination {
            cluster: share.name.clone(),
            percent: if total > 0.0 { f64::from(share.weight) / total * 100.0 } else { 0.0 },
            security: proxy.cluster(&share.name).map_or("", |cluster| in_words(&cluster)),
            endpoints: chance::of(&self.snapshot, proxy, &share.name),
        };
        shares.iter().map(of).collect()
    }

    /// The workloads behind the destinations, each once, and the call as it arrives there.
    fn next_hops(
        &self,
        destinations: &[Destination],
        call: &Call,
        told: &Explanation,
    ) -> Vec<(Workload, Call)> {
        let mut next: Vec<(Workload, Call)> = Vec::new();
        for destination in destinations {
            for chance in &destination.endpoints {
                let Some(endpoint) = &chance.endpoint else { continue };
                let Some(workload) = self.workload_of(endpoint) else { continue };
                if next.iter().any(|(known, _)| *known == workload) {
                    continue;
                }
                let arriving = arriving(call, told, endpoint, &workload, destination.security);
                next.push((workload, arriving));
            }
        }
        next
    }

    fn workload_of(&self, endpoint: &Endpoint) -> Option<Workload> {
        let known = self.workloads();
        let same = |workload: &&Workload| {
            *workload.namespace == *endpoint.namespace && workload.name == endpoint.workload
        };
        known.iter().find(same).cloned()
    }
}

/// The call as it meets the next proxy.
fn arriving(
    call: &Call,
    told: &Explanation,
    endpoint: &Endpoint,
    workload: &Workload,
    security: &str,
) -> Call {
    let is_mutual = security == MUTUAL && endpoint.has_mtls;
    Call {
        mode: if workload.kind == Kind::Router { Mode::Gateway } else { Mode::Inbound },
        address: match &endpoint.address {
            EndpointAddress::Ip(ip) => ip.to_string(),
            EndpointAddress::Name(_) | EndpointAddress::Pipe(_) => String::new(),
        },
        port: endpoint.port,
        tls: if is_mutual { Security::Mtls } else { call.tls },
        sni: String::new(),
        alpn: String::new(),
        path: if told.next_path.is_empty() { call.path.clone() } else { told.next_path.clone() },
        ..call.clone()
    }
}

fn direction(mode: Mode) -> &'static str {
    match mode {
        Mode::Outbound => "outbound",
        Mode::Inbound => "inbound",
        Mode::Gateway => "gateway",
    }
}

/// Connections to endpoints that speak it are mutual TLS of the mesh.
const MUTUAL: &str = "mutual TLS of the mesh where the endpoint speaks it";

fn in_words(cluster: &Cluster) -> &'static str {
    match (cluster.transport_socket_matches.is_empty(), &cluster.transport_socket) {
        (false, _) => MUTUAL,
        (true, Some(socket)) if socket.name.contains("tls") => "TLS as the DestinationRule says",
        (true, Some(_)) => "as its transport socket says",
        (true, None) => "as it came",
    }
}
