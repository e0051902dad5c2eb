//! Why a request could not be forwarded, and what follows from each reason.
//!
//! The one place where a failure becomes a status, a response flag, a details string and a retry condition; all are
//! Envoy's (`StreamResetReason`, `ResponseCodeDetails`, `router.cc`).

use std::borrow::Cow;
use std::rc::Rc;

use http::{HeaderValue, StatusCode};
use meltemi_compile::retry::Reset;
use meltemi_http::{ClientError, Reason};

use crate::record::ResponseFlags;
use crate::stats::HttpCounts;
use crate::stream::{LocalReply, names};
use crate::upstream::outlier::Outcome;
use crate::upstream::pool::LeaseError;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The route names a cluster that does not exist.
    NoCluster(StatusCode),
    /// A field of the request asks something of the router in a way that is not accepted: its name and value.
    BadEnvoyHeader(&'static str, Box<str>),
    /// The client asked for an upgrade that is not configured.
    UpgradeRefused,
    /// No host can be picked.
    NoHealthyUpstream,
    /// The endpoints ask to refuse requests (`drop_overloads`); says whether they ask to refuse all.
    DropOverload(bool),
    /// A circuit breaker refused.
    Overflow,
    /// Connecting failed, with the transport's reason.
    ConnectFailed(Rc<str>),
    /// `connect_timeout`.
    ConnectTimeout,
    /// The upstream closed the connection.
    ConnectionTermination,
    /// The upstream reset the stream.
    RemoteReset,
    /// The upstream refused the stream before it looked at it.
    RemoteRefused,
    /// The upstream does not speak HTTP.
    ProtocolError,
    /// `timeout` of the route.
    RouteTimeout,
    /// `per_try_timeout`.
    PerTryTimeout,
    /// `per_try_idle_timeout`.
    PerTryIdleTimeout,
    /// `stream_idle_timeout` or the route's `idle_timeout`; says whether the request was complete.
    StreamIdle(bool),
    /// `request_timeout`.
    RequestTimeout,
    /// `max_stream_duration`; says whether the request was complete.
    MaxDuration(bool),
}

/// What follows from a fault.
struct Consequence {
    status: StatusCode,
    flags: ResponseFlags,
    details: &'static str,
    /// Envoy's name of the reset reason, for faults that are resets.
    reset: Option<&'static str>,
    body: &'static str,
}

impl Consequence {
    const fn reset(status: StatusCode, flags: ResponseFlags, reason: &'static str) -> Consequence {
        Consequence { status, flags, details: "", reset: Some(reason), body: "" }
    }

    const fn answer(
        status: StatusCode,
        flags: ResponseFlags,
        details: &'static str,
        body: &'static str,
    ) -> Consequence {
        Consequence { status, flags, details, reset: None, body }
    }
}

impl Fault {
    fn consequence(&self) -> Consequence {
        use ResponseFlags as F;
        use StatusCode as S;
        let down = S::SERVICE_UNAVAILABLE;
        let late = S::GATEWAY_TIMEOUT;
        match self {
            Fault::NoCluster(status) => {
                Consequence::answer(*status, F::NO_CLUSTER_FOUND, "cluster_not_found", "")
            }
            Fault::BadEnvoyHeader(..) => {
                let flags = F::INVALID_ENVOY_REQUEST_HEADERS;
                Consequence::answer(S::BAD_REQUEST, flags, "request_headers_failed_strict_check", "")
            }
            Fault::UpgradeRefused => Consequence::answer(S::FORBIDDEN, F::NONE, "upgrade_failed", ""),
            Fault::NoHealthyUpstream => Consequence::answer(
                down,
                F::NO_HEALTHY_UPSTREAM,
                "no_healthy_upstream",
                "no healthy upstream",
            ),
            Fault::DropOverload(true) => Consequence::answer(
                down,
                F::UNCONDITIONAL_DROP_OVERLOAD,
                "unconditional_drop_overload",
                "unconditional drop overload",
            ),
            Fault::DropOverload(false) => {
                Consequence::answer(down, F::DROP_OVERLOAD, "drop_overload", "drop overload")
            }
            Fault::Overflow => Consequence::reset(down, F::UPSTREAM_OVERFLOW, "overflow"),
            Fault::ConnectFailed(_) => {
                Consequence::reset(down, F::UPSTREAM_CONNECTION_FAILURE, "remote connection failure")
            }
            Fault::ConnectTimeout => {
                Consequence::reset(down, F::UPSTREAM_CONNECTION_FAILURE, "connection timeout")
            }
            Fault::ConnectionTermination => {
                Consequence::reset(down, F::UPSTREAM_CONNECTION_TERMINATION, "connection termination")
            }
            Fault::RemoteReset => Consequence::reset(down, F::UPSTREAM_REMOTE_RESET, "remote reset"),
            Fault::RemoteRefused => {
                Consequence::reset(down, F::UPSTREAM_REMOTE_RESET, "remote refused stream reset")
            }
            Fault::ProtocolError => {
                Consequence::reset(S::BAD_GATEWAY, F::UPSTREAM_PROTOCOL_ERROR, "protocol error")
            }
            Fault::RouteTimeout => {
                let body = "upstream request timeout";
                Consequence::answer(late, F::UPSTREAM_REQUEST_TIMEOUT, "response_timeout", body)
            }
            Fault::PerTryTimeout => {
                let body = "upstream request timeout";
                Consequence::answer(late, F::UPSTREAM_REQUEST_TIMEOUT, "upstream_per_try_timeout", body)
            }
            Fault::PerTryIdleTimeout => {
                let body = "upstream request timeout";
                Consequence::answer(late, F::UPSTREAM_REQUEST_TIMEOUT, "upstream_per_try_idle_timeout", body)
            }
            Fault::StreamIdle(complete) => {
                let flags = F::STREAM_IDLE_TIMEOUT;
                Consequence::answer(timeout_status(*complete), flags, "stream_idle_timeout", "stream timeout")
            }
            Fault::RequestTimeout => {
                Consequence::answer(S::REQUEST_TIMEOUT, F::NONE, "request_overall_timeout", "request timeout")
            }
            Fault::MaxDuration(complete) => {
                let body = "downstream duration timeout";
                Consequence::answer(timeout_status(*complete), F::NONE, "max_duration_timeout", body)
            }
        }
    }

    /// The answer to a client that has none yet; `retried` when this was not the first attempt.
    pub(crate) fn reply(&self, retried: bool) -> LocalReply {
        let Consequence { status, flags, body, reset, .. } = self.consequence();
        let body: Cow<'static, str> = match reset {
            Some(reason) => {
                let latest = if retried { "retried and the latest " } else { "" };
                let text = "upstream connect error or disconnect/reset before headers. ";
                format!("{text}{latest}reset reason: {reason}").into()
            }
            None => body.into(),
        };
        let body = match self {
            Fault::BadEnvoyHeader(name, value) => {
                format!("invalid header '{name}' with value '{value}'").into()
            }
            _ => body,
        };
        let mut reply = LocalReply::new(status, self.details(false)).flags(flags).body(body.into_owned());
        if matches!(self, Fault::MaxDuration(_)) {
            reply.grpc_status = Some(GRPC_DEADLINE_EXCEEDED);
        }
        let name = match self {
            Fault::Overflow => &names::X_ENVOY_OVERLOADED,
            Fault::DropOverload(true) => &names::X_ENVOY_UNCONDITIONAL_DROP_OVERLOAD,
            Fault::DropOverload(false) => &names::X_ENVOY_DROP_OVERLOAD,
            _ => return reply,
        };
        reply.header(name.clone(), HeaderValue::from_static("true"))
    }

    /// `%RESPONSE_CODE_DETAILS%`; `started` when the response was on its way.
    pub(crate) fn details(&self, started: bool) -> Cow<'static, str> {
        let Consequence { details, reset, .. } = self.consequence();
        if let Fault::BadEnvoyHeader(name, _) = self {
            return format!("{details}{{{name}}}").into();
        }
        let Some(reason) = reset else { return details.into() };
        let when = if started { "after" } else { "before" };
        let transport = match self {
            Fault::ConnectFailed(transport) => format!("|{transport}"),
            _ => String::new(),
        };
        format!("upstream_reset_{when}_response_started{{{reason}{transport}}}").replace(' ', "_").into()
    }

    /// The response flag.
    pub(crate) fn flags(&self) -> ResponseFlags {
        self.consequence().flags
    }

    /// The status that stands for the fault in the statistics of the cluster, for those that the upstream caused.
    pub(crate) fn upstream_status(&self) -> Option<StatusCode> {
        match self {
            Fault::NoCluster(_)
            | Fault::BadEnvoyHeader(..)
            | Fault::UpgradeRefused
            | Fault::StreamIdle(_)
            | Fault::RequestTimeout
            | Fault::MaxDuration(_) => None,
            _ => Some(self.consequence().status),
        }
    }

    /// Counts the stream, if a limit of its connection manager ended it.
    pub(crate) fn count(&self, counts: &HttpCounts) {
        match self {
            Fault::StreamIdle(_) => counts.downstream_rq_idle_timeout.inc(),
            Fault::RequestTimeout => counts.downstream_rq_timeout.inc(),
            Fault::MaxDuration(_) => counts.downstream_rq_max_duration_reached.inc(),
            _ => {}
        }
    }

    /// Whether the upstream took too long, by a limit of the route.
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, Fault::RouteTimeout | Fault::PerTryTimeout | Fault::PerTryIdleTimeout)
    }

    /// What outlier detection takes in; `None` for faults that say nothing about the host.
    pub(crate) fn outlier_outcome(&self) -> Option<Outcome> {
        match self {
            Fault::ConnectFailed(_)
            | Fault::ConnectTimeout
            | Fault::ConnectionTermination
            | Fault::RemoteReset
            | Fault::RemoteRefused
            | Fault::ProtocolError => Some(Outcome::ConnectFailed),
            Fault::RouteTimeout | Fault::PerTryTimeout | Fault::PerTryIdleTimeout => Some(Outcome::TimedOut),
            _ => None,
        }
    }

    /// The condition that a retry policy may name; `None` when the fault is final. `request_sent` when bytes of
    /// the request may have reached the upstream.
    pub(crate) fn retry_condition(&self, request_sent: bool) -> Option<Reset> {
        match self {
            Fault::Overflow => Some(Reset::Overflow),
            Fault::ConnectFailed(_) | Fault::ConnectTimeout => Some(Reset::ConnectFailure),
            Fault::RemoteRefused => Some(Reset::RefusedStream),
            Fault::ConnectionTermination | Fault::RemoteReset | Fault::ProtocolError => {
                Some(Reset::Broken { request_sent })
            }
            Fault::PerTryTimeout | Fault::PerTryIdleTimeout => Some(Reset::PerTryTimeout),
            Fault::NoCluster(_)
            | Fault::BadEnvoyHeader(..)
            | Fault::UpgradeRefused
            | Fault::NoHealthyUpstream
            | Fault::DropOverload(_)
            | Fault::RouteTimeout
            | Fault::StreamIdle(_)
            | Fault::RequestTimeout
            | Fault::MaxDuration(_) => None,
        }
    }
}

const GRPC_DEADLINE_EXCEEDED: u32 = 4;

/// A timeout is the client's fault until its request is complete.
fn timeout_status(request_complete: bool) -> StatusCode {
    if request_complete { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::REQUEST_TIMEOUT }
}

impl From<LeaseError> for Fault {
    fn from(error: LeaseError) -> Fault {
        match error {
            LeaseError::Overflow => Fault::Overflow,
            LeaseError::ConnectFailed(reason) => Fault::ConnectFailed(reason),
            LeaseError::ConnectTimeout => Fault::ConnectTimeout,
            // The pool itself follows what was agreed; to anyone else it is as good as refused.
            LeaseError::Refused | LeaseError::AgreedHttp1 => Fault::RemoteRefused,
        }
    }
}

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Fault {
        match error {
            ClientError::Refused | ClientError::Reset(Reason::REFUSED_STREAM) => Fault::RemoteRefused,
            ClientError::ClosedBeforeResponse | ClientError::Io(_) => Fault::ConnectionTermination,
            ClientError::Reset(_) => Fault::RemoteReset,
            // An HTTP/1 message that ends too early is no message.
            ClientError::Truncated => Fault::ProtocolError,
            ClientError::Protocol(detail) | ClientError::Misuse(detail) => {
                tracing::debug!(error = detail, "upstream broke the protocol");
                Fault::ProtocolError
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_reads_as_in_envoy() {
        let fault = Fault::ConnectFailed("delayed connect error: Connection refused".into());
        let reply = fault.reply(true);
        assert_eq!(
            reply.body,
            "upstream connect error or disconnect/reset before headers. retried and the latest \
             reset reason: remote connection failure"
        );
        assert_eq!(
            reply.details,
            "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"
        );
        assert_eq!((reply.status, reply.flags), (StatusCode::SERVICE_UNAVAILABLE, fault.flags()));
        let late = Fault::ConnectionTermination.details(true);
        assert_eq!(late, "upstream_reset_after_response_started{connection_termination}");
    }

    #[test]
    fn a_timeout_blames_the_client_until_its_request_is_complete() {
        assert_eq!(Fault::StreamIdle(false).reply(false).status, 408);
        assert_eq!(Fault::StreamIdle(true).reply(false).status, 504);
    }
}
