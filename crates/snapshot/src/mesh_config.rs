//! MeshConfig: what holds for the whole mesh, with Istio's defaults in place of what is not said.
//!
//! Source: Istio `pkg/config/mesh` (`DefaultMeshConfig`).

use std::sync::Arc;
use std::time::Duration;

use crate::gateway::GatewayTopology;
use meltemi_api::istio::{self, MeshH2UpgradePolicy, MinProtocolVersion, OutboundTrafficPolicyMode};
use meltemi_api::{Diagnostic, Object, codes};

use crate::route::Retries;

/// `rootNamespace` where nobody says another.
const ROOT_NAMESPACE: &str = "istio-system";

/// `trustDomain` where nobody says another.
const TRUST_DOMAIN: &str = "cluster.local";
/// `connectTimeout` where nobody says another.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// `dnsRefreshRate` where nobody says another: names that fail are asked for again after it.
const DNS_REFRESH_RATE: Duration = Duration::from_secs(60);

/// What holds for the whole mesh.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshConfig {
    /// `rootNamespace`: whose Sidecar, DestinationRules and PeerAuthentications apply where a namespace has none.
    pub root_namespace: Arc<str>,
    /// `enableAutoMtls`: mutual TLS wherever both sides can, unless somebody says otherwise.
    pub auto_mtls: bool,
    /// `h2UpgradePolicy`: HTTP/1 becomes HTTP/2 on the way to HTTP services.
    pub upgrades_to_http2: bool,
    /// `defaultVirtualServiceExportTo`; empty for all namespaces.
    pub virtual_service_export_to: Vec<String>,
    /// `defaultHttpRetryPolicy`: when requests are tried again; `None` for Istio's own policy.
    pub retries: Option<Retries>,
    /// `outboundTrafficPolicy`: traffic for hosts that nobody knows goes on to where it wants.
    pub allows_unknown_hosts: bool,
    /// Requests for hosts nobody knows go to what the host resolves to (`ALLOW_ANY_DYNAMIC_DNS`), where no Sidecar says
    /// otherwise.
    pub resolves_unknown_hosts: bool,
    /// `meshMTLS`: mutual TLS between workloads.
    pub mesh_mtls: TlsParameters,
    /// `tlsDefaults`: all other TLS.
    pub tls_defaults: TlsParameters,
    /// `accessLogFile`; `Some` of an empty path for nowhere.
    pub access_log_file: Option<String>,
    /// `trustDomain`, as it is written now.
    pub trust_domain: Arc<str>,
    /// `defaultServiceExportTo`: who sees a service that does not say it; empty for all.
    pub default_service_export_to: Vec<String>,
    /// `discoverySelectors`: the namespaces whose objects count; empty for all.
    pub discovery_selectors: Vec<istio::NamespaceSelector>,
    /// `defaultDestinationRuleExportTo` is `.`: a DestinationRule that says nothing is for its own namespace.
    pub destination_rules_are_private: bool,
    /// `connectTimeout`.
    pub connect_timeout: Duration,
    /// `dnsRefreshRate`.
    pub dns_refresh_rate: Duration,
    /// `defaultConfig.gatewayTopology`: what stands before gateways whose nodes do not say it.
    pub gateway_topology: GatewayTopology,
    /// Where it was read; `None` where nobody says anything.
    pub object: Option<Arc<Object>>,
}

/// Parameters of TLS; an empty list leaves the choice open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsParameters {
    /// The oldest version; `None` leaves the choice open.
    pub min_version: Option<MinVersion>,
    /// Suites of TLS 1.2, best first.
    pub cipher_suites: Vec<String>,
    /// Groups for the exchange of keys, best first.
    pub ecdh_curves: Vec<String>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it")]
pub enum MinVersion {
    V1_2,
    V1_3,
}

impl Default for MeshConfig {
    fn default() -> MeshConfig {
        MeshConfig::new(&istio::MeshConfig::default(), None)
    }
}

impl MeshConfig {
    /// What is in force; of several objects that hold it the first of [`istio::MeshConfig::candidates`] counts.
    pub fn build<'a>(objects: impl IntoIterator<Item = &'a Arc<Object>>) -> MeshConfig {
        let found = istio::MeshConfig::candidates(objects);
        let first = found.first().and_then(|object| Some((istio::MeshConfig::of(object)?, *object)));
        first.map_or_else(MeshConfig::default, |(wire, object)| {
            MeshConfig::new(wire, Some(Arc::clone(object)))
        })
    }

    fn new(wire: &istio::MeshConfig, object: Option<Arc<Object>>) -> MeshConfig {
        let policy = wire.outbound_traffic_policy.as_ref();
        MeshConfig {
            root_namespace: wire.root_namespace.as_deref().unwrap_or(ROOT_NAMESPACE).into(),
            auto_mtls: wire.enable_auto_mtls.unwrap_or(true),
            upgrades_to_http2: wire.h2_upgrade_policy == Some(MeshH2UpgradePolicy::Upgrade),
            virtual_service_export_to: wire.default_virtual_service_export_to.clone(),
            retries: wire.default_http_retry_policy.as_ref().map(Retries::of),
            // The default of the field is to allow, that of its mode to refuse.
            allows_unknown_hosts: policy.is_none_or(|policy| {
                policy.mode.is_some_and(|mode| mode != OutboundTrafficPolicyMode::RegistryOnly)
            }),
            resolves_unknown_hosts: policy
                .is_some_and(|policy| policy.mode == Some(OutboundTrafficPolicyMode::AllowAnyDynamicDns)),
            mesh_mtls: TlsParameters::new(wire.mesh_mtls.as_ref()),
            tls_defaults: TlsParameters::new(wire.tls_defaults.as_ref()),
            access_log_file: wire.access_log_file.clone(),
            gateway_topology: wire
                .default_config
                .as_ref()
                .and_then(|config| config.gateway_topology.as_ref())
                .map_or_else(GatewayTopology::default, GatewayTopology::new),
            trust_domain: wire.trust_domain.as_deref().unwrap_or(TRUST_DOMAIN).into(),
            default_service_export_to: wire.default_service_export_to.clone(),
            discovery_selectors: wire.discovery_selectors.clone(),
            destination_rules_are_private: wire.default_destination_rule_export_to.iter().any(|to| to == "."),
            connect_timeout: wire.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
            dns_refresh_rate: wire.dns_refresh_rate.unwrap_or(DNS_REFRESH_RATE),
            object,
        }
    }

    /// What the user wrote; `None` where nobody says anything.
    pub fn wire(&self) -> Option<&istio::MeshConfig> {
        self.object.as_deref().and_then(istio::MeshConfig::of)
    }

    /// A finding about a field of it.
    pub fn finding(&self, field: &str, diagnostic: Diagnostic) -> Diagnostic {
        match self.object.as_deref() {
            Some(object) => diagnostic.at(object, format!("{}.{field}", istio::MeshConfig::path(object))),
            None => diagnostic,
        }
    }
}

impl TlsParameters {
    fn new(wire: Option<&istio::TlsConfig>) -> TlsParameters {
        let Some(wire) = wire else { return TlsParameters::default() };
        TlsParameters {
            min_version: match wire.min_protocol_version.unwrap_or_default() {
                MinProtocolVersion::Auto => None,
                MinProtocolVersion::V1_2 => Some(MinVersion::V1_2),
                MinProtocolVersion::V1_3 => Some(MinVersion::V1_3),
            },
            cipher_suites: wire.cipher_suites.clone(),
            ecdh_curves: wire.ecdh_curves.clone(),
        }
    }
}

/// Reports objects whose MeshConfig does not count.
pub(crate) fn check<'a>(objects: impl IntoIterator<Item = &'a Arc<Object>>, found: &mut Vec<Diagnostic>) {
    let candidates = istio::MeshConfig::candidates(objects);
    let Some((first, others)) = candidates.split_first() else { return };
    found.extend(others.iter().map(|object| {
        let message = format!("the MeshConfig of {} is in force", first.id);
        let help = "keep one of them";
        Diagnostic::new(&codes::DUPLICATE_MESH_CONFIG, message)
            .at(object, istio::MeshConfig::path(object))
            .help(help)
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Inputs, Snapshot};

    fn operator(name: &str, created: &str, path: &str) -> String {
        format!(
            "---\n{{apiVersion: install.istio.io/v1alpha1, kind: IstioOperator, metadata: {{name: {name}, creationTimestamp: \
             '{created}-01-01T00:00:00Z'}}, spec: {{meshConfig: {{accessLogFile: {path}}}}}}}\n"
        )
    }

    fn config_map(namespace: &str, mesh: &str) -> String {
        format!(
            "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: istio, namespace: {namespace}}}, data: {{mesh: '{mesh}'}}}}\n"
        )
    }

    /// The path in force, and the objects that do not count.
    fn in_force(objects: &[String]) -> (Option<String>, Vec<String>) {
        let (objects, broken) = meltemi_api::parse(&objects.concat(), &"mesh.yaml".into());
        assert!(broken.is_empty(), "{broken:#?}");
        let inputs = Inputs { objects: objects.into_iter().map(Arc::new).collect() };
        let (snapshot, found) = Snapshot::build(&inputs);
        let ignored = found.iter().filter(|d| d.code == codes::DUPLICATE_MESH_CONFIG.id);
        let names = ignored.map(|d| d.object.as_ref().expect("an object").name.to_string());
        (snapshot.config.mesh.access_log_file.clone(), names.collect())
    }

    #[test]
    fn the_config_map_counts_whole_then_the_oldest_operator() {
        let (old, young) = (operator("old", "2020", "/old"), operator("young", "2021", "/young"));
        let path = |text: &str| Some(text.to_owned());
        assert_eq!(in_force(&[young.clone(), old.clone()]), (path("/old"), vec!["young".to_owned()]));
        let map = config_map("istio-system", "accessLogFile: /map");
        assert_eq!(in_force(&[old.clone(), map]), (path("/map"), vec!["old".to_owned()]));
        let silent = config_map("istio-system", "enableAutoMtls: true");
        assert_eq!(in_force(&[old.clone(), silent]), (None, vec!["old".to_owned()]));
        assert_eq!(in_force(&[old, config_map("shop", "accessLogFile: /map")]), (path("/old"), Vec::new()));
    }

    #[test]
    fn what_is_not_said_is_istios_default() {
        let mesh = MeshConfig::default();
        assert_eq!(&*mesh.root_namespace, "istio-system");
        assert!(mesh.auto_mtls && mesh.allows_unknown_hosts && !mesh.upgrades_to_http2);
        assert_eq!((mesh.mesh_mtls, mesh.access_log_file), (TlsParameters::default(), None));
    }
}
