//! What an HTTP route of a VirtualService does.

use meltemi_api::istio::{
    self, CorsPolicy, DerivePort, HeaderOperations, Headers, HttpBody, HttpFaultInjection, HttpRedirect,
    HttpRetry, HttpRewrite, HttpRoute, Percent, UnmatchedPreflights,
};

use super::condition::text;
use super::{destination, each, port, weight};
use crate::route::delegate::Route;
use crate::route::{
    Abort, AbortCode, Body, Cors, Delay, DirectResponse, Fault, Forward, HeaderChanges, HeaderEdits,
    HttpAction, Mirror, PathRewrite, Redirect, RedirectPath, RedirectPort, Retries, Rewrite, TextMatch,
    Weighted, Written,
};

/// The status code of a redirect that names none.
const MOVED_PERMANENTLY: u16 = 301;

/// A redirect counts before an answer, an answer before destinations.
pub(super) fn of(route: &Route<'_>) -> HttpAction {
    let rule = &*route.rule;
    if let Some(wire) = &rule.redirect {
        HttpAction::Redirect(redirect(wire))
    } else if let Some(wire) = &rule.direct_response {
        HttpAction::Respond(DirectResponse { status: wire.status, body: wire.body.as_ref().and_then(body) })
    } else {
        HttpAction::Forward(forward(route))
    }
}

fn forward(route: &Route<'_>) -> Forward {
    let rule = &*route.rule;
    Forward {
        destinations: each(&rule.route, |i, d| {
            let written = route.written.below(&format!("route[{i}]"));
            Weighted {
                destination: destination(&d.destination, written.below("destination")),
                weight: weight(d.weight),
                headers: header_changes(d.headers.as_ref()),
                written,
            }
        }),
        mirrors: mirrors(rule, &route.mirrors),
        rewrite: rule.rewrite.as_ref().map(rewrite).unwrap_or_default(),
        timeout: rule.timeout,
        retries: rule.retries.as_ref().map(Retries::of),
    }
}

/// The older form first.
fn mirrors(rule: &HttpRoute, written: &Written) -> Vec<Mirror> {
    let whole = rule.mirror_percent.or(rule.old_mirror_percent).map(f64::from);
    let share = rule.mirror_percentage.as_ref().map(|p| p.value).or(whole);
    let old = rule.mirror.iter().map(|d| (d, share, "mirror".to_owned()));
    let new = rule.mirrors.iter().enumerate().map(|(i, m)| {
        (&m.destination, m.percentage.as_ref().map(|p| p.value), format!("mirrors[{i}].destination"))
    });
    let mirror = |(wire, percent, at): (&istio::Destination, Option<f64>, String)| Mirror {
        destination: destination(wire, written.below(&at)),
        percent: percent.unwrap_or(100.0),
    };
    old.chain(new).map(mirror).collect()
}

fn rewrite(wire: &HttpRewrite) -> Rewrite {
    let by_regex = wire.uri_regex_rewrite.as_ref().map(|regex| PathRewrite::Regex {
        pattern: regex.pattern.clone(),
        substitution: regex.rewrite.clone(),
    });
    let prefix = || wire.uri.clone().filter(|uri| !uri.is_empty()).map(PathRewrite::Prefix);
    Rewrite {
        path: by_regex.or_else(prefix),
        authority: wire.authority.clone().filter(|authority| !authority.is_empty()),
    }
}

impl Retries {
    /// The policy that is written.
    pub(crate) fn of(wire: &HttpRetry) -> Retries {
        Retries {
            attempts: wire.attempts.and_then(|a| u32::try_from(a).ok()).unwrap_or(0),
            per_try_timeout: wire.per_try_timeout,
            on: wire.retry_on.clone().unwrap_or_default(),
            ignores_previous_hosts: wire.retry_ignore_previous_hosts,
            reaches_remote_localities: wire.retry_remote_localities == Some(true),
            backoff: wire.backoff,
        }
    }
}

fn redirect(wire: &HttpRedirect) -> Redirect {
    let text = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    let prefix = text(&wire.prefix_rewrite).map(RedirectPath::Prefix);
    let derived = wire.derive_port.map(|derive| match derive {
        DerivePort::FromProtocolDefault => RedirectPort::OfScheme,
        DerivePort::FromRequestPort => RedirectPort::OfRequest,
    });
    let code = wire.redirect_code.and_then(|code| u16::try_from(code).ok()).filter(|code| *code > 0);
    Redirect {
        path: prefix.or_else(|| text(&wire.uri).map(RedirectPath::Whole)),
        authority: wire.authority.clone().unwrap_or_default(),
        scheme: wire.scheme.clone().unwrap_or_default(),
        port: wire.port.and_then(port).map(RedirectPort::Number).or(derived),
        code: code.unwrap_or(MOVED_PERMANENTLY),
    }
}

fn body(wire: &HttpBody) -> Option<Body> {
    match (&wire.string, &wire.bytes) {
        (Some(text), _) => Some(Body::Text(text.clone())),
        (None, Some(encoded)) => meltemi_api::decode_base64(encoded).map(Body::Bytes),
        (None, None) => None,
    }
}

pub(super) fn fault(wire: &HttpFaultInjection) -> Fault {
    let percent = |percentage: Option<&Percent>, whole: Option<i32>| {
        percentage.map(|p| p.value).or(whole.map(f64::from)).unwrap_or(0.0)
    };
    let delay = wire.delay.as_ref().and_then(|delay| {
        Some(Delay { time: delay.fixed_delay?, percent: percent(delay.percentage.as_ref(), delay.percent) })
    });
    let abort = wire.abort.as_ref().and_then(|abort| {
        let http = abort.http_status.and_then(|status| u32::try_from(status).ok()).map(AbortCode::Http);
        let grpc = || abort.grpc_status.map(|status| AbortCode::Grpc(status.number()));
        Some(Abort { code: http.or_else(grpc)?, percent: percent(abort.percentage.as_ref(), None) })
    });
    Fault { delay, abort }
}

pub(super) fn cors(wire: &CorsPolicy) -> Cors {
    let old = wire.allow_origin.iter().cloned().map(TextMatch::Exact);
    Cors {
        origins: match wire.allow_origins.as_slice() {
            [] => old.collect(),
            some => some.iter().map(text).collect(),
        },
        methods: wire.allow_methods.clone(),
        headers: wire.allow_headers.clone(),
        exposed: wire.expose_headers.clone(),
        max_age: wire.max_age,
        credentials: wire.allow_credentials,
        forwards_unmatched: wire.unmatched_preflights != Some(UnmatchedPreflights::Ignore),
    }
}

pub(super) fn header_changes(wire: Option<&Headers>) -> HeaderChanges {
    let edits = |operations: Option<&HeaderOperations>| operations.map(header_edits).unwrap_or_default();
    HeaderChanges {
        request: edits(wire.and_then(|headers| headers.request.as_ref())),
        response: edits(wire.and_then(|headers| headers.response.as_ref())),
    }
}

fn header_edits(operations: &HeaderOperations) -> HeaderEdits {
    let list = |map: &std::collections::BTreeMap<String, String>| {
        map.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    HeaderEdits { set: list(&operations.set), add: list(&operations.add), remove: operations.remove.clone() }
}
