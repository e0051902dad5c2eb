//! The codes of `istioctl analyze`, all of them, with what became of each here. `docs/analyze.md` is written from it.
//!
//! Source: Istio `pkg/config/analysis/msg/messages.yaml` (codes, names, levels).

use meltemi_api::{Code, Severity};

/// What became of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is reported.
    Reported,
    /// It is not, for this reason.
    NoMeaning(&'static str),
}

/// A code and what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The code; its title is Istio's name for it.
    pub code: &'static Code,
    /// What became of it.
    pub state: State,
}

macro_rules! catalogue {
    (@state) => { State::Reported };
    (@state $reason:literal) => { State::NoMeaning($reason) };
    ($($name:ident $id:literal $severity:ident $title:literal $explanation:literal $(never $reason:literal)?;)*) => {
        $(#[doc = $explanation] pub(crate) static $name: Code =
            Code { id: $id, severity: Severity::$severity, title: $title, explanation: $explanation };)*
        /// Every code of Istio, in order.
        pub static CATALOGUE: &[Entry] =
            &[$(Entry { code: &$name, state: catalogue!(@state $($reason)?) }),*];
    };
}

catalogue! {
    INTERNAL_ERROR "IST0001" Error "InternalError" "The tool itself failed."
        never "a fault of Meltemi ends the command with its message and exit code 2";
    DEPRECATED "IST0002" Warning "Deprecated" "A field or kind is deprecated; another one has taken its place.";
    REFERENCED_RESOURCE_NOT_FOUND "IST0101" Error "ReferencedResourceNotFound"
        "Something that is named does not exist: a host, a port, a subset, a Gateway, a Secret, a namespace, a workload.";
    NAMESPACE_NOT_INJECTED "IST0102" Info "NamespaceNotInjected"
        "Workloads of the namespace get no sidecar in a cluster.";
    POD_MISSING_PROXY "IST0103" Warning "PodMissingProxy" "A pod of a namespace with injection has no sidecar.";
    SCHEMA_VALIDATION_ERROR "IST0106" Error "SchemaValidationError"
        "The object is not valid; the MEL code in the message says why.";
    MISPLACED_ANNOTATION "IST0107" Warning "MisplacedAnnotation" "An annotation stands on a kind that has no use for it.";
    UNKNOWN_ANNOTATION "IST0108" Warning "UnknownAnnotation" "Istio has no such annotation.";
    CONFLICTING_MESH_GATEWAY_HOSTS "IST0109" Error "ConflictingMeshGatewayVirtualServiceHosts"
        "Several VirtualServices for sidecars have the same host; one of them counts.";
    CONFLICTING_SIDECARS "IST0110" Error "ConflictingSidecarWorkloadSelectors"
        "Several Sidecars select the same workload; one of them counts.";
    SIDECARS_WITHOUT_SELECTOR "IST0111" Error "MultipleSidecarsWithoutWorkloadSelectors"
        "Several Sidecars of a namespace are for all of its workloads; one of them counts.";
    PORT_REQUIRED "IST0112" Error "VirtualServiceDestinationPortSelectorRequired"
        "A destination names no port, and its service has several.";
    SEVERAL_SERVICES "IST0116" Warning "DeploymentAssociatedToMultipleServices"
        "Services of one Deployment have the same port with different protocols.";
    PORT_NAME "IST0118" Info "PortNameIsNotUnderNamingConvention"
        "Nothing says which protocol the port speaks, so it is found out from the traffic.";
    SEVERAL_INJECTION_LABELS "IST0123" Warning "NamespaceMultipleInjectionLabels"
        "Labels of a namespace contradict each other about injection.";
    INVALID_ANNOTATION "IST0125" Warning "InvalidAnnotation" "The value of an annotation is not valid.";
    UNKNOWN_REGISTRY "IST0126" Error "UnknownMeshNetworksServiceRegistry" "A network names a registry that is not known."
        never "networks of several clusters are not supported; meshNetworks that are not empty are MEL0305";
    NO_MATCHING_WORKLOADS "IST0127" Warning "NoMatchingWorkloadsFound" "The selector of a policy finds no workload.";
    NO_SERVER_VERIFICATION "IST0128" Warning "NoServerCertificateVerificationDestinationLevel"
        "A DestinationRule speaks TLS and names no CA to verify servers by.";
    NO_SERVER_VERIFICATION_AT_PORT "IST0129" Warning "NoServerCertificateVerificationPortLevel"
        "A DestinationRule speaks TLS at a port and names no CA to verify servers by.";
    UNREACHABLE_RULE "IST0130" Warning "VirtualServiceUnreachableRule"
        "Earlier routes take everything that a route would match.";
    INEFFECTIVE_MATCH "IST0131" Info "VirtualServiceIneffectiveMatch" "An earlier route has the same condition, or a wider one.";
    HOST_NOT_IN_GATEWAY "IST0132" Warning "VirtualServiceHostNotFoundInGateway"
        "No server of a Gateway takes a host of the VirtualService.";
    SCHEMA_WARNING "IST0133" Warning "SchemaWarning" "The object is valid and doubtful; the MEL code in the message says why.";
    ADDRESSES_REQUIRED "IST0134" Warning "ServiceEntryAddressesRequired"
        "A TCP port of a ServiceEntry without addresses is told from others by nothing but its number.";
    DEPRECATED_ANNOTATION "IST0135" Info "DeprecatedAnnotation" "An annotation is deprecated.";
    ALPHA_ANNOTATION "IST0136" Info "AlphaAnnotation" "An annotation is of an early feature."
        never "it says how far Istio's features are, and `istioctl analyze` does not run that analyzer either";
    CONFLICTING_TARGET_PORTS "IST0137" Warning "DeploymentConflictingPorts"
        "Services of one Deployment lead to the same port of it from different ports.";
    DUPLICATE_CERTIFICATE "IST0138" Warning "GatewayDuplicateCertificate"
        "Gateways of the same workload share a certificate; HTTP/2 clients may use one connection for both, and get 404.";
    INVALID_WEBHOOK "IST0139" Error "InvalidWebhook" "A webhook of Istio is not valid."
        never "there are no webhooks";
    SUBSET_WITHOUT_EFFECT "IST0140" Warning "IngressRouteRulesNotAffected"
        "Subsets of one VirtualService have no effect on requests that another one sends from a gateway.";
    INSUFFICIENT_PERMISSIONS "IST0141" Error "InsufficientPermissions" "Rights to install Istio are missing."
        never "it is about installing into a cluster";
    UNSUPPORTED_KUBERNETES "IST0142" Error "UnsupportedKubernetesVersion" "The version of Kubernetes is too old."
        never "it is about installing into a cluster";
    LOCALHOST_LISTENER "IST0143" Error "LocalhostListener" "A port of a Service listens on the loopback address only."
        never "it is found out in running pods; here the proxy says that it cannot connect";
    APPLICATION_UID "IST0144" Warning "InvalidApplicationUID" "A container runs as user 1337, which belongs to the proxy."
        never "traffic is not captured by user, so that no user belongs to the proxy";
    CONFLICTING_GATEWAYS "IST0145" Error "ConflictingGateways"
        "Gateways of the same workload have the same host on the same port.";
    IMAGE_AUTO_WARNING "IST0146" Warning "ImageAutoWithoutInjectionWarning"
        "A Deployment waits for injection to name its image, and is not injected."
        never "nothing is injected by a webhook: `meltemi up` runs commands, not images";
    IMAGE_AUTO_ERROR "IST0147" Error "ImageAutoWithoutInjectionError"
        "A pod waits for injection to name its image."
        never "nothing is injected by a webhook: `meltemi up` runs commands, not images";
    INJECTED_BY_DEFAULT "IST0148" Info "NamespaceInjectionEnabledByDefault" "The namespace is injected by default."
        never "it speaks of the configuration of Istio's injector, which is not there";
    NO_REQUEST_AUTHENTICATION "IST0149" Error "JwtClaimBasedRoutingWithoutRequestAuthN"
        "Routes look at the claims of a token that nothing verifies.";
    EXTERNAL_NAME_PORT "IST0150" Warning "ExternalNameServiceTypeInvalidPortName"
        "A port of an ExternalName service has a name that does not tell its protocol.";
    RELATIVE_PATCH "IST0151" Warning "EnvoyFilterUsesRelativeOperation"
        "A patch is placed relative to another filter, and nothing orders the EnvoyFilters.";
    REPLACE_PATCH "IST0152" Error "EnvoyFilterUsesReplaceOperationIncorrectly" "REPLACE is for filters and virtual hosts.";
    ADD_PATCH "IST0153" Error "EnvoyFilterUsesAddOperationIncorrectly" "ADD is not for route configurations and routes.";
    REMOVE_PATCH "IST0154" Error "EnvoyFilterUsesRemoveOperationIncorrectly" "REMOVE is not for route configurations and routes.";
    RELATIVE_PATCH_OF_VERSION "IST0155" Warning "EnvoyFilterUsesRelativeOperationWithProxyVersion"
        "A patch is placed relative to one for certain versions of the proxy.";
    UNSUPPORTED_GATEWAY_API "IST0156" Error "UnsupportedGatewayAPIVersion" "The CRDs of the Gateway API are too old."
        never "there are no CRDs: kinds are read by Meltemi itself";
    TELEMETRY_PROVIDER "IST0157" Warning "InvalidTelemetryProvider" "A Telemetry logs to nowhere.";
    PROXY_IMAGE "IST0158" Warning "PodsIstioProxyImageMismatchInNamespace" "Pods run another version of the proxy."
        never "proxies are processes of the same binary; `meltemi proxy-status` tells their versions";
    CONFLICTING_TELEMETRIES "IST0159" Error "ConflictingTelemetryWorkloadSelectors"
        "Several Telemetries select the same workload.";
    TELEMETRIES_WITHOUT_SELECTOR "IST0160" Error "MultipleTelemetriesWithoutWorkloadSelectors"
        "Several Telemetries of a namespace are for all of its workloads.";
    INVALID_CREDENTIAL "IST0161" Error "InvalidGatewayCredential" "A Secret that a Gateway names holds no usable certificate.";
    GATEWAY_PORT "IST0162" Warning "GatewayPortNotDefinedOnService" "No Service leads to a port of a Gateway.";
    EXTERNAL_CONTROL_PLANE "IST0163" Warning "InvalidExternalControlPlaneConfig"
        "The address of an external control plane is not valid."
        never "there are no webhooks, which would hold it";
    EXTERNAL_CONTROL_PLANE_IP "IST0164" Info "ExternalControlPlaneAddressIsNotAHostname"
        "The address of an external control plane is no name."
        never "there are no webhooks, which would hold it";
    INTERNAL_GATEWAY "IST0165" Warning "ReferencedInternalGateway"
        "A VirtualService names a Gateway that was generated from the Gateway API.";
    INEFFECTIVE_SELECTOR "IST0166" Warning "IneffectiveSelector"
        "A selector finds pods of a Gateway of the Gateway API, for which `targetRefs` is meant.";
    INEFFECTIVE_POLICY "IST0167" Warning "IneffectivePolicy" "A policy is for workloads of ambient mode, which have no sidecar.";
    UNKNOWN_UPGRADE "IST0168" Warning "UnknownUpgradeCompatibility" "A change between releases of Istio may matter."
        never "it is about upgrading Istio";
    UPDATE_INCOMPATIBILITY "IST0169" Warning "UpdateIncompatibility" "A change between releases of Istio matters."
        never "it is about upgrading Istio";
    INCONSISTENT_SERVICE "IST0170" Warning "MultiClusterInconsistentService" "A service differs between clusters."
        never "a mesh is one cluster";
    NEGATIVE_CONDITION "IST0171" Warning "NegativeConditionStatus" "The status of an object has a condition that does not hold."
        never "the conditions it looks for are those of ambient mode and the Gateway API, which nothing here writes";
    FUTURE_GATEWAY_API "IST0172" Warning "FutureUnsupportedGatewayAPIVersion" "The CRDs of the Gateway API get too old."
        never "there are no CRDs: kinds are read by Meltemi itself";
    EMPTY_SUBSET "IST0173" Error "DestinationRuleSubsetNotSelectPods" "The labels of a subset find no workload.";
    UNKNOWN_RULE_HOST "IST0174" Warning "UnknownDestinationRuleHost" "No service has the host of a DestinationRule.";
    UNRESTRICTED_JWKS "IST0175" Warning "JwksUriFetchUnrestricted" "Keys of tokens may be fetched from anywhere."
        never "it speaks of the environment of istiod";
    GATEWAY_API_CRD "IST0176" Warning "GatewayAPICRDVersionBelowMinimum" "The CRD of a Gateway API kind is too old."
        never "there are no CRDs: kinds are read by Meltemi itself";
    CONFLICTING_SERVICE_ENTRIES "IST0177" Warning "ConflictingServiceEntryProtocol"
        "ServiceEntries give the same host and port different protocols.";
}
