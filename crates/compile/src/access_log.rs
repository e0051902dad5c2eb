//! Access logs: file sinks with text or JSON formats.
//!
//! Source: `envoy.config.accesslog.v3`, `envoy.extensions.access_loggers.{file,stream}.v3`.

use std::sync::Arc;

use meltemi_envoy::config::accesslog::v3 as proto;
use meltemi_envoy::config::accesslog::v3::access_log::ConfigType;
use meltemi_envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use meltemi_envoy::config::core::v3::substitution_format_string::Format as Specifier;
use meltemi_envoy::config::core::v3::{JsonFormatOptions, SubstitutionFormatString};
use meltemi_envoy::extensions::access_loggers::file::v3::FileAccessLog;
use meltemi_envoy::extensions::access_loggers::file::v3::file_access_log::AccessLogFormat;
use meltemi_envoy::extensions::access_loggers::stream::v3::{
    StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log,
};

use crate::extension::{unknown, unpack};
use crate::format::{Format, FormatError, JsonFormat};
use crate::ledger::{At, harmless, refuse};
use crate::program::{AccessLog, LogFormat};
use crate::scalar::inline_data;

/// Which filters an access log may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a connection manager or TCP proxy: none.
    Filter,
    /// At a listener: the response flag `NR`, which every connection without a chain has anyway.
    Listener,
}

/// Compiles the access logs of a listener or filter.
pub(crate) fn access_logs(at: &At<'_>, logs: &[proto::AccessLog], place: Place) -> Vec<Arc<AccessLog>> {
    at.each("access_log", logs, |at, log| access_log(at, log, place).map(Arc::new))
}

fn access_log(at: &At<'_>, message: &proto::AccessLog, place: Place) -> Option<AccessLog> {
    let proto::AccessLog { name, filter, config_type } = message;
    if filter.is_some() && !(place == Place::Listener && is_no_route(filter.as_ref())) {
        at.field("filter").reject("not supported yet");
    }
    let Some(ConfigType::TypedConfig(any)) = config_type else {
        return at.field("typed_config").none("must be set");
    };
    let at = &at.field("typed_config");
    if any.is::<FileAccessLog>() {
        return file(at, &unpack(at, any)?);
    }
    if any.is::<StdoutAccessLog>() {
        let StdoutAccessLog { access_log_format } = unpack(at, any)?;
        let format = access_log_format.map(|stdout_access_log::AccessLogFormat::LogFormat(format)| format);
        return stream(at, "/dev/stdout", format.as_ref());
    }
    if any.is::<StderrAccessLog>() {
        let StderrAccessLog { access_log_format } = unpack(at, any)?;
        let format = access_log_format.map(|stderr_access_log::AccessLogFormat::LogFormat(format)| format);
        return stream(at, "/dev/stderr", format.as_ref());
    }
    unknown(at, name, any)
}

fn is_no_route(filter: Option<&proto::AccessLogFilter>) -> bool {
    let specifier = filter.and_then(|filter| filter.filter_specifier.as_ref());
    matches!(specifier, Some(FilterSpecifier::ResponseFlagFilter(flags)) if flags.flags == ["NR"])
}

fn file(at: &At<'_>, message: &FileAccessLog) -> Option<AccessLog> {
    let FileAccessLog { path, access_log_format } = message;
    at.required("path", path);
    let format = match access_log_format {
        None => default_format(),
        Some(AccessLogFormat::Format(text)) if text.is_empty() => default_format(),
        Some(AccessLogFormat::Format(text)) => text_format(&at.field("format"), text)?,
        // The two differ in how the old one turned numbers into strings, which Envoy has given up.
        Some(AccessLogFormat::JsonFormat(document)) => json_format(&at.field("json_format"), document)?,
        Some(AccessLogFormat::TypedJsonFormat(document)) => {
            json_format(&at.field("typed_json_format"), document)?
        }
        Some(AccessLogFormat::LogFormat(format)) => substitution_format(&at.field("log_format"), format)?,
    };
    Some(AccessLog { path: path.as_str().into(), format })
}

fn stream(at: &At<'_>, path: &str, format: Option<&SubstitutionFormatString>) -> Option<AccessLog> {
    let format = match format {
        Some(format) => substitution_format(&at.field("log_format"), format)?,
        None => default_format(),
    };
    Some(AccessLog { path: path.into(), format })
}

fn substitution_format(at: &At<'_>, message: &SubstitutionFormatString) -> Option<LogFormat> {
    let SubstitutionFormatString { omit_empty_values, content_type, formatters, json_format_options, format } =
        message;
    refuse!(at; omit_empty_values, content_type, formatters);
    if let Some(JsonFormatOptions { sort_properties }) = json_format_options {
        // Sorted is what happens anyway; Envoy promises no order without it.
        harmless!(Deprecated; sort_properties);
    }
    match format {
        Some(Specifier::TextFormat(text)) => text_format(&at.field("text_format"), text),
        Some(Specifier::JsonFormat(document)) => json_format(&at.field("json_format"), document),
        Some(Specifier::TextFormatSource(source)) => {
            let at = &at.field("text_format_source");
            match std::str::from_utf8(inline_data(at, source)?) {
                Ok(text) => text_format(at, text),
                Err(_) => at.none("must be UTF-8"),
            }
        }
        None => at.none("a format must be set"),
    }
}

fn default_format() -> LogFormat {
    LogFormat::Text(
        Format::parse(Format::ENVOY_ACCESS_LOG).expect("invariant: the tests parse this constant"),
    )
}

fn text_format(at: &At<'_>, text: &str) -> Option<LogFormat> {
    understood(at, Format::parse(text)).map(LogFormat::Text)
}

fn json_format(at: &At<'_>, document: &prost_types::Struct) -> Option<LogFormat> {
    understood(at, JsonFormat::parse(document)).map(LogFormat::Json)
}

fn understood<T>(at: &At<'_>, result: Result<T, FormatError>) -> Option<T> {
    result.map_err(|error| at.reject(error)).ok()
}
