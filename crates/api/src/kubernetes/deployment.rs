//! Deployment: replicas of a pod. Leaves out running them. Source: Kubernetes apps/v1 `Deployment` and core/v1
//! `PodSpec`; pod fields that a local process cannot have are reported, not dropped.

use std::collections::BTreeMap;

use crate::check;
use crate::decode::wire;
use crate::kubernetes::PortRef;
use crate::syntax;

wire! {
    /// Replicas of a pod.
    pub struct Deployment {
        /// How many; absent: 1.
        replicas: Option<u32>, "replicas";
        /// Labels its pods carry.
        selector: LabelSelector, "selector", required;
        /// The pod.
        template: PodTemplate, "template", required;
    }
    ignored "revisionHistoryLimit", "progressDeadlineSeconds";
    later UNSUPPORTED_POD_FIELD "strategy", "paused", "minReadySeconds";
    rule check::deployment;
}

wire! {
    /// Pods by label.
    pub struct LabelSelector {
        /// Labels they carry; all of them.
        match_labels: BTreeMap<String, String>, "matchLabels" => syntax::label_value;
    }
    later UNSUPPORTED_FIELD "matchExpressions";
}

wire! {
    /// What each pod is made from.
    pub struct PodTemplate {
        /// Labels and annotations of the pod.
        metadata: PodTemplateMeta, "metadata";
        /// The pod.
        spec: PodSpec, "spec", required;
    }
}

wire! {
    /// Metadata of the pods.
    pub struct PodTemplateMeta {
        /// Labels.
        labels: BTreeMap<String, String>, "labels" => syntax::label_value;
        /// Annotations.
        annotations: BTreeMap<String, String>, "annotations";
    }
    ignored "name", "namespace", "creationTimestamp", "generateName";
}

wire! {
    /// A pod.
    pub struct PodSpec {
        /// Its containers.
        containers: Vec<Container>, "containers", required;
        /// Its identity; absent: `default`.
        service_account_name: Option<String>, "serviceAccountName" => syntax::dns_name;
        /// Seconds from the request to end until it is killed; absent: 30.
        termination_grace_period_seconds: Option<u32>, "terminationGracePeriodSeconds";
    }
    ignored "serviceAccount", "enableServiceLinks", "automountServiceAccountToken", "restartPolicy", "dnsPolicy",
        "schedulerName", "imagePullSecrets", "nodeName";
    later UNSUPPORTED_POD_FIELD "volumes", "initContainers", "ephemeralContainers", "activeDeadlineSeconds",
        "nodeSelector", "hostNetwork", "hostPID", "hostIPC", "hostUsers", "shareProcessNamespace", "securityContext",
        "hostname", "subdomain", "affinity", "tolerations", "hostAliases", "priorityClassName", "priority",
        "dnsConfig", "readinessGates", "runtimeClassName", "preemptionPolicy", "overhead",
        "topologySpreadConstraints", "setHostnameAsFQDN", "os", "schedulingGates", "resourceClaims", "resources";
}

wire! {
    /// One program of a pod.
    pub struct Container {
        /// Name, unique in the pod.
        name: String, "name", required => syntax::dns_label;
        /// Image; a local process has none and runs `command` instead.
        image: Option<String>, "image";
        /// Program and first arguments.
        command: Vec<String>, "command";
        /// Further arguments.
        args: Vec<String>, "args";
        /// Working directory.
        working_dir: Option<String>, "workingDir";
        /// Environment.
        env: Vec<EnvVar>, "env";
        /// Ports it listens on.
        ports: Vec<ContainerPort>, "ports";
        /// Whether it gets traffic.
        readiness_probe: Option<Probe>, "readinessProbe";
        /// Whether it is restarted.
        liveness_probe: Option<Probe>, "livenessProbe";
        /// Whether it has started; the other probes wait for it.
        startup_probe: Option<Probe>, "startupProbe";
    }
    ignored "imagePullPolicy", "terminationMessagePath", "terminationMessagePolicy", "stdin", "stdinOnce", "tty";
    later UNSUPPORTED_POD_FIELD "envFrom", "resources", "resizePolicy", "restartPolicy", "volumeMounts",
        "volumeDevices", "lifecycle", "securityContext", "restartPolicyRules";
}

wire! {
    /// A port a container listens on.
    pub struct ContainerPort {
        /// Name, unique in the pod.
        name: Option<String>, "name" => syntax::container_port_name;
        /// The number.
        container_port: u32, "containerPort", required => syntax::port;
        /// TCP, UDP or SCTP; absent: TCP.
        protocol: Option<String>, "protocol" => syntax::transport_protocol;
    }
    later UNSUPPORTED_POD_FIELD "hostPort", "hostIP";
}

wire! {
    /// An environment variable.
    pub struct EnvVar {
        /// Name.
        name: String, "name", required => syntax::env_name;
        /// Value; `$(NAME)` refers to an earlier variable.
        value: Option<String>, "value";
        /// Where the value comes from instead.
        value_from: Option<EnvVarSource>, "valueFrom";
    }
    rule check::env_var;
}

wire! {
    /// Where the value of a variable comes from.
    pub struct EnvVarSource {
        /// A field of the pod.
        field_ref: Option<ObjectFieldSelector>, "fieldRef";
    }
    later UNSUPPORTED_FIELD "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef";
}

wire! {
    /// A field of the pod.
    pub struct ObjectFieldSelector {
        /// `metadata.name`, `metadata.namespace`, `metadata.labels['KEY']`, `metadata.annotations['KEY']`,
        /// `spec.serviceAccountName`, `status.podIP`.
        field_path: String, "fieldPath", required => syntax::field_path;
    }
    ignored "apiVersion";
}

wire! {
    /// A question asked of a container again and again.
    pub struct Probe {
        /// By an HTTP GET; 200 to 399 is a success.
        http_get: Option<HttpGetAction>, "httpGet";
        /// By a TCP connection.
        tcp_socket: Option<TcpSocketAction>, "tcpSocket";
        /// By a command; exit code 0 is a success.
        exec: Option<ExecAction>, "exec";
        /// Seconds before the first; absent: 0.
        initial_delay_seconds: Option<u32>, "initialDelaySeconds";
        /// Seconds between two; absent: 10.
        period_seconds: Option<u32>, "periodSeconds" => syntax::at_least_one;
        /// Seconds for one; absent: 1.
        timeout_seconds: Option<u32>, "timeoutSeconds" => syntax::at_least_one;
        /// Successes in a row that count; absent: 1.
        success_threshold: Option<u32>, "successThreshold" => syntax::at_least_one;
        /// Failures in a row that count; absent: 3.
        failure_threshold: Option<u32>, "failureThreshold" => syntax::at_least_one;
    }
    later UNSUPPORTED_FIELD "grpc";
    later UNSUPPORTED_POD_FIELD "terminationGracePeriodSeconds";
    rule check::probe;
}

wire! {
    /// A probe by HTTP.
    pub struct HttpGetAction {
        /// Path; absent: `/`.
        path: Option<String>, "path";
        /// Port, by number or name.
        port: PortRef, "port", required;
        /// Host; absent: the address of the pod.
        host: Option<String>, "host";
        /// HTTP or HTTPS; absent: HTTP.
        scheme: Option<String>, "scheme" => syntax::probe_scheme;
        /// Further headers.
        http_headers: Vec<HttpHeader>, "httpHeaders";
    }
}

wire! {
    /// A header.
    pub struct HttpHeader {
        /// Name.
        name: String, "name", required => syntax::header_name;
        /// Value.
        value: String, "value";
    }
}

wire! {
    /// A probe by TCP.
    pub struct TcpSocketAction {
        /// Port, by number or name.
        port: PortRef, "port", required;
        /// Host; absent: the address of the pod.
        host: Option<String>, "host";
    }
}

wire! {
    /// A probe by command.
    pub struct ExecAction {
        /// Program and arguments.
        command: Vec<String>, "command", required;
    }
}
