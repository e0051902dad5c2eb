//! The catalogue of diagnostic codes: every code once, with its meaning. `docs/diagnostics.md` is written from this
//! table. A code keeps its meaning for ever; a retired one is not reused.

use crate::diagnostic::Severity;

/// One entry of the catalogue.
#[derive(Debug)]
pub struct Code {
    /// `MEL` and four digits: 01xx text and fields, 02xx references between objects, 03xx what is not supported yet,
    /// 04xx running objects on one machine.
    pub id: &'static str,
    /// Severity unless the finding says otherwise.
    pub severity: Severity,
    /// A few words.
    pub title: &'static str,
    /// What happens in the mesh, and what to do.
    pub explanation: &'static str,
}

macro_rules! codes {
    ($($name:ident $id:literal $severity:ident $title:literal $explanation:literal)*) => {
        $(#[doc = $title] pub static $name: Code =
            Code { id: $id, severity: Severity::$severity, title: $title, explanation: $explanation };)*
        /// Every code, in order.
        pub static ALL: &[&Code] = &[$(&$name),*];
    };
}

codes! {
    SYNTAX "MEL0101" Error "the text is not YAML"
        "The file cannot be read as YAML or JSON. Everything that came from it keeps its last good version."
    TOO_LARGE "MEL0102" Error "the file exceeds a limit"
        "The file is too large, too deeply nested, or expands to too many nodes through aliases. Split it."
    NOT_AN_OBJECT "MEL0103" Error "the document is not an object"
        "Every document needs `apiVersion`, `kind` and `metadata.name`."
    UNKNOWN_KIND "MEL0104" Error "the kind is not known"
        "Neither Istio nor Kubernetes has this kind in this group and version, or it is misspelt."
    DUPLICATE_KEY "MEL0105" Error "a key appears twice"
        "YAML keeps only one of the two values, and which one is a matter of luck. Remove one."
    UNKNOWN_FIELD "MEL0106" Error "the field is not known"
        "The API has no such field here; it would be dropped without effect. Check spelling and indentation."
    WRONG_TYPE "MEL0107" Error "the value has the wrong type"
        "The API expects another type here. Numbers and booleans meant as text need quotes."
    MISSING_FIELD "MEL0108" Error "a required field is missing"
        "The object has no meaning without this field."
    OUT_OF_RANGE "MEL0109" Error "the value is out of range"
        "The number lies outside what the API allows."
    BAD_DURATION "MEL0110" Error "the duration is not valid"
        "A duration is a number with a unit, such as `300ms`, `1.5s`, `2m` or `1h30m`."
    BAD_REGEX "MEL0111" Error "the regular expression does not compile"
        "Regular expressions use RE2 syntax and must match the whole value; there is no look-around and no back-reference."
    BAD_HOST "MEL0112" Error "the host is not valid"
        "A host is a DNS name, a wildcard whose leftmost label is `*`, or `*` alone where that is allowed."
    BAD_NAME "MEL0113" Error "the name is not valid"
        "Names, labels and keys follow the rules of Kubernetes: letters, digits, `-`, and where allowed `.` and `_`."
    BAD_ENUM "MEL0114" Error "the value is not one of the choices"
        "The API allows only the listed values, in exactly this spelling."
    CONFLICTING_FIELDS "MEL0115" Error "fields exclude each other"
        "Only one of these fields may be set at a time."
    BAD_ADDRESS "MEL0116" Error "the address is not valid"
        "An IP address, a CIDR block, a socket address or a URI authority was expected."
    EMPTY "MEL0117" Error "the value must not be empty"
        "An empty value here would match nothing or everything; say what is meant."
    UNREACHABLE_ROUTE "MEL0118" Warning "the route can never match"
        "An earlier route of the same object matches everything that this one would. Reorder them."
    DUPLICATE_NAME "MEL0119" Error "a name is used twice"
        "Names must be unique in their list."
    UNREADABLE "MEL0120" Error "the file cannot be read"
        "The system refuses the file, or it is not UTF-8 text. Everything that came from it keeps its last good version."
    NO_USE "MEL0121" Warning "the field has no use here"
        "Another field of the same object decides that nothing looks at this one. The object is in force without it."

    DEPRECATED "MEL0122" Warning "the field is deprecated"
        "The field still works; another one has taken its place."
    DOUBTFUL "MEL0123" Warning "the setting is probably not what was meant"
        "The object is valid and in force, and does something else, or something more, than it seems to."
    NOT_OF_ENVOY "MEL0131" Error "the value is not of the Envoy API"
        "The value of a patch has to be the message that `applyTo` names, in protobuf JSON. A patch with a wrong value or an unknown `@type` is left out; of an unknown field (a warning) only the field. The other patches of the object apply."

    DUPLICATE_OBJECT "MEL0201" Error "the object is defined twice"
        "Two documents define the same object; the one in the first file by name is in force."
    UNKNOWN_DESTINATION "MEL0202" Warning "the destination host is not known"
        "No service has this host. Requests that take this route are answered with 503."
    UNKNOWN_SUBSET "MEL0203" Warning "the subset is not known"
        "No DestinationRule in force for this host defines the subset. Requests that take this route are answered with 503."
    UNKNOWN_GATEWAY "MEL0204" Warning "the gateway is not known"
        "No Gateway has this name. The routes are not attached anywhere through it."
    EMPTY_SUBSET "MEL0205" Warning "the subset selects no endpoint"
        "No workload of the service carries the labels of this subset. Requests for it are answered with 503."
    IDLE_GATEWAY "MEL0206" Info "no workload matches the gateway's selector"
        "The servers of this Gateway are not open anywhere until a gateway workload carries these labels."
    ZERO_WEIGHTS "MEL0207" Error "all weights are zero"
        "No destination of this route would ever be chosen."
    DUPLICATE_HOST "MEL0208" Warning "two VirtualServices claim the same host"
        "In a sidecar only the older VirtualService is in force for a host; the other one is ignored for it."
    UNKNOWN_PORT "MEL0209" Warning "the service has no such port"
        "The destination names a port that the service does not have. Requests that take this route are answered with 503."
    UNKNOWN_SERVICE "MEL0210" Warning "the rule applies to no known service"
        "No service has the host of this DestinationRule, so it has no effect."
    PORT_CONFLICT "MEL0211" Error "two servers want the same port with different protocols"
        "A port can speak one protocol only; the older server keeps the port."
    UNMATCHED_HOST "MEL0212" Warning "the host is on none of the gateway's servers"
        "The VirtualService names a gateway whose servers do not accept this host, so it is not reachable through it."
    DUPLICATE_RULE "MEL0213" Warning "two DestinationRules apply to the same host"
        "They are merged: subsets are joined, the first traffic policy counts."
    NO_ENDPOINTS "MEL0214" Info "the service has no endpoint"
        "No ready workload matches the selector of the service. Requests to it are answered with 503."
    DUPLICATE_PEER_AUTHENTICATION "MEL0215" Warning "two PeerAuthentications apply to the same workloads"
        "Only the oldest of them is in force there."
    IGNORED_SELECTOR "MEL0216" Warning "a selector in the root namespace is ignored"
        "A PeerAuthentication in the root namespace is for the whole mesh; one with a selector there applies to nothing. Put it into the namespace of the workloads."
    UNKNOWN_SECRET "MEL0217" Warning "the secret is not known"
        "The server listens, but no TLS connection to it can be made until the Secret exists in the namespace of the gateway's workload."
    INCOMPLETE_SECRET "MEL0218" Warning "the secret lacks a key"
        "TLS needs `tls.crt` and `tls.key` (or `cert` and `key`), and for client certificates `ca.crt` (or `cacert`), which may stand in a Secret of the same name with `-cacert` at its end."
    DUPLICATE_SERVER "MEL0219" Warning "two servers want the same host on the same port"
        "The server name chooses the certificate, so it can belong to one TLS server only; the older server keeps it, the other one is not opened."
    NOT_MUTUAL "MEL0220" Warning "the two sides of the connection do not agree on TLS"
        "A DestinationRule makes clients speak plaintext to workloads that demand mutual TLS, or mutual TLS to workloads where it is off. Such connections fail."
    DUPLICATE_MESH_CONFIG "MEL0221" Warning "two objects hold MeshConfig"
        "The ConfigMap `istio` in `istio-system` counts, or without it the oldest IstioOperator; nothing is taken from the others."
    NEEDS_RESTART "MEL0222" Warning "the change needs a restart"
        "Every certificate of the mesh says its trust domain, so it is read when the mesh starts. What it was then stays in force; start `meltemi up`, or the control plane, again."

    UNKNOWN_NAMESPACE "MEL0240" Warning "the namespace is not known"
        "No object is in this namespace, so exporting to it makes the object visible to nobody."
    IDLE_POLICY "MEL0241" Warning "the policy selects no workload"
        "No workload carries the labels of the selector, so the policy has no effect."
    UNEVEN_WEIGHTS "MEL0242" Info "the weights do not add up to 100"
        "A weight is a share of the sum of the route's weights, so that 30 of 60 is one half."
    UNKNOWN_DELEGATE "MEL0243" Warning "the delegate is not known"
        "No VirtualService without hosts has this name, or it is not exported to the namespace of the one that delegates. The route that delegates to it is left out."
    CONFLICTING_DELEGATE "MEL0244" Warning "the delegate contradicts the route that leads to it"
        "A condition of the delegate fits none of the conditions of the route that delegates, so that route of the delegate is left out."
    UNUSED_DELEGATE "MEL0245" Warning "nothing delegates to the VirtualService"
        "A VirtualService without hosts is in force only where another one delegates to it."
    HOST_TAKEN "MEL0250" Warning "another service has the host"
        "A Kubernetes Service always keeps its host; of several ServiceEntries of one host in one namespace the oldest counts, unless they differ in their ports alone. Callers do not see this one, or not all of its ports."

    UNSUPPORTED_FIELD "MEL0301" Error "the field is not supported yet"
        "The field is part of the API, but Meltemi does not implement it yet, and leaving it out would change what the object does. The object is not put in force."
    UNSUPPORTED_POD_FIELD "MEL0302" Warning "the pod field has no effect yet"
        "The field is part of the Kubernetes API; Meltemi does not use it when it runs workloads as local processes. The object is in force without it."
    UNSUPPORTED_KIND "MEL0303" Warning "the kind is not supported yet"
        "The kind is part of the Istio or Kubernetes API, but Meltemi does not read it yet. The object has no effect."
    UNSUPPORTED_VALUE "MEL0304" Error "the value is not supported yet"
        "The value is part of the API, but Meltemi does not implement it yet."
    NO_EFFECT_YET "MEL0305" Warning "the field has no effect yet"
        "The field is part of the API, but nothing in Meltemi looks at it yet. The object is in force without it."

    NOT_IN_FORCE "MEL0306" Warning "the kind is not in force yet"
        "The object is read and checked, field by field, and nothing in Meltemi acts by it yet."
    ABSENT_EXTENSION "MEL0311" Warning "the proxy does not have the extension"
        "A patch brings configuration for an extension of Envoy that this proxy does not say it has, and it would refuse the listener, route or cluster with it. The patch is left out for this proxy; a stock Envoy gets it."

    NO_COMMAND "MEL0401" Error "the container has no command"
        "Images are not run on one machine; the container's `command` is. The Deployment is not started."
    SEVERAL_CONTAINERS "MEL0402" Error "the pod has several containers"
        "One program runs per replica on one machine. The Deployment is not started."
    TOO_MANY_REPLICAS "MEL0403" Error "the loopback block is full"
        "Every replica and gateway has an address of its own in one /24 block. Those beyond it are not started."
    UNKNOWN_PROBE_PORT "MEL0404" Error "the probe names a port that the container does not have"
        "The Deployment is not started, because it could never become ready."
    UNSUPPORTED_PROBE "MEL0405" Error "the probe cannot be run on one machine"
        "The Deployment is not started, because its health could not be told."
    GATEWAY_PORT_SHARED "MEL0406" Error "two gateways want the same address and port"
        "Gateways with different selectors are different processes; one socket cannot belong to both."
    GATEWAY_PORT_IN_USE "MEL0407" Error "the gateway's port is in use"
        "Another process of this machine, perhaps another mesh, listens on it."
    GATEWAY_PORT_DENIED "MEL0408" Error "the gateway's port needs a right that this user lacks"
        "Ports below 1024 belong to root unless the machine says otherwise."
    GATEWAY_ADDRESS "MEL0409" Error "the gateway cannot listen on the address"
        "The address is not one of this machine."
    IMAGE_IGNORED "MEL0410" Info "the image is not used on one machine"
        "The container's `command` runs as a local process instead."
    RESERVED_PORT "MEL0411" Error "the port belongs to the sidecar"
        "15000, 15002, 15021 and 15090 are the sidecar's own. The Deployment is not started."
    SIDECAR_PORT_DENIED "MEL0412" Error "the container's port needs a right that this user lacks"
        "The sidecar listens on it. Ports below 1024 belong to root unless the machine says otherwise."
    INGRESS_IGNORED "MEL0413" Warning "the Sidecar's ingress has no effect on one machine"
        "The sidecar of a local process listens on the ports of its container. The rest of the Sidecar is in force."
    NOT_STARTED "MEL0414" Warning "the workload is not started on one machine"
        "Only Deployments are started. Pods with an address, and the labels of the others, are known to the mesh all the same."
}
