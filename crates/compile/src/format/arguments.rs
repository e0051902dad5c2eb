//! Operators with parameters, and those that need few words.

use super::parse::{FormatError, Operator};
use super::{GrpcStatusStyle, Op, PathSource, Precision, ServerNameSource, TimePoint, TlsOp, tls};

impl Operator<'_> {
    /// Reads an operator that has parameters or may have them; `None` when it is none of these.
    pub(super) fn with_arguments(&self) -> Result<Option<Op>, FormatError> {
        Ok(Some(match self.name {
            "START_TIME" => Op::StartTime(self.time()?),
            "START_TIME_LOCAL" => Op::StartTimeLocal(self.time()?),
            "EMIT_TIME" => Op::EmitTime(self.time()?),
            "EMIT_TIME_LOCAL" => Op::EmitTimeLocal(self.time()?),
            "REQ" | "REQUEST_HEADER" => self.request_header()?,
            "REQ_WITHOUT_QUERY" => self.without_query()?,
            "RESP" | "RESPONSE_HEADER" => Op::Resp(self.header()?),
            "TRAILER" | "RESPONSE_TRAILER" => Op::Trailer(self.header()?),
            "PATH" => self.path()?,
            "QUERY_PARAM" => Op::QueryParam(self.needed("a name")?.into()),
            "QUERY_PARAMS" => Op::QueryParams(match self.argument {
                None | Some("" | "ORIG") => PathSource::Path,
                Some("DECODED") => return Err(self.error("DECODED is not supported")),
                Some(_) => return Err(self.error("the parameter must be ORIG")),
            }),
            "RESPONSE_CODE_DETAILS" => match self.argument {
                None | Some("") => Op::ResponseCodeDetails,
                Some("ALLOW_WHITESPACES") => Op::ResponseCodeDetailsAsTheyAre,
                Some(_) => return Err(self.error("the parameter must be ALLOW_WHITESPACES")),
            },
            "COMMON_DURATION" => self.duration()?,
            "REQUESTED_SERVER_NAME" => self.server_name()?,
            "GRPC_STATUS" => Op::GrpcStatus(match self.argument {
                None | Some("" | "CAMEL_STRING") => GrpcStatusStyle::Camel,
                Some("SNAKE_STRING") => GrpcStatusStyle::Snake,
                Some("NUMBER") => GrpcStatusStyle::Number,
                Some(_) => {
                    return Err(self.error("the parameter must be CAMEL_STRING, SNAKE_STRING or NUMBER"));
                }
            }),
            "ENVIRONMENT" => Op::Environment(self.needed("a name")?.into()),
            "DYNAMIC_METADATA" => {
                let mut parts = self.needed("a namespace")?.split(':').map(Box::from);
                Op::DynamicMetadata(parts.next().unwrap_or_default(), parts.collect())
            }
            "FILTER_STATE" => self.filter_state()?,
            // Nothing is shared with an upstream that upstream filters could change.
            "UPSTREAM_FILTER_STATE" => {
                self.needed("a key")?;
                Op::Missing
            }
            // The dates of a certificate take a time format.
            "DOWNSTREAM_PEER_CERT_V_START" => Op::Tls(TlsOp::PeerCertStart(self.time()?)),
            "DOWNSTREAM_PEER_CERT_V_END" => Op::Tls(TlsOp::PeerCertEnd(self.time()?)),
            "UPSTREAM_PEER_CERT_V_START" => Op::UpstreamTls(TlsOp::PeerCertStart(self.time()?)),
            "UPSTREAM_PEER_CERT_V_END" => Op::UpstreamTls(TlsOp::PeerCertEnd(self.time()?)),
            _ => return Ok(None),
        }))
    }

    fn needed(&self, what: &str) -> Result<&str, FormatError> {
        self.argument
            .filter(|argument| !argument.is_empty())
            .ok_or_else(|| self.error(format!("needs {what} in parentheses")))
    }

    fn without_query(&self) -> Result<Op, FormatError> {
        Ok(match self.argument.unwrap_or_default().to_ascii_uppercase().as_str() {
            ":PATH" => Op::PathWithoutQuery(PathSource::Path),
            "X-ENVOY-ORIGINAL-PATH?:PATH" => Op::PathWithoutQuery(PathSource::OrigOrPath),
            _ => Op::ReqWithoutQuery(self.header()?),
        })
    }

    fn path(&self) -> Result<Op, FormatError> {
        let mut parts = self.argument.unwrap_or_default().split(':');
        let with_query = match parts.next() {
            None | Some("" | "WQ") => true,
            Some("NQ") => false,
            Some(_) => return Err(self.error("the first parameter must be WQ or NQ")),
        };
        let source = match parts.next() {
            None | Some("" | "ORIG_OR_PATH") => PathSource::OrigOrPath,
            Some("ORIG") => PathSource::Orig,
            Some("PATH") => PathSource::Path,
            Some(_) => return Err(self.error("the second parameter must be PATH, ORIG or ORIG_OR_PATH")),
        };
        match parts.next() {
            None => Ok(Op::Path(source, with_query)),
            Some(_) => Err(self.error("takes two parameters at most")),
        }
    }

    fn duration(&self) -> Result<Op, FormatError> {
        let parts: Vec<&str> = self.needed("START:END:PRECISION")?.split(':').collect();
        let [from, to, precision] = parts.as_slice() else {
            return Err(self.error("needs START:END:PRECISION"));
        };
        let precision = match *precision {
            "ms" => Precision::Millis,
            "us" => Precision::Micros,
            "ns" => Precision::Nanos,
            _ => return Err(self.error("the precision must be ms, us or ns")),
        };
        Ok(Op::CommonDuration(self.time_point(from)?, self.time_point(to)?, precision))
    }

    fn time_point(&self, name: &str) -> Result<TimePoint, FormatError> {
        match name {
            "DS_RX_BEG" => Ok(TimePoint::DownstreamRxBegin),
            "DS_RX_END" => Ok(TimePoint::DownstreamRxEnd),
            "US_RX_BEG" => Ok(TimePoint::UpstreamRxBegin),
            "DS_TX_END" => Ok(TimePoint::DownstreamTxEnd),
            _ => Err(self.error(format!("the time point {name} is not supported"))),
        }
    }

    fn server_name(&self) -> Result<Op, FormatError> {
        match self.argument.unwrap_or_default() {
            "" | "SNI_ONLY" => Ok(Op::RequestedServerName),
            "SNI_FIRST" => Ok(Op::RequestedServerNameOrHost(ServerNameSource::SniFirst)),
            "HOST_FIRST" => Ok(Op::RequestedServerNameOrHost(ServerNameSource::HostFirst)),
            other => Err(self.error(format!("{other:?} is not supported"))),
        }
    }

    fn filter_state(&self) -> Result<Op, FormatError> {
        let (key, style) = match self.needed("a key")?.split_once(':') {
            Some((key, style)) => (key, style),
            None => (self.needed("a key")?, "TYPED"),
        };
        match style {
            "PLAIN" | "TYPED" => Ok(Op::FilterState(key.into())),
            _ => Err(self.error(format!("{style:?} is not supported: only PLAIN and TYPED"))),
        }
    }
}

/// The operators that may have a length besides those of headers.
pub(super) fn has_length(name: &str) -> bool {
    matches!(
        name,
        "REQ"
            | "REQUEST_HEADER"
            | "REQ_WITHOUT_QUERY"
            | "PATH"
            | "QUERY_PARAM"
            | "QUERY_PARAMS"
            | "ENVIRONMENT"
            | "DYNAMIC_METADATA"
            | "FILTER_STATE"
            | "UPSTREAM_FILTER_STATE"
    )
}

/// Envoy's `%f` is nanoseconds in nine digits; `%E3S` is `%S` with three digits behind the point.
pub(super) fn time_format(format: &str) -> String {
    let mut out = String::with_capacity(format.len());
    let mut rest = format;
    while let Some(start) = rest.find('%') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        if let Some(after) = rest.strip_prefix("%f") {
            out.push_str("%9f");
            rest = after;
            continue;
        }
        let seconds = rest.strip_prefix("%E").and_then(|digits| digits.split_once('S'));
        if let Some((digits, after)) =
            seconds.filter(|(digits, _)| matches!(digits.as_bytes(), [b'1'..=b'9']))
        {
            out.push_str(&format!("%S.%{digits}f"));
            rest = after;
            continue;
        }
        let len = rest.chars().take(2).map(char::len_utf8).sum();
        out.push_str(&rest[..len]);
        rest = &rest[len..];
    }
    out.push_str(rest);
    out
}

/// Operators without parameters that are not a plain fact of the record.
pub(super) fn plain(name: &str) -> Option<Op> {
    Some(match name {
        "REQUEST_HEADERS_BYTES" => Op::RequestHeadersBytes,
        "RESPONSE_HEADERS_BYTES" => Op::ResponseHeadersBytes,
        "RESPONSE_TRAILERS_BYTES" => Op::ResponseTrailersBytes,
        "UPSTREAM_HOST_NAME" => Op::UpstreamHostName(true),
        "UPSTREAM_HOST_NAME_WITHOUT_PORT" => Op::UpstreamHostName(false),
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Op::UpstreamHostWithoutPort,
        "UPSTREAM_REMOTE_PORT" => Op::UpstreamHostPort,
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Op::UpstreamLocalAddressWithoutPort,
        "UPSTREAM_LOCAL_PORT" => Op::UpstreamLocalPort,
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS" => Op::DownstreamDirectLocalAddress,
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT" => Op::DownstreamDirectLocalAddressWithoutPort,
        "DOWNSTREAM_DIRECT_LOCAL_PORT" => Op::DownstreamDirectLocalPort,
        "DOWNSTREAM_DIRECT_REMOTE_PORT" => Op::DownstreamDirectRemotePort,
        "ACCESS_LOG_TYPE" => Op::AccessLogType,
        "LOCAL_REPLY_BODY" => Op::LocalReplyBody,
        "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID" => Op::UpstreamRemoteAddressEndpointId,
        "UNIQUE_ID" => Op::UniqueId,
        "GRPC_STATUS_NUMBER" => Op::GrpcStatus(GrpcStatusStyle::Number),
        "BYTES_RETRANSMITTED" | "PACKETS_RETRANSMITTED" => Op::Zero,
        "CUSTOM_FLAGS"
        | "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID"
        | "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID" => Op::Empty,
        // There is no tracing, no QUIC and no internal listener.
        "TRACE_ID"
        | "SPAN_ID"
        | "DOWNSTREAM_HANDSHAKE_DURATION"
        | "ROUNDTRIP_DURATION"
        | "UPSTREAM_SERVER_NAME" => Op::Missing,
        _ => match tls::plain(name) {
            Some(op) => op,
            None if NOT_KNOWN.contains(&name) => Op::Missing,
            None => return None,
        },
    })
}

/// Of TLS, what rustls does not tell, and names of a kind that no certificate here has.
const NOT_KNOWN: [&str; 6] = [
    "DOWNSTREAM_LOCAL_OTHERNAME_SAN",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS",
    "DOWNSTREAM_PEER_ISSUER_SERIAL",
    "DOWNSTREAM_PEER_OTHERNAME_SAN",
    "DOWNSTREAM_TLS_SESSION_ID",
    "UPSTREAM_TLS_SESSION_ID",
];
