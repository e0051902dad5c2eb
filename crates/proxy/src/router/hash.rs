//! The hash of a request for its balancer, and the cookies that hashing hands out.
//!
//! Source: Envoy's router filter as load balancer context: a new cookie holds the hash of both addresses of the
//! client's connection, so that requests which race on it get the same one.

use http::HeaderValue;
use http::header::SET_COOKIE;
use meltemi_compile::hash_policy::CookiePolicy;
use meltemi_http::Headers;
use xxhash_rust::xxh64::xxh64;

use super::plan::Plan;
use crate::record::ConnectionInfo;
use crate::stream::Stream;

impl Plan<'_> {
    /// The hash for the pick under way, of the request as the route changed it; `None` when nobody asks, or no policy of the route gives one.
    pub(super) fn hash(&mut self, stream: &Stream<'_, '_>) -> Option<u64> {
        let policies = &self.forward.hash;
        if policies.is_empty() || !self.cluster.uses_hash() {
            return None;
        }
        let cookies = &mut self.new_cookies;
        let mut new_cookie = |policy: &CookiePolicy| {
            let value = cookie_value(&stream.record.connection);
            cookies.extend(HeaderValue::try_from(policy.set_cookie(&value)));
            value
        };
        policies.hash(stream, Some(&mut new_cookie))
    }

    /// Hands out the cookies that were made.
    pub(super) fn set_cookies(&mut self, headers: &mut Headers) {
        for cookie in self.new_cookies.drain(..) {
            headers.append(SET_COOKIE, cookie);
        }
    }
}

/// The same for all requests of a connection.
fn cookie_value(connection: &ConnectionInfo) -> String {
    let text = format!("{}{}", connection.remote, connection.local);
    format!("{:016x}", xxh64(text.as_bytes(), 0))
}
