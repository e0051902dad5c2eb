//! MeshConfig: what holds for the whole mesh. It stands as text in the ConfigMap `istio` of `istio-system`, below the key
//! `mesh`, and below `spec.meshConfig` of an IstioOperator. Leaves out defaults. Source: Istio `mesh.v1alpha1.MeshConfig`,
//! `operator.v1alpha1.IstioOperatorSpec`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::check;
use crate::decode::{Decoder, Wire, wire, wire_enum};
use crate::istio::{
    ConnectionPoolSettings, HttpRetry, LocalityLbSetting, MeshProxyConfig, OutboundTrafficPolicy,
    OutlierDetection, TcpKeepalive, ZoneAwareLbSetting,
};
use crate::node::{self, Document};
use crate::object::{Object, Spec};
use crate::syntax;

/// Namespace and name of the ConfigMap.
const CONFIG_MAP: (&str, &str) = ("istio-system", "istio");

/// Its key with MeshConfig.
pub(crate) const MESH: &str = "mesh";

wire! {
    /// What holds for the whole mesh.
    pub struct MeshConfig {
        /// First part of every identity; absent: `cluster.local`.
        trust_domain: Option<String>, "trustDomain" => syntax::trust_domain;
        /// Other names of the trust domain, old ones or those of meshes that are trusted as this one.
        trust_domain_aliases: Vec<String>, "trustDomainAliases" => syntax::trust_domain;
        /// Namespace whose objects are for all; absent: `istio-system`.
        root_namespace: Option<String>, "rootNamespace" => syntax::dns_label;
        /// Whether mutual TLS is spoken where nobody says anything; absent: yes.
        enable_auto_mtls: Option<bool>, "enableAutoMtls";
        /// Whether HTTP/1 becomes HTTP/2 between sidecars; absent: no.
        h2_upgrade_policy: Option<MeshH2UpgradePolicy>, "h2UpgradePolicy";
        /// Parameters of mutual TLS between workloads.
        mesh_mtls: Option<TlsConfig>, "meshMTLS";
        /// Parameters of all other TLS.
        tls_defaults: Option<TlsConfig>, "tlsDefaults";
        /// Where proxies write their access log; empty for nowhere.
        access_log_file: Option<String>, "accessLogFile";
        /// What happens to traffic for hosts nobody knows, where no Sidecar says it.
        outbound_traffic_policy: Option<OutboundTrafficPolicy>, "outboundTrafficPolicy";
        /// How proxies run, where their nodes do not say it.
        default_config: Option<MeshProxyConfig>, "defaultConfig";
        /// Who sees a service that does not say it; absent: all.
        default_service_export_to: Vec<String>, "defaultServiceExportTo" => syntax::export_to;
        /// The namespaces whose objects count, by their labels; absent: all.
        discovery_selectors: Vec<NamespaceSelector>, "discoverySelectors";
        /// Namespaces that may see VirtualServices that do not say it; absent: all.
        default_virtual_service_export_to: Vec<String>, "defaultVirtualServiceExportTo" => syntax::export_to;
        /// When requests are tried again, where no VirtualService says it.
        default_http_retry_policy: Option<HttpRetry>, "defaultHttpRetryPolicy";
        /// Who sees a DestinationRule that does not say it: `*`, or `.` for its own namespace; absent: all.
        default_destination_rule_export_to: Vec<String>, "defaultDestinationRuleExportTo" => syntax::export_to;
        /// Longest time to connect; absent: 10s.
        connect_timeout: Option<Duration>, "connectTimeout" => syntax::duration;
        /// Probes of idle connections to services.
        tcp_keepalive: Option<TcpKeepalive>, "tcpKeepalive";
        /// Time after which a name that was not found is asked for again; absent: 60s.
        dns_refresh_rate: Option<Duration>, "dnsRefreshRate" => syntax::duration;
        /// Localities, where no DestinationRule says it; absent: in force, without weights.
        locality_lb_setting: Option<LocalityLbSetting>, "localityLbSetting";
        /// Zones, where no DestinationRule says anything of localities; wins over `localityLbSetting`.
        zone_aware_lb_setting: Option<ZoneAwareLbSetting>, "zoneAwareLbSetting";
        /// Pattern of the name of inbound clusters in statistics.
        inbound_cluster_stat_name: Option<String>, "inboundClusterStatName";
        /// Pattern of the name of outbound clusters in statistics.
        outbound_cluster_stat_name: Option<String>, "outboundClusterStatName";
        /// What becomes of paths before anything looks at them; absent: BASE.
        path_normalization: Option<ProxyPathNormalization>, "pathNormalization";
        /// A line of the access log, or with JSON an object of its fields; absent: Istio's own.
        access_log_format: Option<String>, "accessLogFormat";
        /// Whether the access log is text or JSON.
        access_log_encoding: Option<AccessLogEncoding>, "accessLogEncoding";
        /// Time to find out what is spoken on a connection; absent or 0: no bound.
        protocol_detection_timeout: Option<Duration>, "protocolDetectionTimeout" => syntax::duration_or_zero;
        /// Where sidecars reach their workloads.
        inbound_traffic_policy: Option<InboundTrafficPolicy>, "inboundTrafficPolicy";
        /// What holds where no DestinationRule says it.
        default_traffic_policy: Option<DefaultTrafficPolicy>, "defaultTrafficPolicy";
    }
    later NO_EFFECT_YET "proxyListenPort", "proxyInboundListenPort", "proxyHttpPort", "ingressClass", "ingressService", "ingressControllerMode",
        "ingressSelector", "enableTracing", "enableEnvoyAccessLogService",
        "disableEnvoyListenerLog", "configSources", "caCertificates",
        "certificates", "serviceSettings", "serviceScopeConfigs", "enablePrometheusMerge",
        "verifyCertificateAtClient", "ca", "extensionProviders", "defaultProviders", "compliancePolicy", "hboneIdleTimeout",
        "serviceEntryVisibility";
    rule check::mesh_config;
}

wire! {
    /// Namespaces by label: what all of its conditions hold for.
    pub struct NamespaceSelector {
        /// Labels they carry.
        match_labels: BTreeMap<String, String>, "matchLabels" => syntax::label_value;
        /// Further conditions.
        match_expressions: Vec<LabelRequirement>, "matchExpressions";
    }
}

wire! {
    /// A condition on one label.
    pub struct LabelRequirement {
        /// The label.
        key: String, "key", required => syntax::label_key;
        /// How it is to be.
        operator: Option<LabelOperator>, "operator", required;
        /// The values that are meant.
        values: Vec<String>, "values" => syntax::label_value;
    }
}

wire_enum! {
    /// How a label is to be.
    pub enum LabelOperator {
        /// One of the values.
        In = "In",
        /// None of the values, or absent.
        NotIn = "NotIn",
        /// There.
        Exists = "Exists",
        /// Absent.
        DoesNotExist = "DoesNotExist",
    }
}

impl NamespaceSelector {
    /// Whether all conditions hold for these labels.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|condition| condition.holds(labels))
    }
}

impl LabelRequirement {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator.unwrap_or_default() {
            LabelOperator::In => value.is_some_and(|value| self.values.contains(value)),
            LabelOperator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }
}

wire! {
    /// What becomes of paths.
    pub struct ProxyPathNormalization {
        /// How far it goes.
        normalization: Option<NormalizationType>, "normalization";
    }
}

wire_enum! {
    /// How far the normalization of paths goes.
    pub enum NormalizationType {
        /// As BASE.
        Default = "DEFAULT",
        /// Paths stay as they are.
        None = "NONE",
        /// RFC 3986: dot segments go, and `\\` is `/`.
        Base = "BASE",
        /// Several slashes are one besides.
        MergeSlashes = "MERGE_SLASHES",
        /// Escaped slashes are slashes besides.
        DecodeAndMergeSlashes = "DECODE_AND_MERGE_SLASHES",
    }
}

wire_enum! {
    /// Whether the access log is text or JSON.
    pub enum AccessLogEncoding {
        /// Text.
        Text = "TEXT",
        /// JSON.
        Json = "JSON",
    }
}

wire! {
    /// Where sidecars reach their workloads.
    pub struct InboundTrafficPolicy {
        /// On which address.
        mode: Option<InboundTrafficPolicyMode>, "mode";
    }
}

wire_enum! {
    /// On which address a workload listens.
    pub enum InboundTrafficPolicyMode {
        /// The one that callers ask for.
        Passthrough = "PASSTHROUGH",
        /// Localhost.
        Localhost = "LOCALHOST",
    }
}

wire! {
    /// What holds where no DestinationRule says it, block by block.
    pub struct DefaultTrafficPolicy {
        /// Limits of the connections.
        connection_pool: Option<ConnectionPoolSettings>, "connectionPool";
        /// When an endpoint is taken out.
        outlier_detection: Option<OutlierDetection>, "outlierDetection";
    }
}

wire_enum! {
    /// Whether HTTP/1 becomes HTTP/2 between sidecars.
    pub enum MeshH2UpgradePolicy {
        /// No.
        DoNotUpgrade = "DO_NOT_UPGRADE",
        /// Yes.
        Upgrade = "UPGRADE",
    }
}

wire! {
    /// Parameters of TLS.
    pub struct TlsConfig {
        /// Oldest version; absent: 1.2.
        min_protocol_version: Option<MinProtocolVersion>, "minProtocolVersion";
        /// Groups for the exchange of keys, best first.
        ecdh_curves: Vec<String>, "ecdhCurves";
        /// Suites of TLS 1.2, best first.
        cipher_suites: Vec<String>, "cipherSuites";
    }
    rule check::tls_config;
}

wire_enum! {
    /// The oldest version of TLS.
    pub enum MinProtocolVersion {
        /// The proxy's choice.
        Auto = "TLS_AUTO",
        /// 1.2.
        V1_2 = "TLSV1_2",
        /// 1.3.
        V1_3 = "TLSV1_3",
    }
}

wire! {
    /// How Istio is to be installed. Only what its mesh is to be like matters here.
    pub struct IstioOperator {
        /// What holds for the whole mesh.
        mesh_config: Option<MeshConfig>, "meshConfig";
    }
    later NO_EFFECT_YET "profile", "hub", "tag", "namespace", "revision", "installPackagePath", "resourceSuffix",
        "compatibilityVersion", "defaultRevision", "components", "addonComponents", "values", "unvalidatedValues";
}

impl MeshConfig {
    /// The fields of an access log in JSON; `None` where `accessLogFormat` is not an object of texts.
    pub fn access_log_fields(&self) -> Option<BTreeMap<String, String>> {
        let text = self.access_log_format.as_deref()?;
        let mut decoder = Decoder::new(Arc::from("accessLogFormat"));
        let Some(Document::Read(node, _)) = node::read(text).into_iter().next() else { return None };
        let fields = BTreeMap::decode(&node, &mut decoder, None)?;
        decoder.diagnostics.is_empty().then_some(fields)
    }

    /// What one object says of the mesh.
    pub fn of(object: &Object) -> Option<&MeshConfig> {
        match &object.spec {
            Spec::ConfigMap(map) => map.mesh.as_deref(),
            Spec::IstioOperator(operator) => operator.mesh_config.as_ref(),
            _ => None,
        }
    }

    /// Where in `object` it stands: the path that its own fields are below.
    pub fn path(object: &Object) -> &'static str {
        match object.spec {
            Spec::ConfigMap(_) => "data.mesh",
            _ => "spec.meshConfig",
        }
    }

    /// The objects that hold MeshConfig, those in force first: the ConfigMap, then IstioOperators, the oldest first. Only
    /// the first one counts, whole: an IstioOperator is what the ConfigMap is made from.
    pub fn candidates<'a>(objects: impl IntoIterator<Item = &'a Arc<Object>>) -> Vec<&'a Arc<Object>> {
        let mut found: Vec<_> =
            objects.into_iter().filter(|object| MeshConfig::of(object).is_some()).collect();
        found.sort_by_key(|object| {
            let created = object.meta.created_unix_seconds;
            (matches!(object.spec, Spec::IstioOperator(_)), created.is_none(), created, object.id.clone())
        });
        found
    }
}

/// Whether an object is the ConfigMap that MeshConfig is read from.
pub(crate) fn is_config_map(object: &Object) -> bool {
    let (namespace, name) = CONFIG_MAP;
    matches!(object.spec, Spec::ConfigMap(_))
        && &*object.id.namespace == namespace
        && &*object.id.name == name
}
