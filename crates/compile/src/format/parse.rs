//! Reading of format strings.

use http::HeaderName;
use http::header::HOST;

use super::{Format, HeaderOp, JsonFormat, Op, arguments};

/// Why a format string was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A `%` that starts no operator; a literal one is `%%`.
    #[error("malformed operator at {0:?}; a literal % is %%")]
    Malformed(String),
    /// An operator that is not supported.
    #[error("unknown or not supported operator %{0}%")]
    Unknown(String),
    /// An operator whose parameter is not understood.
    #[error("%{operator}%: {reason}")]
    Parameter {
        /// Name of the operator.
        operator: String,
        /// What is wrong.
        reason: String,
    },
    /// A `json_format` nested too deep, or with a number that JSON does not have.
    #[error("{0}")]
    Json(&'static str),
}

/// One `%NAME(argument):length%`.
pub(super) struct Operator<'t> {
    pub(super) name: &'t str,
    pub(super) argument: Option<&'t str>,
    max_len: Option<usize>,
}

impl Format {
    /// Reads a format string.
    ///
    /// # Errors
    /// The first operator that is unknown or malformed.
    pub fn parse(text: &str) -> Result<Format, FormatError> {
        let mut ops = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(start) = rest.find('%') {
            literal.push_str(&rest[..start]);
            rest = &rest[start + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            let (operator, after) =
                Operator::split(rest).ok_or_else(|| FormatError::Malformed(excerpt(rest)))?;
            flush(&mut literal, &mut ops);
            ops.push(operator.op()?);
            rest = after;
        }
        literal.push_str(rest);
        flush(&mut literal, &mut ops);
        Ok(Format { ops })
    }

    /// The text itself, when there is no operator in it.
    pub fn literal(&self) -> Option<&str> {
        match self.ops.as_slice() {
            [] => Some(""),
            [Op::Literal(text)] => Some(text),
            _ => None,
        }
    }
}

fn flush(literal: &mut String, ops: &mut Vec<Op>) {
    if !literal.is_empty() {
        ops.push(Op::Literal(std::mem::take(literal).into()));
    }
}

/// The start of a text, for messages.
fn excerpt(text: &str) -> String {
    format!("%{}", text.chars().take(20).collect::<String>())
}

impl<'t> Operator<'t> {
    /// Takes an operator from behind its first `%`; gives what follows it. An argument ends at the first
    /// parenthesis that a `%` or a length and a `%` follow, so it may hold both.
    fn split(text: &'t str) -> Option<(Operator<'t>, &'t str)> {
        let end = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))?;
        let (name, tail) = (&text[..end], &text[end..]);
        if name.is_empty() {
            return None;
        }
        let Some(inner) = tail.strip_prefix('(') else {
            let (max_len, rest) = Operator::end(tail)?;
            return Some((Operator { name, argument: None, max_len }, rest));
        };
        inner.match_indices(')').find_map(|(i, _)| {
            let (max_len, rest) = Operator::end(&inner[i + 1..])?;
            Some((Operator { name, argument: Some(&inner[..i]), max_len }, rest))
        })
    }

    /// Reads `%` or `:length%`.
    fn end(text: &'t str) -> Option<(Option<usize>, &'t str)> {
        if let Some(rest) = text.strip_prefix('%') {
            return Some((None, rest));
        }
        let (length, rest) = text.strip_prefix(':')?.split_once('%')?;
        Some((Some(length.parse().ok()?), rest))
    }

    fn op(&self) -> Result<Op, FormatError> {
        if let Some(op) = self.with_arguments()? {
            return self.cut(op);
        }
        let op = plain(self.name).or_else(|| arguments::plain(self.name));
        let op = op.ok_or_else(|| FormatError::Unknown(self.name.to_owned()))?;
        if self.argument.is_some() || self.max_len.is_some() {
            return Err(self.error("takes no parameter or length"));
        }
        Ok(op)
    }

    /// Applies the length, where the operator did not itself.
    fn cut(&self, op: Op) -> Result<Op, FormatError> {
        let Some(max_len) = self.max_len else { return Ok(op) };
        match op {
            Op::Req(_) | Op::Resp(_) | Op::Trailer(_) | Op::ReqWithoutQuery(_) => Ok(op),
            _ if arguments::has_length(self.name) => Ok(Op::Cut(Box::new(op), max_len)),
            _ => Err(self.error("takes no length")),
        }
    }

    pub(super) fn time(&self) -> Result<Box<str>, FormatError> {
        let format = self.argument.unwrap_or_default();
        let format = arguments::time_format(format);
        let epoch = jiff::Timestamp::UNIX_EPOCH.to_zoned(jiff::tz::TimeZone::UTC);
        jiff::fmt::strtime::format(&format, &epoch).map_err(|e| self.error(e.to_string()))?;
        Ok(format.into())
    }

    pub(super) fn request_header(&self) -> Result<Op, FormatError> {
        let argument = self.argument.unwrap_or_default();
        if argument.eq_ignore_ascii_case("X-ENVOY-ORIGINAL-PATH?:PATH") {
            return Ok(Op::ReqOriginalPath);
        }
        let (first, second) = match argument.split_once('?') {
            Some((first, second)) => (first, Some(second)),
            None => (argument, None),
        };
        match (pseudo(first), second.map(pseudo)) {
            (None, None | Some(None)) => Ok(Op::Req(self.header()?)),
            (Some(op), None) => Ok(op),
            (op, Some(other)) => {
                let named = |text: &str| Operator { argument: Some(text), ..*self }.header().map(Op::Req);
                let first = op.map_or_else(|| named(first), Ok)?;
                let second = other.map_or_else(|| named(second.unwrap_or_default()), Ok)?;
                Ok(Op::Either(Box::new(first), Box::new(second)))
            }
        }
    }

    pub(super) fn header(&self) -> Result<HeaderOp, FormatError> {
        let argument = self.argument.ok_or_else(|| self.error("needs a header name in parentheses"))?;
        let (first, second) = match argument.split_once('?') {
            Some((first, second)) => (first, Some(second)),
            None => (argument, None),
        };
        let name =
            |text: &str| match HeaderName::try_from(text) {
                Ok(HOST) | Err(_) if self.name != "RESP" && self.name != "TRAILER" => Err(self
                    .error(format!("{text:?} beside another name is not supported yet, or no header name"))),
                Ok(name) => Ok(name),
                Err(_) => Err(self.error(format!("{text:?} is not a header name"))),
            };
        Ok(HeaderOp { name: name(first)?, alternative: second.map(name).transpose()?, max_len: self.max_len })
    }

    pub(super) fn error(&self, reason: impl Into<String>) -> FormatError {
        FormatError::Parameter { operator: self.name.to_owned(), reason: reason.into() }
    }
}

/// A header that is not among the headers.
fn pseudo(name: &str) -> Option<Op> {
    Some(match name.to_ascii_uppercase().as_str() {
        ":METHOD" => Op::ReqMethod,
        ":PATH" => Op::ReqPath,
        ":AUTHORITY" | "HOST" => Op::ReqAuthority,
        ":SCHEME" => Op::ReqScheme,
        _ => return None,
    })
}

fn plain(name: &str) -> Option<Op> {
    Some(match name {
        "PROTOCOL" => Op::Protocol,
        "RESPONSE_CODE" => Op::ResponseCode,
        "RESPONSE_CODE_DETAILS" => Op::ResponseCodeDetails,
        "RESPONSE_FLAGS" => Op::ResponseFlags,
        "RESPONSE_FLAGS_LONG" => Op::ResponseFlagsLong,
        "CONNECTION_TERMINATION_DETAILS" => Op::ConnectionTerminationDetails,
        "BYTES_RECEIVED" => Op::BytesReceived,
        "BYTES_SENT" => Op::BytesSent,
        "DURATION" => Op::Duration,
        "REQUEST_DURATION" => Op::RequestDuration,
        "RESPONSE_DURATION" => Op::ResponseDuration,
        "RESPONSE_TX_DURATION" => Op::ResponseTxDuration,
        "UPSTREAM_HOST" => Op::UpstreamHost,
        "UPSTREAM_CLUSTER" => Op::UpstreamCluster,
        "UPSTREAM_CLUSTER_RAW" => Op::UpstreamClusterRaw,
        "UPSTREAM_LOCAL_ADDRESS" => Op::UpstreamLocalAddress,
        "UPSTREAM_REMOTE_ADDRESS" => Op::UpstreamRemoteAddress,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Op::UpstreamRequestAttemptCount,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Op::UpstreamTransportFailureReason,
        "UPSTREAM_PROTOCOL" => Op::UpstreamProtocol,
        "DOWNSTREAM_LOCAL_ADDRESS" => Op::DownstreamLocalAddress,
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Op::DownstreamLocalAddressWithoutPort,
        "DOWNSTREAM_LOCAL_PORT" => Op::DownstreamLocalPort,
        "DOWNSTREAM_REMOTE_ADDRESS" => Op::DownstreamRemoteAddress,
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Op::DownstreamRemoteAddressWithoutPort,
        "DOWNSTREAM_REMOTE_PORT" => Op::DownstreamRemotePort,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Op::DownstreamDirectRemoteAddress,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => Op::DownstreamDirectRemoteAddressWithoutPort,
        "REQUESTED_SERVER_NAME" => Op::RequestedServerName,
        "ROUTE_NAME" => Op::RouteName,
        "VIRTUAL_HOST_NAME" => Op::VirtualHostName,
        "HOSTNAME" => Op::Hostname,
        "CONNECTION_ID" => Op::ConnectionId,
        "STREAM_ID" => Op::StreamId,
        _ => return None,
    })
}

/// How deep a `json_format` may nest; decoded messages cannot exceed it.
const MAX_JSON_DEPTH: usize = 64;

impl JsonFormat {
    /// Reads a `json_format`.
    ///
    /// # Errors
    /// The first operator that is unknown or malformed.
    pub fn parse(document: &prost_types::Struct) -> Result<JsonFormat, FormatError> {
        object(document, 0)
    }
}

fn object(document: &prost_types::Struct, depth: usize) -> Result<JsonFormat, FormatError> {
    let fields = document.fields.iter().map(|(key, v)| Ok((key.as_str().into(), value(v, depth + 1)?)));
    Ok(JsonFormat::Object(fields.collect::<Result<_, _>>()?))
}

fn value(value: &prost_types::Value, depth: usize) -> Result<JsonFormat, FormatError> {
    use prost_types::value::Kind;
    if depth > MAX_JSON_DEPTH {
        return Err(FormatError::Json("nested too deep"));
    }
    Ok(match &value.kind {
        None | Some(Kind::NullValue(_)) => JsonFormat::Literal(serde_json::Value::Null),
        Some(Kind::BoolValue(on)) => JsonFormat::Literal((*on).into()),
        Some(Kind::NumberValue(number)) => JsonFormat::Literal(json_number(*number)?),
        Some(Kind::StringValue(text)) => JsonFormat::Value(Format::parse(text)?),
        Some(Kind::StructValue(document)) => object(document, depth)?,
        Some(Kind::ListValue(list)) => {
            let items = list.values.iter().map(|v| self::value(v, depth + 1));
            JsonFormat::List(items.collect::<Result<_, _>>()?)
        }
    })
}

/// Whole numbers are numbers; Envoy writes others as texts.
fn json_number(number: f64) -> Result<serde_json::Value, FormatError> {
    const EXACT: f64 = (1_i64 << 53) as f64;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        return Ok((number as i64).into());
    }
    if !number.is_finite() {
        return Err(FormatError::Json("a number must be finite"));
    }
    Ok(number.to_string().into())
}
