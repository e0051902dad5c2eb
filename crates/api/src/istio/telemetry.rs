//! Telemetry: what proxies measure, trace and log. Leaves out how several of them combine. Source: Istio
//! `telemetry.Telemetry`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::check;
use crate::decode::{wire, wire_enum};
use crate::istio::{PodSelector, PolicyTargetReference};
use crate::syntax;

wire! {
    /// What proxies tell of their traffic.
    pub struct Telemetry {
        /// Workloads it applies to; absent: all of the namespace, or of the mesh in the root namespace.
        selector: Option<PodSelector>, "selector";
        /// Older form of `targetRefs`.
        target_ref: Option<PolicyTargetReference>, "targetRef";
        /// What it is attached to instead.
        target_refs: Vec<PolicyTargetReference>, "targetRefs";
        /// Traces.
        tracing: Vec<Tracing>, "tracing";
        /// Metrics.
        metrics: Vec<Metrics>, "metrics";
        /// Access logs.
        access_logging: Vec<AccessLogging>, "accessLogging";
    }
    rule check::telemetry;
}

wire! {
    /// A reference to a provider of MeshConfig.
    pub struct ProviderRef {
        /// Its name.
        name: String, "name", required;
    }
}

wire_enum! {
    /// Which side of a call.
    pub enum WorkloadMode {
        /// Both.
        ClientAndServer = "CLIENT_AND_SERVER",
        /// The caller's.
        Client = "CLIENT",
        /// The callee's.
        Server = "SERVER",
    }
}

wire! {
    /// Traffic by the side of the call.
    pub struct ModeSelector {
        /// The side.
        mode: Option<WorkloadMode>, "mode";
    }
}

wire! {
    /// How requests are traced.
    pub struct Tracing {
        /// Which traffic.
        select: Option<ModeSelector>, "match";
        /// Where spans go; one at most.
        providers: Vec<ProviderRef>, "providers";
        /// Share of requests that start a trace, in percent.
        random_sampling_percentage: Option<f64>, "randomSamplingPercentage" => syntax::percent;
        /// Whether no span is reported.
        disable_span_reporting: Option<bool>, "disableSpanReporting";
        /// Whether the headers of a trace are not passed on.
        disable_context_propagation: Option<bool>, "disableContextPropagation";
        /// Tags of spans by name.
        custom_tags: BTreeMap<String, CustomTag>, "customTags";
        /// Whether spans carry Istio's own tags.
        enable_istio_tags: Option<bool>, "enableIstioTags";
        /// Whether the request id says if a request is traced.
        use_request_id_for_trace_sampling: Option<bool>, "useRequestIdForTraceSampling";
    }
}

wire! {
    /// Where the value of a tag comes from.
    pub struct CustomTag {
        /// A text.
        literal: Option<TagValue>, "literal";
        /// A variable of the proxy's environment.
        environment: Option<TagSource>, "environment";
        /// A header of the request.
        header: Option<TagSource>, "header";
        /// An expression in the access log's language.
        formatter: Option<TagValue>, "formatter";
    }
    rule check::custom_tag;
}

wire! {
    /// A text.
    pub struct TagValue {
        /// The text.
        value: String, "value", required;
    }
}

wire! {
    /// A name to look up.
    pub struct TagSource {
        /// The name.
        name: String, "name", required;
        /// What is said when it is not there.
        default_value: Option<String>, "defaultValue";
    }
}

wire! {
    /// What is measured.
    pub struct Metrics {
        /// Where metrics go.
        providers: Vec<ProviderRef>, "providers";
        /// Changes to metrics, in order.
        overrides: Vec<MetricsOverrides>, "overrides";
        /// Time between reports of providers that push.
        reporting_interval: Option<Duration>, "reportingInterval" => syntax::duration;
    }
}

wire! {
    /// A change to metrics.
    pub struct MetricsOverrides {
        /// Which metrics.
        select: Option<MetricSelector>, "match";
        /// Whether they are not recorded.
        disabled: Option<bool>, "disabled";
        /// Their labels by name.
        tag_overrides: BTreeMap<String, TagOverride>, "tagOverrides";
    }
}

wire! {
    /// Metrics by name and side.
    pub struct MetricSelector {
        /// One of Istio's metrics.
        metric: Option<IstioMetric>, "metric";
        /// Another metric by its name.
        custom_metric: Option<String>, "customMetric";
        /// The side of the call.
        mode: Option<WorkloadMode>, "mode";
    }
    rule check::metric_selector;
}

wire_enum! {
    /// Istio's metrics.
    pub enum IstioMetric {
        /// All of them.
        AllMetrics = "ALL_METRICS",
        /// `istio_requests_total`.
        RequestCount = "REQUEST_COUNT",
        /// `istio_request_duration_milliseconds`.
        RequestDuration = "REQUEST_DURATION",
        /// `istio_request_bytes`.
        RequestSize = "REQUEST_SIZE",
        /// `istio_response_bytes`.
        ResponseSize = "RESPONSE_SIZE",
        /// `istio_tcp_connections_opened_total`.
        TcpOpenedConnections = "TCP_OPENED_CONNECTIONS",
        /// `istio_tcp_connections_closed_total`.
        TcpClosedConnections = "TCP_CLOSED_CONNECTIONS",
        /// `istio_tcp_sent_bytes_total`.
        TcpSentBytes = "TCP_SENT_BYTES",
        /// `istio_tcp_received_bytes_total`.
        TcpReceivedBytes = "TCP_RECEIVED_BYTES",
        /// `istio_request_messages_total`.
        GrpcRequestMessages = "GRPC_REQUEST_MESSAGES",
        /// `istio_response_messages_total`.
        GrpcResponseMessages = "GRPC_RESPONSE_MESSAGES",
    }
}

wire! {
    /// A change to a label.
    pub struct TagOverride {
        /// Set it or leave it out.
        operation: Option<TagOperation>, "operation";
        /// Expression for its value.
        value: Option<String>, "value";
    }
    rule check::tag_override;
}

wire_enum! {
    /// What happens to a label.
    pub enum TagOperation {
        /// It is set.
        Upsert = "UPSERT",
        /// It is left out.
        Remove = "REMOVE",
    }
}

wire! {
    /// What is logged.
    pub struct AccessLogging {
        /// Which traffic.
        select: Option<ModeSelector>, "match";
        /// Where it is logged.
        providers: Vec<ProviderRef>, "providers";
        /// Whether it is not logged.
        disabled: Option<bool>, "disabled";
        /// Which of it.
        filter: Option<LogFilter>, "filter";
    }
}

wire! {
    /// A condition on what is logged.
    pub struct LogFilter {
        /// A CEL expression over the attributes of a request.
        expression: Option<String>, "expression";
    }
}
