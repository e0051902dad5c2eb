//! What a route does with a request on the way, in words.

use std::time::Duration;

use meltemi_compile::filter::Levels;
use meltemi_compile::filter::RouteFilterConfig;
use meltemi_compile::filter::fault::{Abort, Delay, Fault};
use meltemi_compile::header_edit::HeaderEdits;
use meltemi_compile::matcher::RequestView;
use meltemi_compile::route::{Forward, Found, HostRewrite, PathRewrite, RetryPolicy, RouteEdits};

use crate::request::Request;

/// Parts per million of a whole.
const WHOLE_PPM: f64 = 1_000_000.0;

/// Every effect of a route that forwards.
pub(crate) fn of(found: &Found<'_>, forward: &Forward, request: &Request) -> Vec<String> {
    let mut effects = faults(found);
    effects.extend(rewrites(found, forward, request));
    effects.extend(forward.timeout.map(|timeout| format!("timeout {}", span(timeout))));
    effects.extend(forward.retry.as_deref().and_then(retries));
    for mirror in &forward.mirrors {
        let percent = percent(f64::from(mirror.fraction_ppm) / WHOLE_PPM * 100.0);
        effects.push(format!("{percent} mirrored to {}", mirror.cluster.text(request)));
    }
    if !forward.hash.is_empty() {
        effects.push("requests with the same hash go to the same endpoint".to_owned());
    }
    for edits in [&found.route.edits, &found.virtual_host.edits, &found.table.edits] {
        effects.extend(headers(edits));
    }
    effects
}

/// A span of time as people write it.
pub(crate) fn span(time: Duration) -> String {
    match time.as_millis() {
        millis if millis % 1000 == 0 => format!("{} s", millis / 1000),
        millis => format!("{millis} ms"),
    }
}

/// A percentage without needless digits.
pub(crate) fn percent(value: f64) -> String {
    let text = format!("{value:.1}");
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}

fn faults(found: &Found<'_>) -> Vec<String> {
    let levels = Levels {
        levels: [
            meltemi_compile::filter::PerFilterConfigs::EMPTY,
            &found.route.filters,
            &found.virtual_host.filters,
            &found.table.filters,
        ],
    };
    let configs = levels.all("envoy.filters.http.fault").next();
    match configs {
        Some(RouteFilterConfig::Fault(fault)) => of_fault(fault),
        _ => Vec::new(),
    }
}

fn of_fault(fault: &Fault) -> Vec<String> {
    let delay = fault.delay.as_ref().map(|(delay, share)| match delay {
        Delay::Fixed(time) => format!("{share} delayed by {}", span(*time)),
        Delay::Header => format!("{share} delayed as a header says"),
    });
    let abort = fault.abort.as_ref().map(|(abort, share)| match abort {
        Abort::Http(status) => format!("{share} aborted with {}", status.as_u16()),
        Abort::Grpc(status) => format!("{share} aborted with gRPC status {status}"),
        Abort::Header => format!("{share} aborted as a header says"),
    });
    delay.into_iter().chain(abort).collect()
}

fn rewrites(found: &Found<'_>, forward: &Forward, request: &Request) -> Vec<String> {
    let path = match &forward.path_rewrite {
        PathRewrite::Format(_) => Some("path rewritten by a format".to_owned()),
        _ => forward
            .rewritten_path(found.route, request.path())
            .map(|path| format!("path rewritten to {path}")),
    };
    let host = match &forward.host_rewrite {
        HostRewrite::None => None,
        HostRewrite::Literal(host) => {
            Some(format!("host rewritten to {}", String::from_utf8_lossy(host.as_bytes())))
        }
        HostRewrite::Auto => Some("host rewritten to the endpoint's name".to_owned()),
        HostRewrite::Header(name) => Some(format!("host rewritten to header {name}")),
        HostRewrite::PathRegex(_) | HostRewrite::Format(_) => Some("host rewritten by a format".to_owned()),
    };
    path.into_iter().chain(host).collect()
}

fn retries(policy: &RetryPolicy) -> Option<String> {
    if policy.num_retries == 0 {
        return None;
    }
    let each = policy.per_try_timeout.map_or(String::new(), |time| format!(", {} each", span(time)));
    let plural = if policy.num_retries == 1 { "retry" } else { "retries" };
    Some(format!("up to {} {plural} on {}{each}", policy.num_retries, policy.on))
}

fn headers(edits: &RouteEdits) -> Vec<String> {
    let of = |edits: &HeaderEdits, whose: &str| -> Vec<String> {
        let removed = edits.remove.iter().map(|name| format!("{whose} header {name} removed"));
        let added = edits.add.iter().map(|add| match add.value.literal() {
            Some(value) => format!("{whose} header {}: {value}", add.name),
            None => format!("{whose} header {} set by a format", add.name),
        });
        removed.chain(added).collect()
    };
    [of(&edits.request, "request"), of(&edits.response, "response")].concat()
}
