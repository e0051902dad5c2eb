//! How answers of the proxy's own are changed before they are sent.
//!
//! Source: `local_reply_config` of the HTTP connection manager.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use meltemi_envoy::config::core::v3::SubstitutionFormatString;
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3 as proto;

use crate::access_log::substitution_format;
use crate::header_edit::{Fields, HeaderEdits, header_edits};
use crate::ledger::At;
use crate::log_filter::{self, LogFilter};
use crate::program::LogFormat;
use crate::scalar::inline_data;

/// `local_reply_config`.
#[derive(Debug)]
pub struct LocalReplyConfig {
    /// The first one that matches counts.
    pub mappers: Vec<ResponseMapper>,
    /// `body_format`: of every body, unless the mapper has its own.
    pub body_format: Option<BodyFormat>,
}

/// One of `mappers`.
#[derive(Debug)]
pub struct ResponseMapper {
    /// `filter`: which answers.
    pub filter: LogFilter,
    /// `status_code`.
    pub status: Option<StatusCode>,
    /// `body`, before it is formatted.
    pub body: Option<Bytes>,
    /// `headers_to_add`.
    pub headers: HeaderEdits,
    /// `body_format_override`.
    pub body_format: Option<BodyFormat>,
}

/// A format of bodies.
#[derive(Debug)]
pub struct BodyFormat {
    /// The body.
    pub format: LogFormat,
    /// `omit_empty_values`.
    pub omit_empty_values: bool,
    /// `content_type`, or what goes with the kind of format.
    pub content_type: HeaderValue,
}

/// Compiles the configuration, if there is one.
pub(crate) fn local_reply(
    at: &At<'_>,
    message: Option<&proto::LocalReplyConfig>,
) -> Option<LocalReplyConfig> {
    let at = &at.field("local_reply_config");
    let proto::LocalReplyConfig { mappers, body_format: format } = message?;
    Some(LocalReplyConfig {
        mappers: at.each("mappers", mappers, mapper),
        body_format: body_format(&at.field("body_format"), format.as_ref()),
    })
}

fn mapper(at: &At<'_>, message: &proto::ResponseMapper) -> Option<ResponseMapper> {
    let proto::ResponseMapper { filter, status_code, body, body_format_override, headers_to_add } = message;
    let at_filter = at.field("filter");
    let Some(filter) = filter else { return at_filter.none("must be set") };
    let body = body.as_ref().and_then(|source| inline_data(&at.field("body"), source));
    Some(ResponseMapper {
        status: status_code.and_then(|code| status(&at.field("status_code"), code)),
        body: body.map(Bytes::copy_from_slice),
        headers: header_edits(at, &Fields::LOCAL_REPLY, headers_to_add, &[]),
        body_format: body_format(&at.field("body_format_override"), body_format_override.as_ref()),
        filter: log_filter::compile(&at_filter, filter)?,
    })
}

fn status(at: &At<'_>, code: u32) -> Option<StatusCode> {
    let code = u16::try_from(code).ok().filter(|code| (200..600).contains(code));
    match code.and_then(|code| StatusCode::from_u16(code).ok()) {
        Some(status) => Some(status),
        None => at.none("must be from 200 to 599"),
    }
}

fn body_format(at: &At<'_>, message: Option<&SubstitutionFormatString>) -> Option<BodyFormat> {
    let message = message?;
    let (format, omit_empty_values) = substitution_format(at, message)?;
    let default = match format {
        LogFormat::Text(_) => "text/plain",
        LogFormat::Json(_) => "application/json",
    };
    let content_type =
        at.header_value("content_type", &message.content_type).unwrap_or(HeaderValue::from_static(default));
    Some(BodyFormat { format, omit_empty_values, content_type })
}
