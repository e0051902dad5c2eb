//! The request of a call, as routing sees it.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use meltemi_compile::matcher::RequestView;
use meltemi_compile::path::{self, PathVerdict};
use meltemi_compile::program::{HttpConnectionManager, StripPort};

use crate::call::{Call, Security};

/// A request after the connection manager has prepared it.
#[derive(Debug)]
pub(crate) struct Request {
    method: String,
    scheme: &'static str,
    authority: String,
    path: String,
    headers: HeaderMap,
}

/// What becomes of a request before it is routed.
pub(crate) enum Prepared {
    /// It is routed.
    Route(Request),
    /// It is answered: the status, and why.
    Answer(u16, String),
}

impl Request {
    /// Prepares the request of a call.
    ///
    /// # Errors
    /// If a header of the call is none.
    pub(crate) fn prepare(call: &Call, manager: &HttpConnectionManager) -> Result<Prepared, String> {
        let path = match path::normalise(&call.path, manager) {
            PathVerdict::Keep => call.path.clone(),
            PathVerdict::Change(path) => path,
            PathVerdict::Reject(path) => {
                return Ok(Prepared::Answer(400, format!("the path `{path}` is refused")));
            }
            PathVerdict::Redirect(path) => {
                return Ok(Prepared::Answer(307, format!("sent to the path `{path}`")));
            }
        };
        let mut headers = HeaderMap::new();
        for (name, values) in &call.headers {
            let wrong = || format!("call.headers: `{name}` is no header");
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            for value in values.iter() {
                headers.append(&name, HeaderValue::from_str(value).map_err(|_| wrong())?);
            }
        }
        Ok(Prepared::Route(Request {
            method: call.method.clone(),
            scheme: if call.tls == Security::Plaintext { "http" } else { "https" },
            authority: authority(call, manager.strip_port, manager.strip_trailing_host_dot),
            path,
            headers,
        }))
    }
}

/// The authority without what the connection manager strips.
fn authority(call: &Call, strip: StripPort, strip_dot: bool) -> String {
    let (name, port) = match call.host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => (name, Some(port)),
        _ => (call.host.as_str(), None),
    };
    let is_stripped = match strip {
        StripPort::Keep => false,
        StripPort::Matching => port == Some(call.port.to_string().as_str()),
        StripPort::Any => true,
    };
    let name = if strip_dot { name.strip_suffix('.').unwrap_or(name) } else { name };
    match port {
        Some(port) if !is_stripped => format!("{name}:{port}"),
        _ => name.to_owned(),
    }
}

impl RequestView for Request {
    fn method(&self) -> &str {
        &self.method
    }

    fn scheme(&self) -> &str {
        self.scheme
    }

    fn authority(&self) -> &str {
        &self.authority
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn header(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        let mut values = self.headers.get_all(name).iter().map(HeaderValue::as_bytes);
        let first = values.next()?;
        let rest: Vec<&[u8]> = values.collect();
        match rest.is_empty() {
            true => Some(Cow::Borrowed(first)),
            false => Some(Cow::Owned([&[first], rest.as_slice()].concat().join(&b','))),
        }
    }

    fn any_header_value(&self, name: &HeaderName, test: &dyn Fn(&[u8]) -> bool) -> Option<bool> {
        let values = self.headers.get_all(name);
        values.iter().next().map(|_| values.iter().any(|value| test(value.as_bytes())))
    }

    /// A route for a share of requests is taken to match: the verdict is about what can happen.
    fn random(&self) -> u64 {
        0
    }
}
