//! A running agent: its sockets and its tasks. Leaves out the command line (`args.rs`).

use std::collections::BTreeMap;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use meltemi_envoy::spiffe::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use meltemi_identity::{KeyKind, SpiffeId};
use meltemi_runtime::{drain, task};
use meltemi_xds::server::Service;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::Routes;

use crate::authority::Lenient;
use crate::certificate_client::CertificateClient;
use crate::files::Publisher;
use crate::limits::NAME_QUEUE;
use crate::proof::Proof;
use crate::secrets::{self, Secrets};
use crate::svid::Current;
use crate::tls::ControlPlane;
use crate::workload_api::WorkloadApi;
use crate::{relay, renewal};

/// The socket of SDS and of the SPIFFE Workload API, in the agent's directory.
pub const SDS_SOCKET: &str = "sds.sock";
/// The socket of the control plane, in the agent's directory.
pub const XDS_SOCKET: &str = "xds.sock";

/// The longest path of a Unix socket, of the system.
const MAX_SOCKET_PATH: usize = 107;

/// Everything an agent is started with.
#[derive(Debug)]
pub struct AgentSpec {
    /// Whose certificate to ask for.
    pub id: SpiffeId,
    /// Where.
    pub control_plane: ControlPlane,
    /// Where the sockets go; made for this user alone if it does not exist.
    pub directory: PathBuf,
    /// What proves who this is, until there is a certificate.
    pub proof: Option<Proof>,
    /// The kind of key.
    pub key_kind: KeyKind,
    /// How long certificates should be good; zero leaves it to the control plane.
    pub ttl: Duration,
}

/// A running agent; dropping it ends its tasks.
pub struct Agent {
    current: Current,
    renewal: task::Task<String>,
    _tasks: Vec<task::Task<()>>,
    _drain: drain::Trigger,
}

impl Agent {
    /// Binds the sockets and starts to ask for a certificate. Needs a tokio runtime; one thread will do.
    ///
    /// # Errors
    /// If a socket cannot be bound.
    pub fn start(spec: AgentSpec) -> anyhow::Result<Agent> {
        let AgentSpec { id, control_plane, directory, proof, key_kind, ttl } = spec;
        let sds = bind(&directory, SDS_SOCKET)?;
        let xds = bind(&directory, XDS_SOCKET)?;
        let (certificates, current) = watch::channel(None);
        let client = CertificateClient { control_plane: control_plane.clone(), id, key_kind, ttl, proof };
        let (configs, config) = watch::channel(secrets::config(None, &BTreeMap::new()));
        let (wanted_files, wanted) = mpsc::channel(NAME_QUEUE);
        let publisher = Publisher::new(current.clone(), wanted, configs);
        let (drain, signal) = drain::channel();
        let provider = Arc::new(Secrets::new(config, current.clone(), wanted_files));
        let server = serve(sds, Service::new(provider, signal), WorkloadApi::new(current.clone()));
        let tasks = vec![
            task::spawn("secrets", publisher.run()),
            task::spawn("sds server", server),
            task::spawn("xds relay", relay::serve(xds, control_plane, current.clone())),
        ];
        let renewal = task::spawn("certificate", renewal::keep(client, certificates));
        Ok(Agent { current, renewal, _tasks: tasks, _drain: drain })
    }

    /// The current certificate, and later ones.
    pub fn current(&self) -> Current {
        self.current.clone()
    }

    /// Completes when no certificate can be had any more, with the reason: who has started the workload must start it
    /// again with a new credential. Cancel safe.
    pub async fn hopeless(&mut self) -> String {
        match (&mut self.renewal).await {
            Ok(reason) => reason,
            Err(failure) => failure.to_string(),
        }
    }
}

async fn serve(listener: UnixListener, service: Service<Secrets>, workload: WorkloadApi) {
    let routes = Routes::new(SpiffeWorkloadApiServer::new(workload));
    let connections = UnixListenerStream::new(listener).map(|stream| stream.map(Lenient::new));
    if let Err(error) = meltemi_xds::server::serve_on(connections, service, routes).await {
        tracing::error!(%error, "the socket of secrets is not served any more");
    }
}

/// Binds a socket that only this user can open. What is left of an earlier run is replaced.
fn bind(directory: &Path, name: &str) -> anyhow::Result<UnixListener> {
    let path = directory.join(name);
    let shown = path.display();
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        anyhow::bail!("{shown} is too long for a Unix socket: at most {MAX_SOCKET_PATH} bytes");
    }
    let bound = || -> io::Result<UnixListener> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    bound().with_context(|| format!("bind {shown}"))
}
