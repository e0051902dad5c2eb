//! Whether ports can be had, asked before anything needs them. The proxies bind them for real; a refusal there would
//! reach the user as a rejected listener, without the field that asked for it.
//!
//! Proxies bind with `SO_REUSEPORT`, so two meshes of one user could share a gateway's port without noticing, and each
//! would get some of the other's connections. Therefore `up` claims the port by a name that only one process can have.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::sync::Arc;

use meltemi_api::{Code, Diagnostic, Object, codes};

use crate::plan::Plan;

/// Ports from here on need no right.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// The ports of this mesh's gateways, claimed until it ends.
#[derive(Debug)]
pub(crate) struct GatewayPorts {
    default_bind: IpAddr,
    /// The kernel frees a name when its socket closes, however that happens.
    held: BTreeMap<SocketAddr, UnixListener>,
}

impl GatewayPorts {
    /// Nothing claimed. Servers without a `bind` listen on `default_bind`.
    pub(crate) fn new(default_bind: IpAddr) -> GatewayPorts {
        GatewayPorts { default_bind, held: BTreeMap::new() }
    }

    /// Claims what the plan needs and frees what it needs no more; one finding per address that cannot be had.
    pub(crate) fn claim(&mut self, plan: &Plan, objects: &[Arc<Object>]) -> Vec<Diagnostic> {
        let servers = || plan.gateways.iter().flat_map(|gateway| &gateway.servers);
        let socket = |bind: Option<IpAddr>, port| SocketAddr::new(bind.unwrap_or(self.default_bind), port);
        let wanted: BTreeSet<SocketAddr> = servers().map(|server| socket(server.bind, server.port)).collect();
        let named: BTreeMap<SocketAddr, _> =
            servers().rev().map(|server| (socket(server.bind, server.port), server)).collect();
        self.held.retain(|held, _| wanted.contains(held));
        let mut findings = Vec::new();
        for (socket, server) in named {
            if self.held.contains_key(&socket) {
                continue;
            }
            match claim(socket) {
                Ok(claim) => drop(self.held.insert(socket, claim)),
                Err(error) => {
                    let (code, message, help) = refusal(socket, &error);
                    let object = objects.iter().find(|object| object.id == server.gateway);
                    let finding = Diagnostic::new(code, message).help(help);
                    findings.push(match object {
                        Some(object) => finding.at(object, server.field.clone()),
                        None => finding,
                    });
                }
            }
        }
        findings
    }
}

/// The claim on a port that nobody listens on now.
fn claim(socket: SocketAddr) -> io::Result<UnixListener> {
    let name = UnixAddr::from_abstract_name(format!("meltemi-gateway-{socket}"))?;
    let claim = UnixListener::bind_addr(&name)?;
    TcpListener::bind(socket)?;
    Ok(claim)
}

fn refusal(socket: SocketAddr, error: &io::Error) -> (&'static Code, String, &'static str) {
    match error.kind() {
        ErrorKind::AddrInUse => (
            &codes::GATEWAY_PORT_IN_USE,
            format!("{socket} is in use by another process"),
            "stop that process, choose another port here, or listen on another address with --bind",
        ),
        ErrorKind::PermissionDenied => (
            &codes::GATEWAY_PORT_DENIED,
            format!("listening on {socket} needs a right that this user does not have"),
            "choose a port from 1024 up, or lower the machine's limit: sysctl net.ipv4.ip_unprivileged_port_start",
        ),
        _ => (
            &codes::GATEWAY_ADDRESS,
            format!("cannot listen on {socket}: {error}"),
            "name an address of this machine in `bind`, or with --bind",
        ),
    }
}

/// One finding per Deployment whose sidecar would need a right that this user lacks.
pub(crate) fn sidecar_ports(plan: &Plan, objects: &[Arc<Object>]) -> Vec<Diagnostic> {
    let denied = plan.workloads.iter().filter_map(|workload| {
        let address = IpAddr::V4(workload.replicas.first()?.address);
        let low = workload.inbound.iter().find(|port| port.number < FIRST_UNPRIVILEGED_PORT)?;
        let error = TcpListener::bind(SocketAddr::new(address, low.number)).err()?;
        if error.kind() != ErrorKind::PermissionDenied {
            return None;
        }
        let object = objects.iter().find(|object| object.id == workload.id)?;
        let message = format!("listening on port {} needs a right that this user does not have", low.number);
        let help = "use a port from 1024 up in the container and as `targetPort` of its Service";
        let field = "spec.template.spec.containers[0].ports";
        Some(Diagnostic::new(&codes::SIDECAR_PORT_DENIED, message).at(object, field).help(help))
    });
    denied.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Memory, plan};

    fn gateway(port: u16) -> (Plan, Vec<Arc<Object>>) {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: shop}}\nspec:\n  selector: {{istio: x}}\n  \
             servers:\n  - port: {{number: {port}, name: http, protocol: HTTP}}\n    hosts: ['*']\n"
        );
        let (objects, _) = meltemi_api::parse(&text, &Arc::from("gateway.yaml"));
        let objects: Vec<_> = objects.into_iter().map(Arc::new).collect();
        (plan(&objects, &mut Memory::new([127, 64, 1, 1].into(), 20_000)).0, objects)
    }

    #[test]
    fn a_port_in_use_names_the_field_that_asked_for_it() {
        let squatter = TcpListener::bind("127.0.0.1:0").unwrap();
        let (plan, objects) = gateway(squatter.local_addr().unwrap().port());
        let mut ports = GatewayPorts::new("127.0.0.1".parse().unwrap());
        let findings = ports.claim(&plan, &objects);
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].code, &*findings[0].field), ("MEL0407", "spec.servers[0].port.number"));
        assert_eq!(findings[0].location.as_ref().unwrap().span.line, 7);
    }

    #[test]
    fn a_port_is_one_meshs_until_its_gateway_is_gone() {
        let (plan, objects) = gateway(1025);
        let bind = "127.64.9.9".parse().unwrap();
        let (mut first, mut second) = (GatewayPorts::new(bind), GatewayPorts::new(bind));
        assert_eq!(first.claim(&plan, &objects), []);
        assert_eq!(first.claim(&plan, &objects), [], "it has it already");
        assert_eq!(second.claim(&plan, &objects).len(), 1);
        assert_eq!(first.claim(&Plan::default(), &[]), []);
        assert_eq!(second.claim(&plan, &objects), []);
    }
}
