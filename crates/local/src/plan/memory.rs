//! What must not change from one plan to the next while a mesh runs: who has which address, and each Deployment's
//! `$PORT`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use meltemi_api::ObjectId;

use crate::limits::MAX_INSTANCES;

/// First host number for instances; .1 is the control plane.
const FIRST_HOST: u8 = 2;

/// Addresses and ports handed out so far.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    block: Ipv4Addr,
    first_port: u16,
    hosts: BTreeMap<String, u8>,
    ports: BTreeMap<ObjectId, u16>,
    /// By Deployment and by service port; a running program has read the number from its environment.
    caller_ports: BTreeMap<(ObjectId, String), u16>,
}

impl Memory {
    /// Nothing handed out. `block` is any address of the /24.
    pub(crate) fn new(block: Ipv4Addr, first_port: u16) -> Memory {
        Memory {
            block,
            first_port,
            hosts: BTreeMap::new(),
            ports: BTreeMap::new(),
            caller_ports: BTreeMap::new(),
        }
    }

    /// The address of an instance, the lowest free one when it has none; `None` when the block is full.
    pub(crate) fn address(&mut self, instance: &str) -> Option<Ipv4Addr> {
        let host = match self.hosts.get(instance) {
            Some(host) => *host,
            None => {
                let used: BTreeSet<u8> = self.hosts.values().copied().collect();
                let free =
                    (FIRST_HOST..=u8::MAX - 1).take(MAX_INSTANCES).find(|host| !used.contains(host))?;
                self.hosts.insert(instance.to_owned(), free);
                free
            }
        };
        let [first, second, third, _] = self.block.octets();
        Some(Ipv4Addr::new(first, second, third, host))
    }

    /// Takes back the addresses of all instances but these.
    pub(crate) fn keep_addresses(&mut self, still_running: &BTreeSet<String>) {
        self.hosts.retain(|instance, _| still_running.contains(instance));
    }

    /// The caller-own port of a Deployment that this service port has, unless the sidecar needs it otherwise by now.
    pub(crate) fn caller_port(
        &self,
        deployment: &ObjectId,
        service: &str,
        taken: &BTreeSet<u16>,
    ) -> Option<u16> {
        let known = self.caller_ports.get(&(deployment.clone(), service.to_owned())).copied();
        known.filter(|port| !taken.contains(port))
    }

    /// Remembers a caller-own port.
    pub(crate) fn keep_caller_port(&mut self, deployment: &ObjectId, service: &str, port: u16) {
        self.caller_ports.insert((deployment.clone(), service.to_owned()), port);
    }

    /// `$PORT` of a Deployment: its own, and none of the ports that its sidecar binds.
    pub(crate) fn program_port(&mut self, deployment: &ObjectId, sidecar: &BTreeSet<u16>) -> u16 {
        if let Some(port) = self.ports.get(deployment).filter(|port| !sidecar.contains(port)) {
            return *port;
        }
        let used: BTreeSet<u16> = self.ports.values().copied().collect();
        let port = (self.first_port..32_768)
            .find(|port| !used.contains(port) && !sidecar.contains(port))
            .unwrap_or(self.first_port);
        self.ports.insert(deployment.clone(), port);
        port
    }
}
