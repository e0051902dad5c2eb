//! What a request asks of the router in its own `x-envoy-*` fields.
//!
//! The connection manager has taken these fields from requests that may not say them. They are read once and go no
//! further. Source: Envoy's `FilterUtility::finalTimeout` and `RetryStateImpl`.

use std::time::Duration;

use http::HeaderName;
use meltemi_compile::filter::RouterOptions;
use meltemi_compile::retry::RetryOn;
use meltemi_http::Headers;

use super::fault::Fault;
use crate::stream::names;

/// The wishes of one request.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// `x-envoy-upstream-rq-timeout-ms`, or what a proxy before us announced when that is to be respected; zero is none.
    pub(super) timeout: Option<Duration>,
    /// `x-envoy-upstream-rq-per-try-timeout-ms`.
    pub(super) per_try_timeout: Option<Duration>,
    /// `x-envoy-upstream-rq-timeout-alt-response`: a timeout is answered by 204.
    pub(super) alt_response: bool,
    /// What is asked of retries, if anything.
    pub(super) retry: Option<Box<AskedRetry>>,
}

/// The wishes that concern retries.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct AskedRetry {
    /// `x-envoy-retry-on` and `x-envoy-retry-grpc-on`.
    pub(super) on: RetryOn,
    /// `x-envoy-max-retries`.
    pub(super) max_retries: Option<u32>,
    /// `x-envoy-retriable-status-codes`.
    pub(super) codes: Vec<u16>,
    /// `x-envoy-retriable-header-names`.
    pub(super) headers: Vec<HeaderName>,
}

/// Whether a field asks something of the router.
pub(crate) fn is_asking(name: &str) -> bool {
    matches!(
        name,
        "x-envoy-retry-on"
            | "x-envoy-retry-grpc-on"
            | "x-envoy-max-retries"
            | "x-envoy-retriable-status-codes"
            | "x-envoy-retriable-header-names"
            | "x-envoy-hedge-on-per-try-timeout"
            | "x-envoy-upstream-rq-timeout-ms"
            | "x-envoy-upstream-rq-per-try-timeout-ms"
            | "x-envoy-upstream-rq-timeout-alt-response"
            | "x-envoy-expected-rq-timeout-ms"
    )
}

/// Refuses a request that asks for something in a way that `strict_check_headers` does not accept.
pub(super) fn check(options: &RouterOptions, headers: &Headers) -> Result<(), Fault> {
    for checked in &options.strict_check_headers {
        let name = HeaderName::from_static(checked.name());
        let Some(value) = headers.get(&name) else { continue };
        let text = value.to_str().unwrap_or_default();
        if !checked.accepts(text) {
            return Err(Fault::BadEnvoyHeader(checked.name(), text.into()));
        }
    }
    Ok(())
}

impl Asked {
    /// Reads the fields and takes them out. Of a field that is there twice, the first counts.
    pub(super) fn take(options: &RouterOptions, headers: &mut Headers) -> Asked {
        let mut asked = Asked::default();
        if options.respect_expected_rq_timeout {
            asked.timeout = headers.get_str(&names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS).and_then(milliseconds);
        }
        let mut retry = AskedRetry::default();
        headers.retain(|name, value| {
            if !is_asking(name.as_str()) {
                return true;
            }
            let text = value.to_str().unwrap_or_default();
            asked.read(name.as_str(), text) || retry.read(name.as_str(), text)
        });
        if retry != AskedRetry::default() {
            asked.retry = Some(Box::new(retry));
        }
        asked
    }

    /// Whether the field stays.
    fn read(&mut self, name: &str, text: &str) -> bool {
        match name {
            // Written anew when the router announces its own.
            "x-envoy-expected-rq-timeout-ms" => return true,
            "x-envoy-upstream-rq-timeout-ms" => self.timeout = self.timeout.or_else(|| milliseconds(text)),
            "x-envoy-upstream-rq-per-try-timeout-ms" => {
                self.per_try_timeout = self.per_try_timeout.or_else(|| milliseconds(text));
            }
            "x-envoy-upstream-rq-timeout-alt-response" => self.alt_response = true,
            _ => {}
        }
        false
    }
}

impl AskedRetry {
    /// Whether the field stays.
    fn read(&mut self, name: &str, text: &str) -> bool {
        let items = || text.split(',').map(str::trim);
        match name {
            "x-envoy-retry-on" => {
                let (on, _) = RetryOn::parse(text);
                self.on = self.on.union(on.without(RetryOn::GRPC));
            }
            "x-envoy-retry-grpc-on" => {
                self.on = self.on.union(RetryOn::parse(text).0.only(RetryOn::GRPC));
            }
            "x-envoy-max-retries" => self.max_retries = text.trim().parse().ok(),
            "x-envoy-retriable-status-codes" => {
                self.codes.extend(items().filter_map(|item| item.parse::<u16>().ok()))
            }
            "x-envoy-retriable-header-names" => {
                self.headers.extend(items().filter_map(|item| HeaderName::try_from(item).ok()));
            }
            _ => {}
        }
        false
    }
}

fn milliseconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn wishes_are_read_and_go_no_further() {
        let mut fields = headers(&[
            ("x-envoy-retry-on", "5xx,unavailable"),
            ("x-envoy-retry-grpc-on", "unavailable,5xx"),
            ("x-envoy-max-retries", "4"),
            ("x-envoy-retriable-status-codes", "418, no,429"),
            ("x-envoy-retriable-header-names", "X-Again, bad name"),
            ("x-envoy-upstream-rq-timeout-ms", "250"),
            ("x-envoy-upstream-rq-per-try-timeout-ms", "soon"),
            ("x-envoy-attempt-count", "1"),
        ]);
        let asked = Asked::take(&RouterOptions::default(), &mut fields);
        assert_eq!(fields.len(), 1);
        assert_eq!(asked.timeout, Some(Duration::from_millis(250)));
        assert_eq!(asked.per_try_timeout, None);
        let retry = asked.retry.expect("retries are asked for");
        assert_eq!(retry.on, RetryOn::FIVE_XX.union(RetryOn::UNAVAILABLE));
        assert_eq!((retry.max_retries, retry.codes.as_slice()), (Some(4), &[418, 429][..]));
        assert_eq!(retry.headers, [HeaderName::from_static("x-again")]);
    }
}
