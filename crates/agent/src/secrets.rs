//! The SDS server beside a proxy: `default` (the workload's certificate) and `ROOTCA` (whom it trusts), pushed whenever
//! they change, and secrets from files under the names `file-cert:CERTIFICATE~KEY` and `file-root:CERTIFICATES`.
//! Leaves out the protocol (`meltemi-xds`) and the files (`files.rs`).
//!
//! Source of the names: Istio's `pkg/security` and `security/pkg/nodeagent/sds`.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_envoy::config::core::v3::{DataSource, data_source};
use meltemi_envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret,
};
use meltemi_envoy::{Any, type_url};
use meltemi_xds::server::{Answer, Client, Provider, Refusal, Rejection, Request, Sent};
use meltemi_xds::{Config, Resource, ResourceSet};
use tokio::sync::{mpsc, watch};

use crate::files::FileSecret;
use crate::svid::Svid;

/// The workload's own certificate.
pub(crate) const WORKLOAD: &str = "default";
/// The roots.
pub(crate) const ROOTS: &str = "ROOTCA";

/// Serves secrets to the proxy.
pub(crate) struct Secrets {
    configs: watch::Receiver<Arc<Config>>,
    /// Whether there is a first certificate.
    current: crate::Current,
    wanted_files: mpsc::Sender<String>,
}

impl Secrets {
    pub(crate) fn new(
        configs: watch::Receiver<Arc<Config>>,
        current: crate::Current,
        wanted_files: mpsc::Sender<String>,
    ) -> Secrets {
        Secrets { configs, current, wanted_files }
    }
}

impl Provider for Secrets {
    /// Before the first certificate an answer would say that there is none.
    fn ready(&self) -> impl Future<Output = ()> + Send {
        let mut current = self.current.clone();
        async move {
            // An error means that the agent ends.
            let _ = current.wait_for(Option::is_some).await;
        }
    }

    fn connect(&self, _: &Client) -> Result<watch::Receiver<Arc<Config>>, Refusal> {
        Ok(self.configs.clone())
    }

    fn requested(&self, _: &Client, request: &Request) {
        for name in request.names().iter().filter(|name| name.starts_with("file-")) {
            if self.wanted_files.try_send(name.clone()).is_err() {
                tracing::warn!(name, "too many secrets are asked for at once");
            }
        }
    }

    fn sent(&self, _: &Client, _: &Sent) {}

    fn acked(&self, _: &Client, _: &Answer) {}

    fn rejected(&self, _: &Client, _: &Rejection) {}

    fn disconnected(&self, _: &Client) {}
}

/// Everything that is served: the workload's secrets, if there are any yet, and those of files.
pub(crate) fn config(svid: Option<&Svid>, files: &BTreeMap<String, FileSecret>) -> Arc<Config> {
    let mut resources: Vec<Resource> = svid
        .into_iter()
        .flat_map(|svid| {
            [
                roots(ROOTS, svid.roots_pem().into_bytes()),
                certificate(WORKLOAD, svid.chain_pem().into_bytes(), svid.key.to_pem().as_bytes()),
            ]
        })
        .collect();
    resources.extend(files.iter().map(|(name, secret)| match secret {
        FileSecret::Certificate { chain, key } => certificate(name, chain.clone(), key),
        FileSecret::Roots(text) => roots(name, text.clone()),
    }));
    let set: ResourceSet = resources.into_iter().collect();
    Arc::new(Config {
        generation: set.version().to_owned(),
        types: [(type_url::SECRET.to_owned(), Arc::new(set))].into(),
    })
}

fn inline(bytes: impl Into<bytes::Bytes>) -> Option<DataSource> {
    Some(DataSource {
        specifier: Some(data_source::Specifier::InlineBytes(bytes.into())),
        ..Default::default()
    })
}

fn certificate(name: &str, chain: Vec<u8>, key: &[u8]) -> Resource {
    resource(
        name,
        secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: inline(chain),
            private_key: inline(key.to_vec()),
            ..Default::default()
        }),
    )
}

fn roots(name: &str, text: Vec<u8>) -> Resource {
    resource(
        name,
        secret::Type::ValidationContext(CertificateValidationContext {
            trusted_ca: inline(text),
            ..Default::default()
        }),
    )
}

fn resource(name: &str, secret: secret::Type) -> Resource {
    let secret = Secret { name: name.to_owned(), r#type: Some(secret) };
    Resource::new(name, Any::pack(&secret))
}
