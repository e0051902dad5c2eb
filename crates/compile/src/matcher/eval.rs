//! Evaluation of matchers.

use std::borrow::Cow;
use std::cell::RefCell;

use http::header::COOKIE;

use super::{
    CookieMatcher, HeaderMatcher, HeaderSubject, HeaderTest, PathMatcher, QueryMatcher, QueryTest,
    RequestView, RewritePattern, StringMatcher,
};

/// A `:path` without its query and fragment.
pub fn without_query(path: &str) -> &str {
    path.find(['?', '#']).map_or(path, |end| &path[..end])
}

impl PathMatcher {
    /// Whether a request matches; `path` is without its query.
    pub(crate) fn matches(&self, path: &str, method: &str) -> bool {
        match self {
            PathMatcher::Connect => method == "CONNECT",
            _ if path.is_empty() => false,
            PathMatcher::Exact(text, true) => path == &**text,
            PathMatcher::Exact(text, false) => path.eq_ignore_ascii_case(text),
            PathMatcher::Prefix(prefix, case_sensitive) => starts_with(path, prefix, *case_sensitive),
            PathMatcher::Separated(prefix, case_sensitive) => {
                starts_with(path, prefix, *case_sensitive)
                    && matches!(path.as_bytes().get(prefix.len()), None | Some(b'/'))
            }
            PathMatcher::Regex(regex) => regex.is_match(path),
            PathMatcher::Template(template) => template.matches(path),
        }
    }
}

fn starts_with(text: &str, prefix: &str, case_sensitive: bool) -> bool {
    let Some(head) = text.as_bytes().get(..prefix.len()) else { return false };
    if case_sensitive { head == prefix.as_bytes() } else { head.eq_ignore_ascii_case(prefix.as_bytes()) }
}

impl StringMatcher {
    /// Whether `value` matches. A regex never matches what is not UTF-8.
    pub fn matches(&self, value: &[u8]) -> bool {
        let equal = |a: &[u8], b: &str, ignore_case: bool| {
            if ignore_case { a.eq_ignore_ascii_case(b.as_bytes()) } else { a == b.as_bytes() }
        };
        match self {
            StringMatcher::Exact(text, ignore_case) => equal(value, text, *ignore_case),
            StringMatcher::Prefix(text, ignore_case) => {
                value.get(..text.len()).is_some_and(|head| equal(head, text, *ignore_case))
            }
            StringMatcher::Suffix(text, ignore_case) => value
                .len()
                .checked_sub(text.len())
                .is_some_and(|start| equal(&value[start..], text, *ignore_case)),
            StringMatcher::Contains(text, ignore_case) => {
                value.windows(text.len().max(1)).any(|window| equal(window, text, *ignore_case))
            }
            StringMatcher::Regex(regex) => std::str::from_utf8(value).is_ok_and(|text| regex.is_match(text)),
        }
    }
}

impl HeaderMatcher {
    /// Whether a request matches: any one of the header's values passes the test, or with `invert` none does. A
    /// header that is missing fails every test but presence, also an inverted one, unless it is read as empty.
    pub(crate) fn matches(&self, view: &impl RequestView) -> bool {
        let test = |value: &[u8]| match &self.test {
            HeaderTest::Present(present) => *present,
            HeaderTest::String(matcher) => matcher.matches(value),
            HeaderTest::Range(start, end) => number(value).is_some_and(|n| (*start..*end).contains(&n)),
        };
        let matched = match (self.subject.any_value(view, &test), &self.test) {
            (Some(matched), _) => matched,
            (None, _) if self.missing_as_empty => test(b""),
            (None, HeaderTest::Present(present)) => !present,
            (None, HeaderTest::String(_) | HeaderTest::Range(..)) => return false,
        };
        matched != self.invert
    }
}

fn number(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

impl HeaderSubject {
    /// The first value.
    pub(crate) fn first_value(&self, view: &impl RequestView) -> Option<Vec<u8>> {
        let first = RefCell::new(None);
        self.any_value(view, &|value| {
            first.replace(Some(value.to_vec()));
            true
        })?;
        first.into_inner()
    }

    /// Whether any value passes; `None` when there is none.
    pub(crate) fn any_value(&self, view: &impl RequestView, test: &dyn Fn(&[u8]) -> bool) -> Option<bool> {
        let pseudo = match self {
            HeaderSubject::Named(name) => return view.any_header_value(name, test),
            HeaderSubject::Method => view.method(),
            HeaderSubject::Authority => view.authority(),
            HeaderSubject::Path => view.path(),
            HeaderSubject::Scheme => view.scheme(),
        };
        (!pseudo.is_empty()).then(|| test(pseudo.as_bytes()))
    }
}

impl QueryMatcher {
    /// Whether the query of `path` matches; of a parameter that is there twice, the first counts. Values are
    /// compared as they came, without unescaping.
    pub(crate) fn matches(&self, path: &str) -> bool {
        match (query_parameter(path, &self.name), &self.test) {
            (value, QueryTest::Present(present)) => value.is_some() == *present,
            (value, QueryTest::String(test)) => value.is_some_and(|value| test.matches(value.as_bytes())),
        }
    }
}

impl CookieMatcher {
    /// Whether the cookies of a request match.
    pub(crate) fn matches(&self, view: &impl RequestView) -> bool {
        cookie(view, &self.name).is_some_and(|value| self.test.matches(&value)) != self.invert
    }
}

/// The first value of a query parameter, as it came.
pub(crate) fn query_parameter<'p>(path: &'p str, wanted: &str) -> Option<&'p str> {
    let (_, query) = path.split_once('?')?;
    let query = query.split_once('#').map_or(query, |(query, _)| query);
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == wanted).then_some(value)
    })
}

/// The first value of a cookie, without the quotes that it may have.
pub(crate) fn cookie(view: &impl RequestView, wanted: &str) -> Option<Vec<u8>> {
    let found = RefCell::new(None);
    view.any_header_value(&COOKIE, &|value| {
        let mut pairs = value.split(|byte| *byte == b';');
        let value = pairs.find_map(|pair| {
            let pair = pair.trim_ascii_start();
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            (&pair[..equals] == wanted.as_bytes()).then(|| unquoted(&pair[equals + 1..]))
        });
        *found.borrow_mut() = value.map(<[u8]>::to_vec);
        value.is_some()
    });
    found.into_inner()
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

impl RewritePattern {
    /// The path with every match replaced.
    pub fn apply<'p>(&self, path: &'p str) -> Cow<'p, str> {
        self.pattern.replace_all(path, &*self.substitution)
    }
}
