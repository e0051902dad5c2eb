//! The table, the URLs and the commands to try, from what runs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::mesh::Mesh;
use crate::plan::{instance_name, try_lines};
use crate::security::{self, Port, Word};
use crate::terminal::{Row, Summary};

impl Mesh {
    /// How many of the control plane, the replicas and the gateways are ready.
    pub(super) fn progress(&self) -> (usize, usize) {
        let ready = self.instances.values().filter(|instance| instance.is_ready()).count();
        (ready + usize::from(self.control.is_ready), self.instances.len() + 1)
    }

    /// Prints the table, once.
    pub(super) async fn summarise(&mut self) {
        self.summary_due = None;
        let ports = security::ask(self.programs.control_admin()).await;
        if let Err(error) = &ports {
            tracing::warn!(%error, "cannot ask the control plane who speaks mutual TLS");
        }
        let ports = ports.ok();
        let bind = self.programs.gateway_bind;
        let mut urls: Vec<String> = self
            .plan
            .gateways
            .iter()
            .flat_map(|gateway| &gateway.servers)
            .map(|server| server.url(bind))
            .collect();
        urls.dedup();
        let summary = Summary {
            replicas: self.replica_rows(ports.as_deref()),
            gateways: self.gateway_rows(),
            security_lines: self.security_lines(ports.as_deref().unwrap_or_default()),
            security: ports.unwrap_or_default(),
            urls,
            r#try: try_lines(&self.objects(), &self.plan, bind),
            logs: self.state.root().join("logs").display().to_string(),
            control_plane: format!("http://{}", self.programs.control_admin()),
        };
        self.terminal.summary(&summary);
    }

    /// By workload, since its replicas are alike.
    fn security_lines(&self, ports: &[Port]) -> Vec<String> {
        let of_workload = self.plan.workloads.iter().flat_map(|workload| {
            let name = instance_name(&workload.id.namespace, &workload.id.name);
            workload.replicas.iter().map(move |replica| (IpAddr::from(replica.address), name.clone()))
        });
        let names: BTreeMap<IpAddr, String> = of_workload.collect();
        security::lines(ports, |address| names.get(&address).cloned())
    }

    fn replica_rows(&self, ports: Option<&[Port]>) -> Vec<Row> {
        let rows = self.plan.workloads.iter().flat_map(|workload| {
            let version = workload.labels.get("version").cloned().unwrap_or_default();
            workload.replicas.iter().map(move |replica| {
                let name = instance_name(&workload.id.namespace, &replica.name);
                let port =
                    workload.inbound.first().map_or_else(String::new, |port| format!(":{}", port.number));
                Row {
                    program: format!("{}:{}", replica.address, workload.port),
                    security: ports.map(|ports| security::word(ports, replica.address.into())),
                    ..self.row(name, version.clone(), format!("{}{port}", replica.address))
                }
            })
        });
        rows.collect()
    }

    fn gateway_rows(&self) -> Vec<Row> {
        let rows = self.plan.gateways.iter().map(|gateway| {
            let listens: Vec<String> = gateway
                .servers
                .iter()
                .map(|server| {
                    format!("{}:{}", server.bind.unwrap_or(self.programs.gateway_bind), server.port)
                })
                .collect();
            let name = instance_name(&gateway.namespace, &gateway.name);
            Row {
                security: Some(Word::of(gateway.servers.iter().map(|server| server.takes))),
                ..self.row(name, "gateway".to_owned(), listens.join(" "))
            }
        });
        rows.collect()
    }

    fn row(&self, name: String, version: String, address: String) -> Row {
        let running = self.instances.get(&name);
        Row {
            ready: running.is_some_and(|instance| instance.is_ready()),
            restarts: running.map_or(0, |instance| instance.restarts()),
            pid: running.and_then(|instance| instance.pid()),
            program: String::new(),
            security: None,
            workload: name,
            version,
            address,
        }
    }
}
