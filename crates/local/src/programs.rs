//! The command lines and environments of everything that `up` starts. Leaves out when.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use meltemi_agent::{
    ADMIN_PORT, CONTROL_ADMIN_PORT, Protocol, ProxyKind, ProxySpec, SECURE_PORT, XDS_PORT, XdsServer,
};
use meltemi_identity::{SpiffeId, TrustDomain};
use tokio::process::Command;

use crate::plan::{
    GatewayInstance, Replica, Surroundings, Workload, environment, expand, instance_name, sidecar_labels,
};
use crate::state::StateDir;
use crate::unit::Launch;

/// Seconds in which a proxy lets running requests end. Replicas leave the endpoints before they are stopped, so this
/// only has to cover the slow ones.
const PROXY_DRAIN_SECONDS: &str = "1";

/// What all command lines share.
#[derive(Debug)]
pub(crate) struct Programs {
    /// This executable.
    pub(crate) executable: PathBuf,
    /// The manifests, absolute.
    pub(crate) manifests: PathBuf,
    /// Working directory of programs that name none.
    pub(crate) directory: PathBuf,
    /// A stock Envoy instead of `meltemi proxy`.
    pub(crate) foreign_proxy: Option<PathBuf>,
    pub(crate) concurrency: u32,
    pub(crate) log_level: String,
    /// Whether an error in the manifests keeps all of them out of force.
    pub(crate) is_atomic: bool,
    /// How many generations are kept.
    pub(crate) keep_generations: u16,
    pub(crate) protocol: Protocol,
    pub(crate) gateway_bind: IpAddr,
    pub(crate) control_plane: IpAddr,
    /// Seconds for which certificates of workloads are good.
    pub(crate) cert_ttl: u32,
    /// The first part of every identity.
    pub(crate) trust_domain: TrustDomain,
    pub(crate) surroundings: Surroundings,
    /// Whether the control plane may colour its findings.
    pub(crate) color: bool,
}

/// One proxy to start: its bootstrap and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProxyLaunch {
    /// The bootstrap's text, for the file that the command line names.
    pub(crate) bootstrap: String,
    pub(crate) launch: Launch,
}

impl Programs {
    /// Where the control plane tells whether it is ready.
    pub(crate) fn control_admin(&self) -> SocketAddr {
        SocketAddr::new(self.control_plane, CONTROL_ADMIN_PORT)
    }

    /// Where the control plane gives certificates and serves xDS over TLS.
    fn secure(&self) -> SocketAddr {
        SocketAddr::new(self.control_plane, SECURE_PORT)
    }

    pub(crate) fn control_plane(&self, state: &StateDir) -> Launch {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut command = vec![
            text(&self.executable),
            "control-plane".to_owned(),
            format!("--config={}", text(&self.manifests)),
            format!("--state={}", text(&state.workloads_file())),
            format!("--xds-address={}", SocketAddr::new(self.control_plane, XDS_PORT)),
            format!("--admin-address={}", self.control_admin()),
            format!("--secure-address={}", self.secure()),
            format!("--trust-domain={}", self.trust_domain),
            format!("--workload-cert-ttl={}s", self.cert_ttl),
            format!("--ca-directory={}", text(&state.authority())),
            format!("--credential-key={}", text(&state.credential_key())),
            format!("--generations-directory={}", text(&state.generations())),
            format!("--keep-generations={}", self.keep_generations),
            "--access-log-file=/dev/stdout".to_owned(),
            format!("--log-level={}", self.log_level),
        ];
        command.extend(self.is_atomic.then(|| "--strict".to_owned()));
        let color = if self.color { "FORCE_COLOR" } else { "NO_COLOR" };
        Launch {
            command,
            environment: [(color.to_owned(), "1".to_owned())].into(),
            directory: self.directory.clone(),
            log: state.logs("control-plane").join("control-plane.log"),
            identity: None,
            returns_lines: true,
        }
    }

    pub(crate) fn sidecar(&self, workload: &Workload, replica: &Replica, state: &StateDir) -> ProxyLaunch {
        let sockets = state.sockets(&instance_name(&workload.id.namespace, &replica.name));
        let spec = ProxySpec { protocol: self.protocol, ..sidecar_spec(workload, replica, sockets) };
        self.proxy(&spec, state)
    }

    pub(crate) fn gateway(&self, gateway: &GatewayInstance, state: &StateDir) -> ProxyLaunch {
        let sockets = state.sockets(&instance_name(&gateway.namespace, &gateway.name));
        let spec = ProxySpec { protocol: self.protocol, ..gateway_spec(gateway, self.gateway_bind, sockets) };
        self.proxy(&spec, state)
    }

    /// `meltemi proxy` takes Envoy's own flags and those of the agent; a stock Envoy runs under an agent of its own.
    fn proxy(&self, spec: &ProxySpec, state: &StateDir) -> ProxyLaunch {
        let instance = instance_name(&spec.namespace, &spec.name);
        let identity =
            SpiffeId::of_service_account(&self.trust_domain, &spec.namespace, &spec.service_account).ok();
        let executable = self.executable.to_string_lossy().into_owned();
        let agent = identity.as_ref().map_or_else(Vec::new, |id| self.agent(id, &instance, state));
        let mut command = match &self.foreign_proxy {
            Some(binary) => {
                let log_level = ["-l".to_owned(), self.log_level.clone(), "--".to_owned()];
                let binary = binary.to_string_lossy().into_owned();
                [executable, "agent".to_owned()]
                    .into_iter()
                    .chain(agent)
                    .chain(drain(spec))
                    .chain(log_level)
                    .chain([binary])
                    .collect()
            }
            None => [executable, "proxy".to_owned()].into_iter().chain(agent).collect::<Vec<String>>(),
        };
        command.extend([
            "-c".to_owned(),
            state.bootstrap_file(&instance).to_string_lossy().into_owned(),
            "--concurrency".to_owned(),
            self.concurrency.to_string(),
            "--drain-time-s".to_owned(),
            PROXY_DRAIN_SECONDS.to_owned(),
            "-l".to_owned(),
            self.log_level.clone(),
            "--disable-hot-restart".to_owned(),
        ]);
        let launch = Launch {
            command,
            environment: BTreeMap::new(),
            directory: self.directory.clone(),
            log: state.logs(&instance).join("proxy.log"),
            identity,
            returns_lines: false,
        };
        ProxyLaunch { bootstrap: format!("{:#}\n", meltemi_agent::bootstrap(spec)), launch }
    }

    /// The flags of an agent. Its first credential is on its standard input.
    fn agent(&self, id: &SpiffeId, instance: &str, state: &StateDir) -> Vec<String> {
        vec![
            format!("--identity={id}"),
            format!("--ca-address={}", self.secure()),
            format!("--ca-root-cert={}", state.authority().join("root-cert.pem").display()),
            format!("--agent-directory={}", state.sockets(instance).display()),
            "--credential-fd=0".to_owned(),
        ]
    }

    pub(crate) fn workload(&self, workload: &Workload, replica: &Replica, state: &StateDir) -> Launch {
        let environment = environment(workload, replica, &self.surroundings);
        let container = &workload.container;
        let command =
            container.command.iter().chain(&container.args).map(|word| expand(word, &environment)).collect();
        let instance = instance_name(&workload.id.namespace, &replica.name);
        // `join` keeps an absolute working directory as it is.
        let directory = self.directory.join(container.working_dir.as_deref().unwrap_or_default());
        let log = state.logs(&instance).join("app.log");
        Launch { command, environment, directory, log, identity: None, returns_lines: false }
    }

    /// The command that cleans up when `up` is killed.
    pub(crate) fn reaper(executable: &Path, mesh: &str) -> Command {
        let mut command = Command::new(executable);
        command.args(["reaper", mesh]);
        command
    }
}

/// The sidecar of a replica.
pub(crate) fn sidecar_spec(workload: &Workload, replica: &Replica, sockets: PathBuf) -> ProxySpec {
    ProxySpec {
        kind: ProxyKind::Sidecar,
        name: replica.name.clone(),
        namespace: workload.id.namespace.to_string(),
        workload: workload.id.name.to_string(),
        service_account: workload.service_account.clone(),
        labels: sidecar_labels(workload),
        address: replica.address.into(),
        xds: XdsServer::Agent(sockets),
        protocol: Protocol::default(),
        gateway_bind: None,
    }
}

/// The proxy of a gateway.
pub(crate) fn gateway_spec(gateway: &GatewayInstance, bind: IpAddr, sockets: PathBuf) -> ProxySpec {
    ProxySpec {
        kind: ProxyKind::Router,
        name: gateway.name.clone(),
        namespace: gateway.namespace.clone(),
        workload: gateway.workload.clone(),
        service_account: gateway.workload.clone(),
        labels: gateway.labels.clone(),
        address: gateway.address.into(),
        xds: XdsServer::Agent(sockets),
        protocol: Protocol::default(),
        gateway_bind: Some(bind),
    }
}

/// How the agent of a stock Envoy ends it; ours drains by itself.
fn drain(spec: &ProxySpec) -> [String; 3] {
    let listeners = match spec.kind {
        ProxyKind::Sidecar => "inbound",
        ProxyKind::Router => "all",
    };
    [
        format!("--proxy-admin={}", SocketAddr::new(spec.address, ADMIN_PORT)),
        format!("--drain-listeners={listeners}"),
        format!("--termination-drain-duration={PROXY_DRAIN_SECONDS}"),
    ]
}
