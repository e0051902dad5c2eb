//! Matchers in words, for people who ask why a request took no other route.

use std::fmt::{Display, Formatter, Result};

use super::{
    CookieMatcher, HeaderMatcher, HeaderSubject, HeaderTest, PathMatcher, QueryMatcher, QueryTest,
    StringMatcher,
};

impl Display for PathMatcher {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let case = |sensitive: bool| if sensitive { "" } else { " in any case" };
        match self {
            PathMatcher::Exact(text, sensitive) => write!(f, "path is `{text}`{}", case(*sensitive)),
            PathMatcher::Prefix(text, sensitive) => {
                write!(f, "path begins with `{text}`{}", case(*sensitive))
            }
            PathMatcher::Separated(text, sensitive) => {
                write!(f, "path is `{text}` or below it{}", case(*sensitive))
            }
            PathMatcher::Regex(regex) => write!(f, "path matches `{}`", inner(regex.as_str())),
            PathMatcher::Template(_) => f.write_str("path fits the template"),
            PathMatcher::Connect => f.write_str("method is CONNECT"),
        }
    }
}

impl Display for StringMatcher {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (verb, text, ignores_case) = match self {
            StringMatcher::Exact(text, ignores_case) => ("is", &**text, *ignores_case),
            StringMatcher::Prefix(text, ignores_case) => ("begins with", &**text, *ignores_case),
            StringMatcher::Suffix(text, ignores_case) => ("ends with", &**text, *ignores_case),
            StringMatcher::Contains(text, ignores_case) => ("contains", &**text, *ignores_case),
            StringMatcher::Regex(regex) => ("matches", inner(regex.as_str()), false),
        };
        write!(f, "{verb} `{text}`{}", if ignores_case { " in any case" } else { "" })
    }
}

/// The pattern as it was written, without the anchors of a whole match.
fn inner(pattern: &str) -> &str {
    pattern.strip_prefix(r"\A(?:").and_then(|rest| rest.strip_suffix(r")\z")).unwrap_or(pattern)
}

impl Display for HeaderMatcher {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let not = if self.invert { "not: " } else { "" };
        match &self.test {
            HeaderTest::Present(true) => write!(f, "{not}header `{}` is there", self.subject),
            HeaderTest::Present(false) => write!(f, "{not}header `{}` is missing", self.subject),
            HeaderTest::String(test) => write!(f, "{not}header `{}` {test}", self.subject),
            HeaderTest::Range(start, end) => {
                write!(f, "{not}header `{}` is in [{start}, {end})", self.subject)
            }
        }
    }
}

impl Display for HeaderSubject {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            HeaderSubject::Named(name) => name.as_str(),
            HeaderSubject::Method => ":method",
            HeaderSubject::Authority => ":authority",
            HeaderSubject::Path => ":path",
            HeaderSubject::Scheme => ":scheme",
        })
    }
}

impl Display for QueryMatcher {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.test {
            QueryTest::Present(true) => write!(f, "query parameter `{}` is there", self.name),
            QueryTest::Present(false) => write!(f, "query parameter `{}` is missing", self.name),
            QueryTest::String(test) => write!(f, "query parameter `{}` {test}", self.name),
        }
    }
}

impl Display for CookieMatcher {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}cookie `{}` {}", if self.invert { "not: " } else { "" }, self.name, self.test)
    }
}
