//! From the plan to running processes: what is missing starts, what is too much leaves, what differs is restarted one
//! replica at a time. Source: a Deployment's rolling update with `maxSurge: 0, maxUnavailable: 1`.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Context;
use meltemi_api::Severity;
use meltemi_runtime::task;
use tokio::time::Instant;

use crate::instance::{APP, App, Instance, PROXY};
use crate::limits::STATE_DEBOUNCE;
use crate::logs;
use crate::mark;
use crate::mesh::{Mesh, Rollout};
use crate::plan::{Replica, Workload, instance_name, plan};
use crate::preflight;
use crate::probe::Target;
use crate::programs::ProxyLaunch;
use crate::security;
use crate::state::{create_private, write_atomically};
use crate::terminal::Happening;

/// What an instance should be.
struct Wanted {
    name: String,
    address: std::net::IpAddr,
    app: Option<App>,
    proxy: ProxyLaunch,
}

impl Mesh {
    /// Looks at the manifests again, and follows them if the plan has changed.
    pub(super) async fn rescan(&mut self) {
        match self.manifests.refresh() {
            Ok(has_changed) => {
                self.is_blind = false;
                self.is_behind |= has_changed;
                if !self.is_behind || !self.is_taken(has_changed).await {
                    return;
                }
                self.is_behind = false;
            }
            Err(error) => {
                // Looked at twice a second, told once.
                if !std::mem::replace(&mut self.is_blind, true) {
                    tracing::warn!(%error, "cannot read the manifests; everything runs on as it is");
                }
                return;
            }
        }
        self.keep_addresses();
        let objects = self.objects();
        let (next, mut findings) = plan(&objects, &mut self.memory);
        findings.extend(self.gateway_ports.claim(&next, &objects));
        findings.extend(preflight::sidecar_ports(&next, &objects));
        self.tell_findings(findings);
        if next == self.plan {
            return;
        }
        self.plan = next;
        self.reconcile().await;
    }

    /// Whether manifests that have changed may be followed. With `--atomic` not before the control plane has taken them: it
    /// is asked at the next look, when it has read them as well.
    async fn is_taken(&self, just_now: bool) -> bool {
        if !self.programs.is_atomic {
            return true;
        }
        let control_plane = self.programs.control_admin();
        !just_now && security::is_refused(control_plane).await.is_ok_and(|is_refused| !is_refused)
    }

    /// Tells what was not told before, and forgets what is no longer so.
    pub(super) fn tell_findings(&mut self, findings: Vec<meltemi_api::Diagnostic>) {
        for finding in findings.iter().filter(|finding| finding.severity > Severity::Info) {
            if !self.told.contains(finding) {
                let text = self.manifests.render(finding, self.terminal.color());
                self.terminal.tell(&Happening::Finding { text });
            }
        }
        self.told = findings;
    }

    /// Makes the running instances those of the plan.
    pub(super) async fn reconcile(&mut self) {
        let wanted = self.wanted();
        let names: BTreeSet<String> = wanted.iter().map(|wanted| wanted.name.clone()).collect();
        let unwanted: Vec<String> =
            self.instances.keys().filter(|name| !names.contains(*name)).cloned().collect();
        unwanted.into_iter().for_each(|name| self.remove(name));
        for wanted in wanted {
            if self.leaving.contains(&wanted.name) {
                // Its address is not free yet; `departed` comes back here.
                continue;
            }
            if let Err(error) = self.follow(wanted).await {
                self.terminal.tell(&Happening::Finding { text: format!("error: {error:#}") });
            }
        }
        // Before the programs run: the control plane must know the sidecars' listeners when the proxies ask.
        self.write_state();
    }

    fn wanted(&self) -> Vec<Wanted> {
        let replicas = self.plan.workloads.iter().flat_map(|workload| {
            workload.replicas.iter().map(move |replica| Wanted {
                name: instance_name(&workload.id.namespace, &replica.name),
                address: replica.address.into(),
                app: Some(self.app(workload, replica)),
                proxy: self.programs.sidecar(workload, replica, &self.state),
            })
        });
        let gateways = self.plan.gateways.iter().map(|gateway| Wanted {
            name: instance_name(&gateway.namespace, &gateway.name),
            address: gateway.address.into(),
            app: None,
            proxy: self.programs.gateway(gateway, &self.state),
        });
        replicas.chain(gateways).collect()
    }

    fn app(&self, workload: &Workload, replica: &Replica) -> App {
        let launch = self.programs.workload(workload, replica, &self.state);
        let instance = instance_name(&workload.id.namespace, &replica.name);
        let target = Target {
            container: workload.container.clone(),
            address: replica.address.into(),
            port: workload.port,
            environment: launch.environment.clone(),
            directory: launch.directory.clone(),
            mark: mark::of_unit(&self.mesh, &format!("{instance}/{APP}")),
        };
        App { template: workload.template(), launch, target, grace: workload.grace }
    }

    /// Starts an instance, or brings a running one up to date.
    async fn follow(&mut self, wanted: Wanted) -> anyhow::Result<()> {
        let Wanted { name, address, app, proxy } = wanted;
        let bootstrap = self.state.bootstrap_file(&name);
        let Some(running) = self.instances.get_mut(&name) else {
            self.begin_log(&name, &[APP, PROXY])?;
            write_atomically(&bootstrap, &proxy.bootstrap).context("writing a bootstrap")?;
            let mut instance = Instance::new(name.clone(), address, app, proxy);
            instance.start_app(&self.shared);
            if self.control.proxies_due.is_none() {
                instance.start_proxy(&self.shared);
            }
            self.instances.insert(name.clone(), instance);
            self.terminal.tell(&Happening::Added { instance: name });
            return Ok(());
        };
        if running.proxy_differs(&proxy) {
            write_atomically(&bootstrap, &proxy.bootstrap).context("writing a bootstrap")?;
            running.replace_proxy(proxy).await;
        }
        if running.differs(app.as_ref())
            && let Some(app) = app
        {
            let rollout = self.rollouts.entry(app.template.id.clone()).or_default();
            rollout.waiting.retain(|(waiting, _)| *waiting != name);
            rollout.waiting.push_back((name, app));
        }
        Ok(())
    }

    /// Makes a place for an instance's logs; the last run's are kept.
    pub(super) fn begin_log(&self, instance: &str, processes: &[&str]) -> anyhow::Result<()> {
        let directory = self.state.logs(instance);
        create_private(&directory)?;
        for process in processes {
            let path = directory.join(format!("{process}.log"));
            logs::begin(&path).with_context(|| format!("keeping {}", path.display()))?;
        }
        Ok(())
    }

    fn remove(&mut self, name: String) {
        let Some(mut instance) = self.instances.remove(&name) else { return };
        self.rollouts
            .values_mut()
            .for_each(|rollout| rollout.waiting.retain(|(waiting, _)| *waiting != name));
        instance.withdraw();
        self.leaving.insert(name.clone());
        self.state_due = Some(Instant::now() + STATE_DEBOUNCE);
        let departures = self.departures.clone();
        task::spawn("leave", async move {
            instance.leave().await;
            // The loop is gone only when everything is being stopped.
            let _ = departures.send(name).await;
        })
        .detach();
    }

    /// Nothing of the instance is left.
    pub(super) async fn departed(&mut self, name: &str) {
        self.leaving.remove(name);
        let _ = fs::remove_file(self.state.bootstrap_file(name));
        self.terminal.tell(&Happening::Removed { instance: name.to_owned() });
        self.keep_addresses();
        let objects = self.objects();
        let (next, _) = plan(&objects, &mut self.memory);
        // It may be wanted again by now, or its address may.
        self.plan = next;
        self.reconcile().await;
    }

    fn keep_addresses(&mut self) {
        let in_use = self.instances.keys().chain(&self.leaving).cloned().collect();
        self.memory.keep_addresses(&in_use);
    }

    /// Restarts the next replica of every Deployment whose pod template has changed, once the one before it is ready.
    pub(super) fn roll_out(&mut self) {
        let mut rollouts = std::mem::take(&mut self.rollouts);
        for rollout in rollouts.values_mut() {
            self.advance(rollout);
        }
        rollouts.retain(|_, rollout| rollout.current.is_some() || !rollout.waiting.is_empty());
        self.rollouts = rollouts;
    }

    fn advance(&mut self, rollout: &mut Rollout) {
        let is_ready = |name: &String| self.instances.get(name).is_none_or(Instance::is_ready);
        if rollout.current.as_ref().is_some_and(|(name, _)| is_ready(name)) {
            rollout.current = None;
        }
        let Some((next, _)) = rollout.waiting.front() else { return };
        // A replica that never gets ready stops the rollout and the others keep what works; but where nothing works there
        // is nothing to keep, and a correction of the same replica goes ahead.
        if rollout.current.is_some() && is_ready(next) {
            return;
        }
        let Some((name, app)) = rollout.waiting.pop_front() else { return };
        let Some(instance) = self.instances.get_mut(&name) else { return };
        let why = "its Deployment has changed".to_owned();
        self.terminal.tell(&Happening::Restarting { unit: name.clone(), why });
        if let Some(restart) = instance.replace_app(app) {
            rollout.current = Some((name, restart));
            self.state_due = Some(Instant::now() + STATE_DEBOUNCE);
        }
    }
}
