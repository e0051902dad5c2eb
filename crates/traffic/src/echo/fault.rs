//! Trouble on request: what a request's header or query, or the command line, asks to go wrong.

use std::time::Duration;

use http::header::HeaderName;
use meltemi_http::RequestHead;

use crate::duration;

/// Largest body that a request may ask for.
const SIZE_MAX_BYTES: usize = 64 << 20;

/// What shall go wrong with a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Wait before answering.
    pub(crate) delay: Option<Duration>,
    /// Answer with this status.
    pub(crate) status: Option<u16>,
    /// Fail every Nth request.
    pub(crate) fail_every: Option<u64>,
    /// With this status.
    pub(crate) fail_status: u16,
    /// Answer with a body of this many bytes.
    pub(crate) size: Option<usize>,
}

impl Faults {
    /// The faults of one request: its own wishes before those of the command line. A wish that cannot be understood is an
    /// error with its reason.
    pub(crate) fn of(&self, request: &RequestHead) -> Result<Faults, String> {
        let mut faults = self.clone();
        if let Some(delay) = wish(request, "delay") {
            faults.delay = Some(duration::parse(&delay).map_err(|error| format!("delay: {error}"))?);
        }
        if let Some(status) = wish(request, "status") {
            faults.status = Some(number(&status, "status", 200, 599)?);
        }
        if let Some(every) = wish(request, "fail-every") {
            faults.fail_every = Some(number(&every, "fail-every", 1, u64::MAX)?);
        }
        if let Some(size) = wish(request, "size") {
            faults.size = Some(number(&size, "size", 0, SIZE_MAX_BYTES)?);
        }
        Ok(faults)
    }

    /// The status to answer the `count`th request with.
    pub(crate) fn status(&self, count: u64) -> Option<u16> {
        let flaky = self.fail_every.is_some_and(|every| count.is_multiple_of(every));
        self.status.or(flaky.then_some(self.fail_status))
    }
}

/// The value of header `x-echo-NAME` or query parameter `NAME`.
fn wish(request: &RequestHead, name: &str) -> Option<String> {
    let header = HeaderName::from_bytes(format!("x-echo-{name}").as_bytes()).ok()?;
    if let Some(value) = request.headers.get_str(&header) {
        return Some(value.to_owned());
    }
    query_parameter(&request.path, name).map(str::to_owned)
}

/// A parameter of the query, as it stands: no wish needs percent-encoding.
pub(crate) fn query_parameter<'p>(path: &'p str, name: &str) -> Option<&'p str> {
    let (_, query) = path.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn number<T>(text: &str, name: &str, min: T, max: T) -> Result<T, String>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    match text.parse() {
        Ok(number) if number >= min && number <= max => Ok(number),
        _ => Err(format!("{name}: {text:?} is not between {min} and {max}")),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};

    use super::*;

    #[test]
    fn header_before_query_before_command_line() {
        let line = Faults { delay: Some(Duration::from_secs(9)), fail_status: 503, ..Faults::default() };
        let mut request = RequestHead::new(Method::GET, "/a?status=404&delay=20ms&size=7");
        assert_eq!(line.of(&RequestHead::new(Method::GET, "/")), Ok(line.clone()));
        request.headers.append(HeaderName::from_static("x-echo-status"), HeaderValue::from_static("500"));
        let faults = line.of(&request).unwrap();
        assert_eq!((faults.delay, faults.status(1)), (Some(Duration::from_millis(20)), Some(500)));
        assert_eq!(faults.size, Some(7));
    }

    #[test]
    fn every_nth_request_fails_and_nonsense_is_an_error() {
        let faults = Faults { fail_every: Some(3), fail_status: 503, ..Faults::default() };
        let statuses: Vec<_> = (1..=6).map(|count| faults.status(count)).collect();
        assert_eq!(statuses, [None, None, Some(503), None, None, Some(503)]);
        for path in ["/?status=99", "/?delay=soon", "/?fail-every=0", "/?size=-1"] {
            assert!(faults.of(&RequestHead::new(Method::GET, path)).is_err(), "{path}");
        }
    }
}
