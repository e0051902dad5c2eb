//! Matchers, as Envoy documents them.

use http::HeaderMap;
use meltemi_envoy::config::route::v3 as proto;
use meltemi_envoy::json::Codec;

use super::*;
use crate::ledger::Ledger;

/// A request for tests: pseudo headers and a header map.
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) random: u64,
}

impl Request {
    pub(crate) fn get(authority: &str, path: &str) -> Request {
        Request {
            method: "GET",
            authority: authority.to_owned(),
            path: path.to_owned(),
            headers: HeaderMap::new(),
            random: 0,
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Request {
        self.headers.append(name, value.parse().unwrap());
        self
    }
}

impl RequestView for Request {
    fn method(&self) -> &str {
        self.method
    }
    fn scheme(&self) -> &str {
        "http"
    }
    fn authority(&self) -> &str {
        &self.authority
    }
    fn path(&self) -> &str {
        &self.path
    }
    fn header(&self, name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?.as_bytes();
        match values.next() {
            None => Some(Cow::Borrowed(first)),
            Some(_) => {
                let all: Vec<_> = self.headers.get_all(name).iter().map(|v| v.as_bytes()).collect();
                Some(Cow::Owned(all.join(&b","[..])))
            }
        }
    }
    fn any_header_value(&self, name: &HeaderName, test: &dyn Fn(&[u8]) -> bool) -> Option<bool> {
        let mut values = self.headers.get_all(name).iter().peekable();
        values.peek()?;
        Some(values.any(|value| test(value.as_bytes())))
    }
    fn source_ip(&self) -> Option<IpAddr> {
        Some(IpAddr::from([10, 1, 2, 3]))
    }
    fn random(&self) -> u64 {
        self.random
    }
}

fn header_matches(yaml: &str, request: &Request) -> bool {
    let message: proto::HeaderMatcher = Codec::new().parse(yaml).unwrap();
    Ledger::run("", |at| header_matcher(at, &message)).unwrap().matches(request)
}

#[test]
fn header_tests_take_each_value_on_its_own() {
    let request = Request::get("a", "/").with("x-a", "one").with("x-a", "two").with("x-n", "7");
    assert!(header_matches("{name: x-a, string_match: {exact: one}}", &request));
    assert!(header_matches("{name: x-a, string_match: {exact: two}}", &request));
    assert!(!header_matches("{name: x-a, string_match: {exact: 'one,two'}}", &request));
    assert!(!header_matches("{name: x-a, string_match: {exact: two}, invert_match: true}", &request));
    assert!(header_matches("{name: x-a, string_match: {exact: 'one,two'}, invert_match: true}", &request));
    assert!(header_matches("{name: X-A, string_match: {prefix: TW, ignore_case: true}}", &request));
    assert!(header_matches("{name: x-a, string_match: {contains: 'n'}}", &request));
    assert!(header_matches("{name: x-a, string_match: {suffix: wo}}", &request));
    assert!(header_matches("{name: x-a, string_match: {safe_regex: {regex: 't.*'}}}", &request));
    assert!(!header_matches("{name: x-a, string_match: {safe_regex: {regex: 'on'}}}", &request));
    assert!(header_matches("{name: x-n, range_match: {start: 7, end: 8}}", &request));
    assert!(!header_matches("{name: x-n, range_match: {start: 6, end: 7}}", &request));
    assert!(header_matches("{name: ':method', string_match: {exact: GET}}", &request));
    assert!(header_matches("{name: host, string_match: {exact: a}}", &request));
}

#[test]
fn a_missing_header_matches_only_absence_or_as_empty() {
    let request = Request::get("a", "/");
    assert!(!header_matches("{name: x, string_match: {exact: a}, invert_match: true}", &request));
    assert!(header_matches(
        "{name: x, string_match: {exact: a}, invert_match: true, treat_missing_header_as_empty: true}",
        &request
    ));
    assert!(header_matches("{name: x, present_match: false}", &request));
    assert!(header_matches("{name: x, present_match: true, invert_match: true}", &request));
    assert!(header_matches("{name: x, present_match: true, treat_missing_header_as_empty: true}", &request));
    assert!(!header_matches(
        "{name: x, present_match: false, treat_missing_header_as_empty: true}",
        &request
    ));
    assert!(!header_matches("{name: x}", &request));
}

#[test]
fn query_parameters_match_by_first_value() {
    let matches = |yaml: &str, path: &str| {
        let message: proto::QueryParameterMatcher = Codec::new().parse(yaml).unwrap();
        Ledger::run("", |at| query_matcher(at, &message)).unwrap().matches(path)
    };
    assert!(matches("{name: a, string_match: {exact: '1'}}", "/x?b=2&a=1&a=3"));
    assert!(!matches("{name: a, string_match: {exact: '3'}}", "/x?b=2&a=1&a=3"));
    assert!(matches("{name: a, present_match: true}", "/x?a"));
    assert!(!matches("{name: a}", "/x?ab=1"));
    assert!(!matches("{name: a}", "/a"));
    assert!(matches("{name: a, present_match: false}", "/a?b"));
    assert!(!matches("{name: a, present_match: false}", "/a?a=1"));
}

#[test]
fn a_separated_prefix_ends_at_a_slash() {
    let matcher = PathMatcher::Separated("/api".into(), true);
    assert!(matcher.matches("/api", "GET"));
    assert!(matcher.matches("/api/x", "GET"));
    assert!(!matcher.matches("/apix", "GET"));
    assert!(!PathMatcher::Prefix("/API".into(), true).matches("/api", "GET"));
    assert!(PathMatcher::Prefix("/API".into(), false).matches("/apix", "GET"));
    assert!(PathMatcher::Connect.matches("", "CONNECT"));
    assert!(!PathMatcher::Prefix("".into(), true).matches("", "CONNECT"));
}

#[test]
fn a_regex_cannot_escape_its_anchors() {
    let broken = RegexMatcherText("a)|(b");
    let message = broken.message();
    assert!(Ledger::run("", |at| regex_full_match(at, &message)).is_err());
    let message = RegexMatcherText("a|b").message();
    let regex = Ledger::run("", |at| regex_full_match(at, &message)).unwrap();
    assert!(regex.is_match("a") && regex.is_match("b") && !regex.is_match("ab") && !regex.is_match("a\n"));
}

#[test]
fn a_regex_of_unbounded_size_is_rejected() {
    let message = RegexMatcherText(r"(\w{100}){100}").message();
    assert!(Ledger::run("", |at| regex_full_match(at, &message)).is_err());
}

struct RegexMatcherText(&'static str);

impl RegexMatcherText {
    fn message(&self) -> meltemi_envoy::r#type::matcher::v3::RegexMatcher {
        meltemi_envoy::r#type::matcher::v3::RegexMatcher { regex: self.0.into(), engine_type: None }
    }
}
