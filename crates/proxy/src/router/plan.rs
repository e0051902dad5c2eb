//! What a request will do upstream: cluster, limits, retries, and the head it goes with.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderValue, Method, StatusCode};
use meltemi_compile::route::{Forward, Found, HostRewrite, PathRewrite, RetryPolicy, WeightedCluster};
use meltemi_compile::{with_new_path, without_query};
use meltemi_http::{RequestHead, ResponseHead, Text};
use tokio::time::Instant;

use super::asked::{self, Asked, AskedRetry};
use super::fault::Fault;
use super::max_duration;
use super::mirror::Mirroring;
use super::retry::Retry;
use super::timers::Timers;
use crate::access_log::format::Missing;
use crate::random;
use crate::stream::edits::{self, Levels};
use crate::stream::{LocalReply, Stream, names};
use crate::upstream::{Cluster, Host};

/// One whole, in parts per million.
const WHOLE_PPM: usize = 1_000_000;

/// The decision for one request, and the state of its attempts.
pub(super) struct Plan<'p> {
    pub(super) found: Found<'p>,
    pub(super) forward: &'p Forward,
    pub(super) entry: Option<&'p WeightedCluster>,
    pub(super) cluster: Rc<Cluster>,
    /// Index of the circuit breaker.
    pub(super) priority: usize,
    pub(super) retry: Option<Retry>,
    /// The host of the attempt under way.
    pub(super) host: Option<Rc<Host>>,
    pub(super) per_try_timeout: Option<Duration>,
    pub(super) per_try_idle: Option<Duration>,
    pub(super) is_upgrade: bool,
    /// CONNECT ends here: only the bytes in it go upstream.
    pub(super) terminates: bool,
    /// `x-envoy-*` fields tell the others what we know.
    adds_headers: bool,
    /// The copies that other clusters get, until they are sent.
    mirroring: Option<Mirroring>,
    /// `set-cookie` values for the response.
    pub(super) new_cookies: Vec<HeaderValue>,
    /// A timeout is answered by 204.
    pub(super) alt_response: bool,
    asked_retry: Option<Box<AskedRetry>>,
    timeout: Option<Duration>,
    /// How long the stream may live.
    max_duration: Option<Duration>,
}

impl<'p> Plan<'p> {
    /// Decides cluster and limits.
    pub(super) fn new(
        stream: &mut Stream<'_, '_>,
        found: Found<'p>,
        forward: &'p Forward,
    ) -> Result<Plan<'p>, Fault> {
        let (cluster, entry) = choose_cluster(stream, forward)?;
        stream.record.cluster = Some(cluster.stats.clone());
        let is_upgrade = stream.traits.upgrade.is_some();
        if stream.traits.upgrade.as_ref().is_some_and(|kind| !allows_upgrade(stream, forward, kind)) {
            return Err(Fault::UpgradeRefused);
        }
        drop_overload(&cluster)?;
        let options = &stream.manager.settings.router;
        let adds_headers = !options.suppress_envoy_headers;
        let mut asked = None;
        if stream.traits.asks_router {
            asked::check(options, &stream.request.headers)?;
            asked = Some(Asked::take(options, &mut stream.request.headers));
        }
        let timeout = match asked.as_ref().and_then(|asked| asked.timeout) {
            Some(timeout) => Some(timeout).filter(|timeout| !timeout.is_zero()),
            None => global_timeout(stream, forward),
        };
        let mut plan = Plan {
            found,
            forward,
            entry,
            cluster,
            priority: usize::from(forward.high_priority),
            retry: None,
            host: None,
            per_try_timeout: None,
            per_try_idle: None,
            is_upgrade,
            terminates: terminates_connect(stream, forward),
            adds_headers,
            mirroring: None,
            new_cookies: Vec::new(),
            alt_response: asked.as_ref().is_some_and(|asked| asked.alt_response),
            asked_retry: None,
            timeout,
            max_duration: max_duration::announced(stream, forward),
        };
        plan.per_try(asked);
        Ok(plan)
    }

    fn policy(&self) -> Option<&'p Arc<RetryPolicy>> {
        self.forward.retry.as_ref().or(self.found.virtual_host.retry.as_ref())
    }

    fn per_try(&mut self, asked: Option<Asked>) {
        let policy = self.policy();
        let asked = asked.unwrap_or_default();
        let limit = match asked.per_try_timeout {
            Some(limit) => Some(limit).filter(|limit| !limit.is_zero()),
            None => policy.and_then(|policy| policy.per_try_timeout),
        };
        // An attempt that may take as long as the whole request has no limit of its own.
        self.per_try_timeout = limit.filter(|limit| self.timeout.is_none_or(|whole| *limit < whole));
        self.per_try_idle = policy.and_then(|policy| policy.per_try_idle_timeout);
        self.asked_retry = asked.retry;
    }

    /// Changes the request as the route says, and starts its timers.
    pub(super) fn prepare(&mut self, stream: &mut Stream<'_, '_>) -> Timers {
        stream.record.attempts = 1;
        self.announce(stream, Duration::ZERO);
        stream.tell_upstream(self.cluster.config.peer_told);
        let levels = Levels { found: self.found, entry: self.entry };
        edits::request(&mut stream.request, &levels, &stream.record);
        self.rewrite_host(stream);
        self.rewrite_path(stream);
        if let Some(limit) = self.forward.buffer_limit {
            stream.body.limit_kept(limit);
        }
        let policy = self.policy();
        if policy.is_some() || self.asked_retry.is_some() {
            self.retry = Retry::new(policy, self.asked_retry.take(), stream);
        }
        if self.retry.is_some() || self.forward.internal_redirect.is_some() {
            stream.body.keep();
        }
        self.timers(stream)
    }

    /// Makes the copies that other clusters get ready; they leave when the request is whole.
    pub(super) fn mirror(&mut self, stream: &Stream<'_, '_>) {
        self.mirroring = Mirroring::new(stream, self.forward, self.timeout);
        if self.is_mirrored() {
            stream.body.keep();
            self.send_copies(stream);
        }
    }

    /// Whether copies are still to be sent.
    pub(super) fn is_mirrored(&self) -> bool {
        self.mirroring.is_some()
    }

    /// Sends the copies if the whole body is here and was kept.
    pub(super) fn send_copies(&mut self, stream: &Stream<'_, '_>) {
        if !self.is_mirrored() {
            return;
        }
        if let Some(body) = stream.body.kept()
            && let Some(mirroring) = self.mirroring.take()
        {
            mirroring.send(&body);
        }
    }

    fn timers(&self, stream: &Stream<'_, '_>) -> Timers {
        let start = Instant::from_std(stream.record.start);
        let settings = &stream.manager.settings;
        let idle = match self.forward.idle_timeout {
            Some(idle) => Some(idle).filter(|idle| !idle.is_zero()),
            None => settings.stream_idle_timeout,
        };
        let timers = Timers::new(start, self.timeout, idle, settings.request_timeout);
        timers.max_duration_at.set(self.max_duration.map(|limit| start + limit));
        if stream.body.is_complete() && !self.is_upgrade {
            timers.request_complete(stream.filters.passed_at.map_or(start, Instant::from_std));
        }
        timers
    }

    /// Says in the request how long the upstream has, and which attempt it is.
    pub(super) fn announce(&self, stream: &mut Stream<'_, '_>, elapsed: Duration) {
        let headers = &mut stream.request.headers;
        if self.found.virtual_host.include_request_attempt_count {
            headers.set(names::X_ENVOY_ATTEMPT_COUNT.clone(), HeaderValue::from(stream.record.attempts));
        }
        let left = self.timeout.map(|whole| whole.saturating_sub(elapsed).max(Duration::from_millis(1)));
        let expected = match (self.per_try_timeout, left) {
            (Some(limit), Some(left)) => Some(limit.min(left)),
            (limit, left) => limit.or(left),
        };
        if let Some(expected) = expected.filter(|_| self.adds_headers) {
            let name = names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS.clone();
            headers.set(name, milliseconds(expected));
        }
    }

    /// The rewrite of a weighted entry comes first and leaves no trace; what the route says comes over it.
    fn rewrite_host(&self, stream: &mut Stream<'_, '_>) {
        let literal = self.entry.and_then(|entry| entry.host_rewrite.as_ref());
        if let Some(text) = literal.and_then(|value| value.to_str().ok()) {
            stream.request.authority = Some(Text::from(text));
        }
        let host = self.new_host(stream).filter(|host| !host.is_empty()).map(|host| Text::from(&*host));
        if let Some(host) = host {
            self.set_authority(&mut stream.request, host);
        }
    }

    /// The host that the route puts in place of the request's.
    fn new_host<'s>(&'s self, stream: &'s Stream<'_, '_>) -> Option<Cow<'s, str>> {
        let head = &stream.request;
        match &self.forward.host_rewrite {
            HostRewrite::None | HostRewrite::Auto => None,
            HostRewrite::Literal(value) => value.to_str().ok().map(Cow::Borrowed),
            HostRewrite::Header(name) => head.headers.get(name)?.to_str().ok().map(Cow::Borrowed),
            HostRewrite::PathRegex(pattern) => Some(pattern.apply(without_query(&head.path))),
            HostRewrite::Format(format) => {
                let view = stream.record.view(Some(head), None, None);
                String::from_utf8(edits::text(format, &view, Missing::Dash)).ok().map(Cow::Owned)
            }
        }
    }

    fn set_authority(&self, head: &mut RequestHead, host: Text) {
        let Some(old) = head.authority.replace(host) else { return };
        if let Ok(original) = HeaderValue::from_str(&old)
            && self.adds_headers
        {
            head.headers.set(names::X_ENVOY_ORIGINAL_HOST.clone(), original);
        }
        if self.forward.append_x_forwarded_host {
            append_forwarded_host(head, &old);
        }
    }

    fn rewrite_path(&self, stream: &mut Stream<'_, '_>) {
        let path = match &self.forward.path_rewrite {
            PathRewrite::Keep => return,
            PathRewrite::Format(format) => {
                let view = stream.record.view(Some(&stream.request), None, None);
                let new = edits::text(format, &view, Missing::Empty);
                with_new_path(&stream.request.path, &String::from_utf8_lossy(&new))
            }
            _ => match self.forward.rewritten_path(self.found.route, &stream.request.path) {
                Some(path) => path,
                None => return,
            },
        };
        let head = &mut stream.request;
        if let Ok(original) = HeaderValue::from_str(&head.path)
            && self.adds_headers
        {
            head.headers.set(names::X_ENVOY_ORIGINAL_PATH.clone(), original);
        }
        head.path = Text::from(path);
    }

    /// The head for an attempt on this host: the request's, but for what only this host gets.
    pub(super) fn head_for<'h>(&self, stream: &'h Stream<'_, '_>, host: &Host) -> Cow<'h, RequestHead> {
        let mut head = Cow::Borrowed(&stream.request);
        if matches!(self.forward.host_rewrite, HostRewrite::Auto) && !host.hostname.is_empty() {
            self.set_authority(head.to_mut(), Text::from(&*host.hostname));
        }
        head
    }

    /// What the router adds to an answer of ours.
    pub(super) fn with_own_headers(&self, stream: &Stream<'_, '_>, mut reply: LocalReply) -> LocalReply {
        if !self.adds_headers {
            reply.headers.retain(|(name, _)| *name != names::X_ENVOY_OVERLOADED);
        }
        if !self.found.virtual_host.include_attempt_count_in_response {
            return reply;
        }
        reply.header(names::X_ENVOY_ATTEMPT_COUNT.clone(), HeaderValue::from(stream.record.attempts))
    }

    /// What the router adds to an upstream's response.
    pub(super) fn finish_response(
        &mut self,
        stream: &mut Stream<'_, '_>,
        head: &mut ResponseHead,
        timers: &Timers,
    ) {
        stream.meet_upstream(&mut head.headers);
        if self.found.virtual_host.include_attempt_count_in_response {
            let count = HeaderValue::from(stream.record.attempts);
            head.headers.set(names::X_ENVOY_ATTEMPT_COUNT.clone(), count);
        }
        let now = Instant::now();
        stream.record.response_start = Some(now.into_std());
        if let Some(end) = timers.request_end().filter(|_| self.adds_headers) {
            let name = names::X_ENVOY_UPSTREAM_SERVICE_TIME.clone();
            head.headers.set(name, milliseconds(now.duration_since(end)));
        }
        stream.record.response_code = head.status.as_u16();
        stream.record.details = Some("via_upstream".into());
        self.set_cookies(&mut head.headers);
        stream.edit_response(&mut head.headers, self.found, self.entry);
    }
}

/// What the route says of an upgrade counts before what the connection manager says.
fn allows_upgrade(stream: &Stream<'_, '_>, forward: &Forward, kind: &str) -> bool {
    let general = || stream.manager.settings.upgrades.iter().any(|name| **name == *kind);
    forward.upgrades.allows(kind).unwrap_or_else(general)
}

fn terminates_connect(stream: &Stream<'_, '_>, forward: &Forward) -> bool {
    forward.upgrades.connect.is_some_and(|config| match stream.request.method {
        Method::CONNECT => true,
        Method::POST => config.allow_post,
        _ => false,
    })
}

/// The cluster of the route, and the entry of `weighted_clusters` that it came from.
/// `drop_overloads` of the endpoints: a part of the requests goes no further.
fn drop_overload(cluster: &Cluster) -> Result<(), Fault> {
    let ppm = cluster.drop_overload_ppm();
    if ppm == 0 || random::below(WHOLE_PPM) >= ppm as usize {
        return Ok(());
    }
    cluster.stats.codes.record(StatusCode::SERVICE_UNAVAILABLE.as_u16());
    Err(Fault::DropOverload(ppm as usize == WHOLE_PPM))
}

fn choose_cluster<'p>(
    stream: &Stream<'_, '_>,
    forward: &'p Forward,
) -> Result<(Rc<Cluster>, Option<&'p WeightedCluster>), Fault> {
    let picked = forward.pick(stream);
    let Some(cluster) = stream.generation.cluster(&picked.cluster.text(stream)) else {
        stream.manager.stats.counts.no_cluster.inc();
        return Err(Fault::NoCluster(forward.cluster_not_found));
    };
    Ok((cluster.clone(), picked.entry))
}

/// The timeout of the whole exchange. With `max_grpc_timeout`, gRPC requests say themselves how long they wait.
fn global_timeout(stream: &mut Stream<'_, '_>, forward: &Forward) -> Option<Duration> {
    let limit =
        forward.max_grpc_timeout.filter(|_| stream.traits.is_grpc && forward.stream_duration.is_none());
    let Some(limit) = limit else { return forward.timeout };
    let limit = Some(limit).filter(|limit| !limit.is_zero());
    let offset = forward.grpc_timeout_offset.unwrap_or_default();
    let asked = max_duration::asked(stream).map(|asked| if offset < asked { asked - offset } else { asked });
    let whole = match (asked, limit) {
        (Some(asked), Some(limit)) => Some(asked.min(limit)),
        (asked, limit) => asked.or(limit),
    };
    if let Some(whole) = whole {
        max_duration::announce(stream, whole);
    }
    whole
}

fn milliseconds(time: Duration) -> HeaderValue {
    HeaderValue::from(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn append_forwarded_host(head: &mut RequestHead, old: &str) {
    let name: &HeaderName = &names::X_FORWARDED_HOST;
    let joined = match head.headers.get(name).and_then(|value| value.to_str().ok()) {
        Some(before) => format!("{before},{old}"),
        None => old.to_owned(),
    };
    if let Ok(value) = HeaderValue::try_from(joined) {
        head.headers.set(name.clone(), value);
    }
}
