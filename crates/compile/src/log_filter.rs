//! Which requests an access log writes: the filter tree, and its decision.
//!
//! Source: `envoy.config.accesslog.v3.AccessLogFilter`.

use std::sync::Arc;
use std::time::Duration;

use meltemi_envoy::config::accesslog::v3 as proto;
use meltemi_envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use meltemi_envoy::config::accesslog::v3::comparison_filter::Op;
use meltemi_envoy::config::core::v3::RuntimeUInt32;
use meltemi_envoy::data::accesslog::v3::AccessLogType;

use crate::ledger::{At, harmless};
use crate::matcher::{HeaderMatcher, RequestView, header_matcher};
use crate::scalar::{WHOLE_PPM, fraction_ppm};

/// What a line must be like to be written.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is the Envoy filter of that name")]
pub enum LogFilter {
    StatusCode(Comparison, u32),
    Duration(Comparison, Duration),
    NotHealthCheck,
    /// In parts per million; by `x-request-id` unless the numbers are to be independent.
    Runtime {
        ppm: u32,
        independent: bool,
    },
    And(Vec<LogFilter>),
    Or(Vec<LogFilter>),
    Header(Box<HeaderMatcher>),
    /// Short names; none of them asks for any flag at all.
    ResponseFlags(Vec<Box<str>>),
    GrpcStatus {
        statuses: Vec<u32>,
        exclude: bool,
    },
    LogType {
        types: Vec<LogType>,
        exclude: bool,
    },
}

/// `comparison_filter.op`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the operators")]
pub enum Comparison {
    Equal,
    GreaterOrEqual,
    LessOrEqual,
    NotEqual,
}

/// When a line is written (`envoy.data.accesslog.v3.AccessLogType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogType {
    /// The end of a connection, in the log of its listener.
    NotSet,
    /// The beginning of a connection of a TCP proxy.
    TcpConnectionStart,
    /// Its upstream connection is there.
    TcpUpstreamConnected,
    /// It is still there.
    TcpPeriodic,
    /// Its end.
    TcpConnectionEnd,
    /// The end of a request.
    DownstreamEnd,
}

/// What a filter may ask of a line.
pub trait LogView {
    /// What header filters look at.
    type Request: RequestView;
    /// Status of the response, 0 for none.
    fn status(&self) -> u32;
    /// How long the request took.
    fn duration(&self) -> Duration;
    /// Whether the health check filter took it.
    fn is_health_check(&self) -> bool;
    /// Whether a response flag is set, by its short name.
    fn has_flag(&self, name: &str) -> bool;
    /// Whether any response flag is set.
    fn has_flags(&self) -> bool;
    /// The gRPC status that the response has or maps to.
    fn grpc_status(&self) -> u32;
    /// When it is written.
    fn log_type(&self) -> LogType;
    /// The request, unless it is a connection.
    fn request(&self) -> Option<&Self::Request>;
    /// `x-request-id`.
    fn request_id(&self) -> Option<&[u8]>;
    /// A random number.
    fn random(&self) -> u64;
}

impl LogFilter {
    /// Whether the line is written.
    pub fn allows(&self, view: &impl LogView) -> bool {
        match self {
            LogFilter::StatusCode(comparison, wanted) => comparison.holds(view.status(), *wanted),
            LogFilter::Duration(comparison, wanted) => {
                let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                comparison.holds(millis(view.duration()), millis(*wanted))
            }
            LogFilter::NotHealthCheck => !view.is_health_check(),
            LogFilter::Runtime { ppm, independent } => {
                let by_id = view.request_id().filter(|_| !independent).and_then(number_of);
                let number = by_id.unwrap_or_else(|| view.random());
                number % u64::from(WHOLE_PPM) < u64::from(*ppm)
            }
            LogFilter::And(filters) => filters.iter().all(|filter| filter.allows(view)),
            LogFilter::Or(filters) => filters.iter().any(|filter| filter.allows(view)),
            LogFilter::Header(matcher) => view.request().is_some_and(|request| matcher.matches(request)),
            LogFilter::ResponseFlags(names) if names.is_empty() => view.has_flags(),
            LogFilter::ResponseFlags(names) => names.iter().any(|name| view.has_flag(name)),
            LogFilter::GrpcStatus { statuses, exclude } => statuses.contains(&view.grpc_status()) != *exclude,
            LogFilter::LogType { types, exclude } => types.contains(&view.log_type()) != *exclude,
        }
    }
}

impl Comparison {
    fn holds<T: PartialOrd>(self, actual: T, wanted: T) -> bool {
        match self {
            Comparison::Equal => actual == wanted,
            Comparison::GreaterOrEqual => actual >= wanted,
            Comparison::LessOrEqual => actual <= wanted,
            Comparison::NotEqual => actual != wanted,
        }
    }
}

/// The first eight digits of a request id as a number, as Envoy samples by it.
fn number_of(id: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(id.get(..8)?).ok()?;
    u64::from_str_radix(digits, 16).ok()
}

/// Compiles a filter.
pub(crate) fn compile(at: &At<'_>, message: &proto::AccessLogFilter) -> Option<LogFilter> {
    match message.filter_specifier.as_ref() {
        Some(FilterSpecifier::StatusCodeFilter(filter)) => {
            let at = at.field("status_code_filter");
            let (comparison, value) = comparison(&at, filter.comparison.as_ref())?;
            Some(LogFilter::StatusCode(comparison, value))
        }
        Some(FilterSpecifier::DurationFilter(filter)) => {
            let at = at.field("duration_filter");
            let (comparison, value) = comparison(&at, filter.comparison.as_ref())?;
            Some(LogFilter::Duration(comparison, Duration::from_millis(u64::from(value))))
        }
        Some(FilterSpecifier::NotHealthCheckFilter(proto::NotHealthCheckFilter {})) => {
            Some(LogFilter::NotHealthCheck)
        }
        Some(FilterSpecifier::TraceableFilter(_)) => at.field("traceable_filter").none("not supported yet"),
        Some(FilterSpecifier::RuntimeFilter(filter)) => runtime(&at.field("runtime_filter"), filter),
        Some(FilterSpecifier::AndFilter(proto::AndFilter { filters })) => {
            Some(LogFilter::And(several(&at.field("and_filter"), filters)))
        }
        Some(FilterSpecifier::OrFilter(proto::OrFilter { filters })) => {
            Some(LogFilter::Or(several(&at.field("or_filter"), filters)))
        }
        Some(FilterSpecifier::HeaderFilter(proto::HeaderFilter { header })) => {
            let at = at.field("header_filter");
            let at = at.field("header");
            let Some(header) = header else { return at.none("must be set") };
            Some(LogFilter::Header(Box::new(header_matcher(&at, header)?)))
        }
        Some(FilterSpecifier::ResponseFlagFilter(filter)) => flags(&at.field("response_flag_filter"), filter),
        Some(FilterSpecifier::GrpcStatusFilter(filter)) => {
            grpc_status(&at.field("grpc_status_filter"), filter)
        }
        Some(FilterSpecifier::LogTypeFilter(filter)) => log_type(&at.field("log_type_filter"), filter),
        Some(FilterSpecifier::MetadataFilter(_)) => at.field("metadata_filter").none("not supported yet"),
        Some(FilterSpecifier::ExtensionFilter(filter)) => {
            at.field("extension_filter").none(format_args!("extension {:?} is not supported", filter.name))
        }
        None => at.none("a filter must be set"),
    }
}

fn several(at: &At<'_>, filters: &[proto::AccessLogFilter]) -> Vec<LogFilter> {
    if filters.len() < 2 {
        at.field("filters").reject("at least two are needed");
    }
    at.each("filters", filters, compile)
}

fn comparison(at: &At<'_>, message: Option<&proto::ComparisonFilter>) -> Option<(Comparison, u32)> {
    let at = at.field("comparison");
    let Some(proto::ComparisonFilter { op, value }) = message else { return at.none("must be set") };
    let comparison = match at.choice::<Op>("op", *op)? {
        Op::Eq => Comparison::Equal,
        Op::Ge => Comparison::GreaterOrEqual,
        Op::Le => Comparison::LessOrEqual,
        Op::Ne => Comparison::NotEqual,
    };
    let Some(RuntimeUInt32 { default_value, runtime_key }) = value else {
        return at.field("value").none("must be set");
    };
    harmless!(RuntimeKey; runtime_key);
    Some((comparison, *default_value))
}

fn runtime(at: &At<'_>, message: &proto::RuntimeFilter) -> Option<LogFilter> {
    let proto::RuntimeFilter { runtime_key, percent_sampled, use_independent_randomness } = message;
    at.required("runtime_key", runtime_key);
    harmless!(RuntimeKey; runtime_key);
    let percent = percent_sampled.as_ref();
    let ppm = percent.map_or(0, |percent| fraction_ppm(&at.field("percent_sampled"), percent));
    Some(LogFilter::Runtime { ppm, independent: *use_independent_randomness })
}

/// The flags of Envoy, as the validation of the field lists them.
const FLAGS: [&str; 29] = [
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX",
    "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR",
];

fn flags(at: &At<'_>, message: &proto::ResponseFlagFilter) -> Option<LogFilter> {
    let proto::ResponseFlagFilter { flags } = message;
    let flags = at.each("flags", flags, |at, flag| match FLAGS.contains(&flag.as_str()) {
        true => Some(flag.as_str().into()),
        false => at.none(format_args!("{flag:?} is no response flag")),
    });
    Some(LogFilter::ResponseFlags(flags))
}

fn grpc_status(at: &At<'_>, message: &proto::GrpcStatusFilter) -> Option<LogFilter> {
    let proto::GrpcStatusFilter { statuses, exclude } = message;
    let statuses = at.each("statuses", statuses, |at, status| {
        at.choice::<proto::grpc_status_filter::Status>("value", *status)?;
        u32::try_from(*status).ok()
    });
    Some(LogFilter::GrpcStatus { statuses, exclude: *exclude })
}

/// Types that are never written here can be asked for; they match nothing, as without the options that write them.
fn log_type(at: &At<'_>, message: &proto::LogTypeFilter) -> Option<LogFilter> {
    let proto::LogTypeFilter { types, exclude } = message;
    let types = at.each("types", types, |at, kind| match at.choice::<AccessLogType>("value", *kind)? {
        AccessLogType::NotSet => Some(LogType::NotSet),
        AccessLogType::TcpConnectionStart => Some(LogType::TcpConnectionStart),
        AccessLogType::TcpUpstreamConnected => Some(LogType::TcpUpstreamConnected),
        AccessLogType::TcpPeriodic => Some(LogType::TcpPeriodic),
        AccessLogType::TcpConnectionEnd => Some(LogType::TcpConnectionEnd),
        AccessLogType::DownstreamEnd => Some(LogType::DownstreamEnd),
        _ => None,
    });
    Some(LogFilter::LogType { types, exclude: *exclude })
}

/// The filter of an access log, if it has one.
pub(crate) fn optional(at: &At<'_>, message: Option<&proto::AccessLogFilter>) -> Option<Arc<LogFilter>> {
    compile(&at.field("filter"), message?).map(Arc::new)
}
