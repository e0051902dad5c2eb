//! Redirects that the proxy follows itself (`internal_redirect_policy`).
//!
//! Owns the decision and what it makes of the request; `http` then serves that request as a new one of the same client:
//! route, filters, timers and log line are its own. Source: Envoy's router filter.

use http::uri::Authority;
use http::{HeaderValue, Method, StatusCode, header};
use meltemi_compile::route::{InternalRedirectPolicy, InternalRedirectPredicate, RouteAction};
use meltemi_http::{RequestHead, ResponseHead, Text};

use super::plan::Plan;
use crate::record::TakenRoute;
use crate::stats::{Counter, HttpCounts};
use crate::stream::{Stream, names};

/// The redirects that a request followed. Nothing is allocated before the first.
#[derive(Debug, Default)]
pub(crate) struct Redirects {
    /// `num_internal_redirects`.
    followed: u32,
    /// From and to which routes, by name, where `previous_routes` asks for it.
    taken: Vec<(Box<str>, Box<str>)>,
    /// Body bytes that were sent again; they count as received again.
    pub(crate) replayed_bytes: u64,
    /// The head was changed for a request that is still to begin.
    pub(crate) is_pending: bool,
}

/// Why a redirect is passed on instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// The request is a tunnel, or not all of it is here and kept.
    Incomplete,
    /// There is no `location`.
    NoLocation,
    BadLocation,
    UnsafeScheme,
    TooMany,
    NoRoute,
    Predicate,
}

impl Refusal {
    fn counter(self, counts: &HttpCounts) -> Option<&Counter> {
        match self {
            Refusal::Incomplete | Refusal::NoLocation => None,
            Refusal::BadLocation => Some(&counts.passthrough_internal_redirect_bad_location),
            Refusal::UnsafeScheme => Some(&counts.passthrough_internal_redirect_unsafe_scheme),
            Refusal::TooMany => Some(&counts.passthrough_internal_redirect_too_many_redirects),
            Refusal::NoRoute => Some(&counts.passthrough_internal_redirect_no_route),
            Refusal::Predicate => Some(&counts.passthrough_internal_redirect_predicate),
        }
    }
}

impl Plan<'_> {
    /// Whether this response is a redirect that is followed; the request is then the new one.
    pub(super) fn follows(&self, stream: &mut Stream<'_, '_>, head: &ResponseHead) -> bool {
        let Some(policy) = self.forward.internal_redirect.as_deref() else { return false };
        if !policy.codes.contains(&head.status) {
            return false;
        }
        let counts = &self.cluster.stats.counts;
        match self.follow(stream, policy, head) {
            Ok(()) => {
                counts.upstream_internal_redirect_succeeded_total.inc();
                true
            }
            Err(refusal) => {
                counts.upstream_internal_redirect_failed_total.inc();
                if let Some(counter) = refusal.counter(&stream.manager.stats.counts) {
                    counter.inc();
                }
                false
            }
        }
    }

    fn follow(
        &self,
        stream: &mut Stream<'_, '_>,
        policy: &InternalRedirectPolicy,
        head: &ResponseHead,
    ) -> Result<(), Refusal> {
        if self.is_upgrade || stream.body.kept().is_none() {
            return Err(Refusal::Incomplete);
        }
        let location = head.headers.get(&header::LOCATION).ok_or(Refusal::NoLocation)?;
        let target = location.to_str().ok().and_then(Target::parse).ok_or(Refusal::BadLocation)?;
        // Without TLS on its connection, a request is one over http, whatever it says of itself.
        if !target.is_http() && !policy.allow_cross_scheme {
            return Err(Refusal::UnsafeScheme);
        }
        if stream.redirects.as_ref().map_or(0, |redirects| redirects.followed) >= policy.max_redirects {
            return Err(Refusal::TooMany);
        }
        let next = next_head(&stream.request, policy, head, &target);
        let request = std::mem::replace(&mut stream.request, next);
        let accepted = self.accept(stream, policy, &target);
        if let Err(refusal) = accepted {
            stream.request = request;
            return Err(refusal);
        }
        turn_into(stream, head.status, &request);
        end(stream, head);
        Ok(())
    }

    /// Finds where the new request would go, and asks the predicates. Loggers see that route, even if it is refused.
    fn accept(
        &self,
        stream: &mut Stream<'_, '_>,
        policy: &InternalRedirectPolicy,
        target: &Target<'_>,
    ) -> Result<(), Refusal> {
        let table = stream.manager.routes(&stream.generation);
        let taken = table.and_then(|table| Some(TakenRoute::new(table, table.find(&*stream)?)));
        stream.record.found = taken.clone();
        stream.record.cluster = None;
        // A path of nothing but a query is not one that a connection manager takes.
        let taken = taken.filter(|_| target.path.starts_with('/')).ok_or(Refusal::NoRoute)?;
        if let RouteAction::Forward(forward) = &taken.found().route.action {
            let cluster = stream.generation.cluster(&forward.pick(&*stream).cluster.text(&*stream));
            stream.record.cluster = cluster.map(|cluster| cluster.stats.clone());
        }
        let found = taken.found();
        let (from, to) = (&*self.found.route.name, &*found.route.name);
        let redirects = stream.redirects.get_or_insert_default();
        let mut accepts = |predicate: &InternalRedirectPredicate| match predicate {
            InternalRedirectPredicate::PreviousRoutes => redirects.note(from, to),
            InternalRedirectPredicate::AllowListedRoutes(names) => names.iter().any(|name| **name == *to),
            InternalRedirectPredicate::SafeCrossScheme => target.is_http(),
        };
        match policy.predicates.iter().all(&mut accepts) {
            true => Ok(()),
            false => Err(Refusal::Predicate),
        }
    }
}

impl Redirects {
    /// Whether this way was not taken before.
    fn note(&mut self, from: &str, to: &str) -> bool {
        if self.taken.iter().any(|(known_from, known_to)| **known_from == *from && **known_to == *to) {
            return false;
        }
        self.taken.push((from.into(), to.into()));
        true
    }
}

/// The head of the new request, as its route is looked for.
fn next_head(
    request: &RequestHead,
    policy: &InternalRedirectPolicy,
    response: &ResponseHead,
    target: &Target<'_>,
) -> RequestHead {
    let mut next = request.clone();
    for name in &policy.response_headers_to_copy {
        next.headers.remove(name);
        for value in response.headers.get_all(name) {
            next.headers.append(name.clone(), value.clone());
        }
    }
    next.scheme = Some(Text::from(&*target.scheme));
    next.authority = Some(Text::from(target.authority));
    next.path = Text::from(target.path);
    next
}

/// What the new request is besides its place: after 303 a GET without a body.
fn turn_into(stream: &mut Stream<'_, '_>, status: StatusCode, old: &RequestHead) {
    let keeps_method = matches!(stream.request.method, Method::GET | Method::HEAD);
    if status == StatusCode::SEE_OTHER && !keeps_method {
        stream.request.method = Method::GET;
        stream.request.headers.remove(&header::CONTENT_LENGTH);
        stream.body.forget();
    }
    let url = format!("http://{}{}", old.authority.as_deref().unwrap_or_default(), &*old.path);
    if let Ok(url) = HeaderValue::try_from(url) {
        stream.request.headers.set(names::X_ENVOY_ORIGINAL_URL.clone(), url);
    }
    let redirects = stream.redirects.get_or_insert_default();
    redirects.followed += 1;
    redirects.is_pending = true;
}

/// What is known of the request that ends with the redirect.
fn end(stream: &mut Stream<'_, '_>, head: &ResponseHead) {
    stream.record.response_code = head.status.as_u16();
    stream.record.details = Some("internal_redirect".into());
    if stream.manager.reads_heads() {
        stream.response = Some(head.headers.clone());
    }
}

/// An absolute URL.
#[derive(Debug, PartialEq, Eq)]
struct Target<'l> {
    scheme: String,
    authority: &'l str,
    /// With the query; never empty.
    path: &'l str,
}

impl<'l> Target<'l> {
    /// Reads a `location`. A fragment is the client's and goes no further.
    fn parse(location: &'l str) -> Option<Target<'l>> {
        let location = location.split_once('#').map_or(location, |(url, _)| url);
        let (scheme, rest) = location.split_once("://").filter(|(scheme, _)| !scheme.is_empty())?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        authority.parse::<Authority>().ok()?;
        let path = if path.is_empty() { "/" } else { path };
        Some(Target { scheme: scheme.to_ascii_lowercase(), authority, path })
    }

    fn is_http(&self) -> bool {
        self.scheme == "http"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_absolute_urls_only() {
        let target = Target::parse("HTTPS://me@Shop.example:443/a?b#c").unwrap();
        assert_eq!(target, Target { scheme: "https".into(), authority: "Shop.example:443", path: "/a?b" });
        assert_eq!(Target::parse("http://[::1]").unwrap().path, "/");
        assert_eq!(Target::parse("http://shop?b").unwrap().path, "?b");
        for bad in ["", "/a", "//shop/a", "shop", "http://", "http:///a", "http://a b/", "://shop/"] {
            assert_eq!(Target::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn takes_a_way_once() {
        let mut redirects = Redirects::default();
        assert!(redirects.note("a", "b"));
        assert!(redirects.note("b", "a"));
        assert!(redirects.note("a", "a"));
        assert!(!redirects.note("a", "b"));
    }
}
