//! Envoy's substitution format strings (`%REQ(X)%`), compiled; evaluation belongs to the proxy.
//!
//! Source: <https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage>

use http::HeaderName;

mod arguments;
mod parse;
#[cfg(test)]
mod tests;
mod tls;

pub use parse::FormatError;
pub use tls::TlsOp;

/// A format string: literal text and operators in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Format {
    /// The pieces.
    pub ops: Vec<Op>,
}

/// A `json_format`: the same operators as values of a JSON document.
#[derive(Debug, Clone, PartialEq)]
pub enum JsonFormat {
    /// An object, keys in sorted order unless the message says otherwise.
    Object(Vec<(Box<str>, JsonFormat)>),
    /// A list.
    List(Vec<JsonFormat>),
    /// A string value. A lone operator keeps its type (number, or null when missing).
    Value(Format),
    /// A number or bool of the configuration.
    Literal(serde_json::Value),
}

/// A header with an alternative and a maximal length: `%REQ(A?B):10%`.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderOp {
    /// First choice.
    pub name: HeaderName,
    /// Second choice.
    pub alternative: Option<HeaderName>,
    /// Cut after so many bytes.
    pub max_len: Option<usize>,
}

/// One piece of a [`Format`]. Named as Envoy's operators.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each is the Envoy operator of that name")]
pub enum Op {
    Literal(Box<str>),
    /// `%START_TIME(format)%`, empty for the default `%Y-%m-%dT%H:%M:%S.%3fZ` form.
    StartTime(Box<str>),
    /// `%REQ(X?Y):Z%`; `:METHOD`, `:PATH`, `:AUTHORITY`, `:SCHEME` are the pseudo header ops below.
    Req(HeaderOp),
    ReqMethod,
    /// `%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%`: the path as it came.
    ReqOriginalPath,
    /// `%REQ(:PATH)%`: the path as it went.
    ReqPath,
    ReqAuthority,
    ReqScheme,
    Resp(HeaderOp),
    Trailer(HeaderOp),
    Protocol,
    ResponseCode,
    /// With blanks as underscores.
    ResponseCodeDetails,
    /// `%RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%`.
    ResponseCodeDetailsAsTheyAre,
    ResponseFlags,
    ResponseFlagsLong,
    ConnectionTerminationDetails,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    ResponseDuration,
    ResponseTxDuration,
    UpstreamHost,
    UpstreamCluster,
    UpstreamClusterRaw,
    UpstreamLocalAddress,
    UpstreamRemoteAddress,
    UpstreamRequestAttemptCount,
    UpstreamTransportFailureReason,
    UpstreamProtocol,
    /// Only internal listeners have one: empty for every other upstream connection.
    UpstreamRemoteAddressEndpointId,
    DownstreamLocalAddress,
    DownstreamLocalAddressWithoutPort,
    DownstreamLocalPort,
    DownstreamRemoteAddress,
    DownstreamRemoteAddressWithoutPort,
    DownstreamRemotePort,
    DownstreamDirectRemoteAddress,
    DownstreamDirectRemoteAddressWithoutPort,
    RequestedServerName,
    RouteName,
    VirtualHostName,
    Hostname,
    ConnectionId,
    StreamId,
    StartTimeLocal(Box<str>),
    EmitTime(Box<str>),
    EmitTimeLocal(Box<str>),
    /// `%REQ_WITHOUT_QUERY(X?Y):Z%`.
    ReqWithoutQuery(HeaderOp),
    /// `%REQ_WITHOUT_QUERY(X-ENVOY-ORIGINAL-PATH?:PATH):Z%` and `%REQ_WITHOUT_QUERY(:PATH):Z%`.
    PathWithoutQuery(PathSource),
    /// `%PATH(X:Y):Z%`.
    Path(PathSource, bool),
    QueryParam(Box<str>),
    QueryParams(PathSource),
    RequestHeadersBytes,
    ResponseHeadersBytes,
    ResponseTrailersBytes,
    /// `%COMMON_DURATION(START:END:PRECISION)%`.
    CommonDuration(TimePoint, TimePoint, Precision),
    UpstreamHostName(bool),
    UpstreamHostWithoutPort,
    UpstreamHostPort,
    UpstreamLocalAddressWithoutPort,
    UpstreamLocalPort,
    DownstreamDirectLocalAddress,
    DownstreamDirectLocalAddressWithoutPort,
    DownstreamDirectLocalPort,
    DownstreamDirectRemotePort,
    RequestedServerNameOrHost(ServerNameSource),
    AccessLogType,
    UniqueId,
    GrpcStatus(GrpcStatusStyle),
    Environment(Box<str>),
    /// `%DYNAMIC_METADATA(NAMESPACE:KEY*):Z%`.
    DynamicMetadata(Box<str>, Vec<Box<str>>),
    /// `%FILTER_STATE(KEY:F):Z%`.
    FilterState(Box<str>),
    /// `%REQ(X?Y)%` where a pseudo header is involved: the second when the first has no value.
    Either(Box<Op>, Box<Op>),
    /// An operator with a length: `:Z`.
    Cut(Box<Op>, usize),
    /// `%LOCAL_REPLY_BODY%`: of an answer of the proxy's own while it is made; empty in logs.
    LocalReplyBody,
    /// `%DOWNSTREAM_TLS_VERSION%` and its kin.
    Tls(TlsOp),
    /// `%UPSTREAM_TLS_VERSION%` and its kin.
    UpstreamTls(TlsOp),
    /// Operators of what a request does not have here, such as `%TRACE_ID%`: `-`.
    Missing,
    /// Operators that are an empty text here, such as `%CUSTOM_FLAGS%`.
    Empty,
    /// Operators that count what TCP does not, such as `%PACKETS_RETRANSMITTED%`.
    Zero,
}

/// Which path `%PATH%` and its kin read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the parameters of the operator")]
pub enum PathSource {
    Path,
    Orig,
    OrigOrPath,
}

/// Moments of `%COMMON_DURATION%` that are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimePoint {
    /// `DS_RX_BEG`: the head came.
    DownstreamRxBegin,
    /// `DS_RX_END`: the request came whole.
    DownstreamRxEnd,
    /// `US_RX_BEG`: the response began.
    UpstreamRxBegin,
    /// `DS_TX_END`: the response was sent whole.
    DownstreamTxEnd,
}

/// The unit of `%COMMON_DURATION%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// `ms`.
    Millis,
    /// `us`.
    Micros,
    /// `ns`.
    Nanos,
}

/// The first parameter of `%REQUESTED_SERVER_NAME%`; the other source is asked when the first has nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerNameSource {
    /// `SNI_FIRST`.
    SniFirst,
    /// `HOST_FIRST`.
    HostFirst,
}

/// How `%GRPC_STATUS%` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcStatusStyle {
    /// `CAMEL_STRING`, the default.
    Camel,
    /// `SNAKE_STRING`.
    Snake,
    /// `NUMBER`.
    Number,
}

impl Format {
    /// Envoy's format of an access log without one.
    pub const ENVOY_ACCESS_LOG: &str = concat!(
        "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
        "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
        "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% ",
        "\"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" ",
        "\"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n",
    );

    /// Istio's format of an access log, its default text encoding.
    pub const ISTIO_ACCESS_LOG: &str = concat!(
        "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
        "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
        "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
        "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% ",
        "\"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" ",
        "\"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
        "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
        "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n",
    );
}
