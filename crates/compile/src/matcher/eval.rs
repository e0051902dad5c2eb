//! Evaluation of matchers.

use std::borrow::Cow;

use super::{
    HeaderMatcher, HeaderSubject, HeaderTest, PathMatcher, QueryMatcher, RequestView, RewritePattern, StringMatcher,
};

/// A `:path` without its query and fragment.
pub(crate) fn without_query(path: &str) -> &str {
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
        }
    }
}

fn starts_with(text: &str, prefix: &str, case_sensitive: bool) -> bool {
    let Some(head) = text.as_bytes().get(..prefix.len()) else { return false };
    if case_sensitive { head == prefix.as_bytes() } else { head.eq_ignore_ascii_case(prefix.as_bytes()) }
}

impl StringMatcher {
    /// Whether `value` matches. A regex never matches what is not UTF-8.
    pub(crate) fn matches(&self, value: &[u8]) -> bool {
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
    /// Whether a request matches. A header that is missing fails every test but presence, also an inverted
    /// one, unless it is read as empty.
    pub(crate) fn matches(&self, view: &impl RequestView) -> bool {
        let value = self.subject.of(view);
        let matched = match (&self.test, value) {
            (HeaderTest::Present(present), value) => value.is_some() == *present,
            (_, None) if !self.missing_as_empty => return false,
            (HeaderTest::String(matcher), value) => matcher.matches(value.as_deref().unwrap_or_default()),
            (HeaderTest::Range(start, end), value) => {
                number(value.as_deref().unwrap_or_default()).is_some_and(|n| (*start..*end).contains(&n))
            }
        };
        matched != self.invert
    }
}

fn number(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

impl HeaderSubject {
    fn of<'v>(&self, view: &'v impl RequestView) -> Option<Cow<'v, [u8]>> {
        let pseudo = |text: &'v str| (!text.is_empty()).then_some(Cow::Borrowed(text.as_bytes()));
        match self {
            HeaderSubject::Named(name) => view.header(name),
            HeaderSubject::Method => pseudo(view.method()),
            HeaderSubject::Authority => pseudo(view.authority()),
            HeaderSubject::Path => pseudo(view.path()),
            HeaderSubject::Scheme => pseudo(view.scheme()),
        }
    }
}

impl QueryMatcher {
    /// Whether the query of `path` matches; of a parameter that is there twice, the first counts. Values are
    /// compared as they came, without unescaping.
    pub(crate) fn matches(&self, path: &str) -> bool {
        let Some((_, query)) = path.split_once('?') else { return false };
        let query = query.split_once('#').map_or(query, |(query, _)| query);
        let value = query.split('&').find_map(|pair| match pair.split_once('=') {
            Some((name, value)) => (name == &*self.name).then_some(value),
            None => (pair == &*self.name).then_some(""),
        });
        match (value, &self.test) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(value), Some(test)) => test.matches(value.as_bytes()),
        }
    }
}

impl RewritePattern {
    /// The path with every match replaced.
    pub(crate) fn apply<'p>(&self, path: &'p str) -> Cow<'p, str> {
        self.pattern.replace_all(path, &*self.substitution)
    }
}
