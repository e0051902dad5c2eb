//! The command line of an agent, the same beside `meltemi proxy` and as `meltemi agent`.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use meltemi_identity::{Credential, KeyKind, SpiffeId};

use crate::proof::MAX_PROOF_BYTES;
use crate::{AgentSpec, ControlPlane, Proof};

/// What an agent is told.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Agent")]
pub struct AgentArgs {
    /// Get certificates for this identity, spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT, and serve them to the
    /// proxy (SDS) and to programs (SPIFFE Workload API) on DIR/sds.sock; DIR/xds.sock leads to the control plane.
    #[arg(long, value_name = "SPIFFE-ID", requires_all = ["ca_address", "ca_root_cert", "agent_directory"])]
    pub identity: Option<SpiffeId>,

    /// The control plane's TLS port.
    #[arg(long, value_name = "IP:PORT", requires = "identity")]
    pub ca_address: Option<SocketAddr>,

    /// The host name that the control plane's certificate must have.
    #[arg(long, value_name = "NAME", default_value = "istiod.istio-system.svc")]
    pub ca_host: String,

    /// PEM file of the roots that the control plane's certificate must lead to.
    #[arg(long, value_name = "FILE", requires = "identity")]
    pub ca_root_cert: Option<PathBuf>,

    /// Directory of the agent's sockets.
    #[arg(long, value_name = "DIR", requires = "identity")]
    pub agent_directory: Option<PathBuf>,

    /// Read the one-time credential for the first certificate from this inherited descriptor: 0, or one from 3 on, which is
    /// then closed.
    #[arg(long, value_name = "FD", requires = "identity", conflicts_with = "credential_file")]
    pub credential_fd: Option<RawFd>,

    /// Read the one-time credential from this file.
    #[arg(long, value_name = "FILE", requires = "identity")]
    pub credential_file: Option<PathBuf>,

    /// Prove who this is with the token in this file, of an OpenID provider that the control plane believes. It is read for
    /// every attempt, so it may be renewed.
    #[arg(long, value_name = "FILE", requires = "identity", conflicts_with_all = ["credential_fd", "credential_file"])]
    pub token_file: Option<PathBuf>,

    /// The kind of key: ecdsa-p256, ecdsa-p384, rsa-2048 or rsa-4096.
    #[arg(long, value_name = "KIND", default_value = "ecdsa-p256")]
    pub key_kind: KeyKind,

    /// How many seconds certificates should be good; 0 leaves it to the control plane.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub cert_ttl_s: u64,
}

impl AgentArgs {
    /// What to start; `None` if no agent is asked for. Reads the credential.
    ///
    /// # Errors
    /// If the credential cannot be read.
    pub fn spec(&self) -> anyhow::Result<Option<AgentSpec>> {
        let (Some(id), Some(address), Some(root_cert), Some(directory)) =
            (&self.identity, self.ca_address, &self.ca_root_cert, &self.agent_directory)
        else {
            return Ok(None);
        };
        Ok(Some(AgentSpec {
            id: id.clone(),
            control_plane: ControlPlane { address, host: self.ca_host.clone(), root_cert: root_cert.clone() },
            directory: directory.clone(),
            proof: self.proof().context("read the credential")?,
            key_kind: self.key_kind,
            ttl: Duration::from_secs(self.cert_ttl_s),
        }))
    }

    fn proof(&self) -> anyhow::Result<Option<Proof>> {
        if let Some(path) = &self.token_file {
            return Ok(Some(Proof::TokenFile(path.clone())));
        }
        let source: Box<dyn Read> = match (self.credential_fd, &self.credential_file) {
            // Stays open, because others expect it to be; who runs a command beside the agent gives that another one.
            (Some(0), _) => Box::new(std::io::stdin()),
            (Some(descriptor), _) => Box::new(inherited(descriptor)?),
            (None, Some(path)) => Box::new(File::open(path).with_context(|| path.display().to_string())?),
            (None, None) => return Ok(None),
        };
        let mut text = String::new();
        source.take(MAX_PROOF_BYTES).read_to_string(&mut text)?;
        Ok(Some(Proof::Once(Credential::from_text(&text))))
    }
}

/// Takes over a descriptor that the parent has left open for us.
#[expect(unsafe_code, reason = "there is no safe way to say that an inherited number is ours to close")]
fn inherited(descriptor: RawFd) -> anyhow::Result<File> {
    if descriptor < 3 {
        bail!("descriptor {descriptor} is standard output or error");
    }
    // SAFETY: the number came on the command line, from the parent that opened it for this process; nothing else here has
    // used it, since descriptors of our own get the lowest free numbers after it. One that is not open fails on reading.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(descriptor) }))
}
