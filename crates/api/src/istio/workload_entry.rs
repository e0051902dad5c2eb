//! WorkloadEntry: one workload instance outside Kubernetes, and the endpoint of a ServiceEntry; WorkloadGroup: what many
//! of them have in common. Leaves out their health, which is status. Source: Istio `networking.WorkloadEntry`,
//! `networking.WorkloadGroup`.

use std::collections::BTreeMap;

use crate::check;
use crate::decode::wire;
use crate::kubernetes::HttpHeader;
use crate::syntax;

wire! {
    /// One workload instance.
    pub struct WorkloadEntry {
        /// IP address, or DNS name, or `unix:///path`.
        address: Option<String>, "address" => syntax::workload_address;
        /// Its ports by the names of the service's ports.
        ports: BTreeMap<String, u32>, "ports" => syntax::port;
        /// Labels.
        labels: BTreeMap<String, String>, "labels" => syntax::label_value;
        /// `region/zone/subzone`.
        locality: Option<String>, "locality";
        /// Load balancing weight; absent: 1.
        weight: Option<u32>, "weight";
        /// Service account.
        service_account: Option<String>, "serviceAccount";
        /// The network that it is in; those of the same name reach each other directly.
        network: Option<String>, "network";
    }
    rule check::workload_entry;
}

wire! {
    /// What the workload instances of a group have in common; each becomes a WorkloadEntry when it registers.
    pub struct WorkloadGroup {
        /// Labels and annotations of the entries.
        metadata: WorkloadGroupMeta, "metadata";
        /// The entries.
        template: WorkloadTemplate, "template", required;
        /// How the agent beside each instance finds out whether it gets traffic.
        probe: Option<ReadinessProbe>, "probe";
    }
    rule check::workload_group;
}

wire! {
    /// Metadata of the entries of a group.
    pub struct WorkloadGroupMeta {
        /// Labels.
        labels: BTreeMap<String, String>, "labels" => syntax::label_value;
        /// Annotations.
        annotations: BTreeMap<String, String>, "annotations";
    }
}

wire! {
    /// A workload instance before it registers.
    pub struct WorkloadTemplate {
        /// Address; each instance has its own, so that there is rarely one here.
        address: Option<String>, "address" => syntax::workload_address;
        /// Its ports by the names of the service's ports.
        ports: BTreeMap<String, u32>, "ports" => syntax::port;
        /// Labels.
        labels: BTreeMap<String, String>, "labels" => syntax::label_value;
        /// `region/zone/subzone`.
        locality: Option<String>, "locality";
        /// Load balancing weight; absent: 1.
        weight: Option<u32>, "weight";
        /// Service account.
        service_account: Option<String>, "serviceAccount";
        /// The network that it is in.
        network: Option<String>, "network";
    }
}

wire! {
    /// A question that an agent asks the workload beside it, again and again.
    pub struct ReadinessProbe {
        /// By an HTTP GET.
        http_get: Option<HttpHealthCheck>, "httpGet";
        /// By a TCP connection.
        tcp_socket: Option<TcpHealthCheck>, "tcpSocket";
        /// By a command.
        exec: Option<ExecHealthCheck>, "exec";
        /// By a gRPC health check.
        grpc: Option<GrpcHealthCheck>, "grpc";
        /// Seconds before the first; absent: 0.
        initial_delay_seconds: Option<i32>, "initialDelaySeconds" => syntax::not_negative;
        /// Seconds for one; absent: 1.
        timeout_seconds: Option<i32>, "timeoutSeconds" => syntax::not_negative;
        /// Seconds between two; absent: 10.
        period_seconds: Option<i32>, "periodSeconds" => syntax::not_negative;
        /// Successes in a row that count; absent: 1.
        success_threshold: Option<i32>, "successThreshold" => syntax::not_negative;
        /// Failures in a row that count; absent: 3.
        failure_threshold: Option<i32>, "failureThreshold" => syntax::not_negative;
    }
    rule check::readiness_probe;
}

wire! {
    /// A probe by HTTP.
    pub struct HttpHealthCheck {
        /// Path; absent: `/`.
        path: Option<String>, "path";
        /// Port.
        port: u32, "port", required => syntax::port;
        /// Host; absent: localhost.
        host: Option<String>, "host";
        /// HTTP or HTTPS; absent: HTTP.
        scheme: Option<String>, "scheme" => syntax::probe_scheme;
        /// Further headers.
        http_headers: Vec<HttpHeader>, "httpHeaders";
    }
}

wire! {
    /// A probe by TCP.
    pub struct TcpHealthCheck {
        /// Host; absent: localhost.
        host: Option<String>, "host";
        /// Port.
        port: u32, "port", required => syntax::port;
    }
}

wire! {
    /// A probe by command.
    pub struct ExecHealthCheck {
        /// Program and arguments.
        command: Vec<String>, "command", required;
    }
}

wire! {
    /// A probe by gRPC.
    pub struct GrpcHealthCheck {
        /// The service that is asked about.
        service: Option<String>, "service";
        /// Port.
        port: Option<u32>, "port" => syntax::port;
    }
}
