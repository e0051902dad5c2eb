//! Access logs: file sinks with text or JSON formats.
//!
//! Source: `envoy.config.accesslog.v3`, `envoy.extensions.access_loggers.{file,stream}.v3`.

use std::sync::Arc;

use meltemi_envoy::config::accesslog::v3 as proto;
use meltemi_envoy::config::accesslog::v3::access_log::ConfigType;
use meltemi_envoy::config::core::v3::substitution_format_string::Format as Specifier;
use meltemi_envoy::config::core::v3::{JsonFormatOptions, SubstitutionFormatString, TypedExtensionConfig};
use meltemi_envoy::extensions::access_loggers::file::v3::FileAccessLog;
use meltemi_envoy::extensions::access_loggers::file::v3::file_access_log::AccessLogFormat;
use meltemi_envoy::extensions::access_loggers::stream::v3::{
    StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log,
};
use meltemi_envoy::extensions::formatter::req_without_query::v3::ReqWithoutQuery;

use crate::extension::{unknown, unpack};
use crate::format::{Format, FormatError, JsonFormat};
use crate::ledger::{At, harmless};
use crate::log_filter;
use crate::program::{AccessLog, LogFormat};
use crate::scalar::inline_data;

/// Compiles the access logs of a listener or filter.
pub(crate) fn access_logs(at: &At<'_>, logs: &[proto::AccessLog]) -> Vec<Arc<AccessLog>> {
    at.each("access_log", logs, |at, log| access_log(at, log).map(Arc::new))
}

fn access_log(at: &At<'_>, message: &proto::AccessLog) -> Option<AccessLog> {
    let proto::AccessLog { name, filter, config_type } = message;
    let filter = log_filter::optional(at, filter.as_ref());
    let log = sink(at, name, config_type.as_ref())?;
    Some(AccessLog { filter, ..log })
}

fn sink(at: &At<'_>, name: &str, config_type: Option<&ConfigType>) -> Option<AccessLog> {
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

fn file(at: &At<'_>, message: &FileAccessLog) -> Option<AccessLog> {
    let FileAccessLog { path, access_log_format } = message;
    at.required("path", path);
    let plain = |format| Some((format, false));
    let (format, omit_empty_values) = match access_log_format {
        None => plain(default_format()),
        Some(AccessLogFormat::Format(text)) if text.is_empty() => plain(default_format()),
        Some(AccessLogFormat::Format(text)) => plain(text_format(&at.field("format"), text)?),
        // The two differ in how the old one turned numbers into strings, which Envoy has given up.
        Some(AccessLogFormat::JsonFormat(document)) => {
            plain(json_format(&at.field("json_format"), document)?)
        }
        Some(AccessLogFormat::TypedJsonFormat(document)) => {
            plain(json_format(&at.field("typed_json_format"), document)?)
        }
        Some(AccessLogFormat::LogFormat(format)) => substitution_format(&at.field("log_format"), format),
    }?;
    Some(AccessLog { path: path.as_str().into(), format, omit_empty_values, filter: None })
}

fn stream(at: &At<'_>, path: &str, format: Option<&SubstitutionFormatString>) -> Option<AccessLog> {
    let (format, omit_empty_values) = match format {
        Some(format) => substitution_format(&at.field("log_format"), format)?,
        None => (default_format(), false),
    };
    Some(AccessLog { path: path.into(), format, omit_empty_values, filter: None })
}

/// The format, and whether empty values are left out. Whoever sends it somewhere reads `content_type`.
pub(crate) fn substitution_format(
    at: &At<'_>,
    message: &SubstitutionFormatString,
) -> Option<(LogFormat, bool)> {
    let SubstitutionFormatString { omit_empty_values, content_type, formatters, json_format_options, format } =
        message;
    harmless!(LogsHaveNoType; content_type);
    at.each("formatters", formatters, formatter);
    if let Some(JsonFormatOptions { sort_properties }) = json_format_options {
        // Sorted is what happens anyway; Envoy promises no order without it.
        harmless!(Deprecated; sort_properties);
    }
    let format = match format {
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
    };
    Some((format?, *omit_empty_values))
}

/// A formatter gives further operators. `%REQ_WITHOUT_QUERY%` is there without being asked for; there are no others.
fn formatter(at: &At<'_>, message: &TypedExtensionConfig) -> Option<()> {
    let TypedExtensionConfig { name, typed_config } = message;
    let Some(any) = typed_config else { return at.field("typed_config").none("must be set") };
    if any.is::<ReqWithoutQuery>() {
        let ReqWithoutQuery {} = unpack(at, any)?;
        return Some(());
    }
    unknown(at, name, any)
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
