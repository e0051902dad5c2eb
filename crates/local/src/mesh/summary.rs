//! The table, the URLs and the commands to try, from what runs.

use crate::mesh::Mesh;
use crate::plan::{instance_name, try_lines};
use crate::terminal::{Row, Summary};

impl Mesh {
    /// How many of the control plane, the replicas and the gateways are ready.
    pub(super) fn progress(&self) -> (usize, usize) {
        let ready = self.instances.values().filter(|instance| instance.is_ready()).count();
        (ready + usize::from(self.control.is_ready), self.instances.len() + 1)
    }

    /// Prints the table, once.
    pub(super) fn summarise(&mut self) {
        self.summary_due = None;
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
            replicas: self.replica_rows(),
            gateways: self.gateway_rows(),
            urls,
            r#try: try_lines(&self.objects(), &self.plan, bind),
            logs: self.state.root().join("logs").display().to_string(),
            control_plane: format!("http://{}", self.programs.control_admin()),
        };
        self.terminal.summary(&summary);
    }

    fn replica_rows(&self) -> Vec<Row> {
        let rows = self.plan.workloads.iter().flat_map(|workload| {
            let version = workload.labels.get("version").cloned().unwrap_or_default();
            workload.replicas.iter().map(move |replica| {
                let name = instance_name(&workload.id.namespace, &replica.name);
                let port =
                    workload.inbound.first().map_or_else(String::new, |port| format!(":{}", port.number));
                self.row(name, version.clone(), format!("{}{port}", replica.address), || {
                    format!("{}:{}", replica.address, workload.port)
                })
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
            self.row(name, "gateway".to_owned(), listens.join(" "), String::new)
        });
        rows.collect()
    }

    fn row(&self, name: String, version: String, address: String, program: impl Fn() -> String) -> Row {
        let running = self.instances.get(&name);
        Row {
            ready: running.is_some_and(|instance| instance.is_ready()),
            restarts: running.map_or(0, |instance| instance.restarts()),
            pid: running.and_then(|instance| instance.pid()),
            program: program(),
            workload: name,
            version,
            address,
        }
    }
}
