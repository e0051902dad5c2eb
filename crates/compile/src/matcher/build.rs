//! Matchers from their messages.

use http::header::HOST;
use meltemi_envoy::config::route::v3 as proto;
use meltemi_envoy::config::route::v3::header_matcher::HeaderMatchSpecifier as HeaderSpecifier;
use meltemi_envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use meltemi_envoy::r#type::matcher::v3::regex_matcher::{EngineType, GoogleRe2};
use meltemi_envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use meltemi_envoy::r#type::matcher::v3::{self, RegexMatchAndSubstitute, RegexMatcher};
use meltemi_envoy::r#type::v3::Int64Range;
use regex::Regex;

use super::{
    CookieMatcher, HeaderMatcher, HeaderSubject, HeaderTest, QueryMatcher, QueryTest, RewritePattern,
    StringMatcher,
};
use crate::ledger::{At, harmless};

/// Largest compiled size of one regex: room for alternations of hundreds of words, while thousands of
/// routes stay within gigabytes at the very worst.
const REGEX_SIZE_LIMIT_BYTES: usize = 1 << 20;

/// A regex that must match the whole text.
pub(crate) fn regex_full_match(at: &At<'_>, matcher: &RegexMatcher) -> Option<Regex> {
    let pattern = regex_text(at, matcher)?;
    // On its own first, so that an unbalanced parenthesis cannot pair up with the ones around it.
    build(at, pattern)?;
    build(at, &format!(r"\A(?:{pattern})\z"))
}

fn regex_text<'m>(at: &At<'_>, matcher: &'m RegexMatcher) -> Option<&'m str> {
    let RegexMatcher { regex, engine_type } = matcher;
    if let Some(EngineType::GoogleRe2(GoogleRe2 { max_program_size })) = engine_type {
        harmless!(Deprecated; max_program_size);
    }
    if regex.is_empty() {
        return at.field("regex").none("must not be empty");
    }
    Some(regex)
}

// Differs: RE2's \d, \w, \s and \b know ASCII only. Paths are ASCII; in header values other digits may differ.
fn build(at: &At<'_>, pattern: &str) -> Option<Regex> {
    match regex::RegexBuilder::new(pattern).size_limit(REGEX_SIZE_LIMIT_BYTES).build() {
        Ok(regex) => Some(regex),
        Err(error) => at.field("regex").none(error),
    }
}

/// A regex and what its matches become.
pub(crate) fn rewrite_pattern(at: &At<'_>, message: &RegexMatchAndSubstitute) -> Option<RewritePattern> {
    let RegexMatchAndSubstitute { pattern, substitution } = message;
    let Some(matcher) = pattern else { return at.field("pattern").none("must be set") };
    let at_pattern = at.field("pattern");
    let pattern = build(&at_pattern, regex_text(&at_pattern, matcher)?)?;
    match replacement(substitution, pattern.captures_len()) {
        Ok(substitution) => Some(RewritePattern { pattern, substitution: substitution.into() }),
        Err(reason) => at.field("substitution").none(reason),
    }
}

/// RE2's `\N` as the `regex` crate's `${N}`.
fn replacement(text: &str, groups: usize) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('\\')) => out.push('\\'),
            ('\\', Some(digit)) if digit.is_ascii_digit() => {
                if digit as usize - '0' as usize >= groups {
                    return Err(format!("the pattern has no group \\{digit}"));
                }
                out.extend(["${", digit.encode_utf8(&mut [0; 4]), "}"]);
            }
            ('\\', _) => return Err("a backslash must be followed by a digit or a backslash".to_owned()),
            ('$', _) => out.push_str("$$"),
            (c, _) => out.push(c),
        }
    }
    Ok(out)
}

/// A string matcher.
pub(crate) fn string_matcher(at: &At<'_>, message: &v3::StringMatcher) -> Option<StringMatcher> {
    let v3::StringMatcher { ignore_case, match_pattern } = message;
    let text = |field, text: &str| {
        at.required(field, text);
        if *ignore_case { text.to_ascii_lowercase().into() } else { Box::from(text) }
    };
    Some(match match_pattern {
        // An exact match of the empty string is the one that makes sense.
        Some(MatchPattern::Exact(exact)) if exact.is_empty() => StringMatcher::Exact("".into(), false),
        Some(MatchPattern::Exact(exact)) => StringMatcher::Exact(text("exact", exact), *ignore_case),
        Some(MatchPattern::Prefix(prefix)) => StringMatcher::Prefix(text("prefix", prefix), *ignore_case),
        Some(MatchPattern::Suffix(suffix)) => StringMatcher::Suffix(text("suffix", suffix), *ignore_case),
        Some(MatchPattern::Contains(part)) => StringMatcher::Contains(text("contains", part), *ignore_case),
        Some(MatchPattern::SafeRegex(regex)) => {
            StringMatcher::Regex(regex_full_match(&at.field("safe_regex"), regex)?)
        }
        Some(MatchPattern::Custom(_)) => return at.field("custom").none("not supported yet"),
        None => return at.none("must be set"),
    })
}

/// A header matcher.
pub(crate) fn header_matcher(at: &At<'_>, message: &proto::HeaderMatcher) -> Option<HeaderMatcher> {
    let proto::HeaderMatcher { name, invert_match, treat_missing_header_as_empty, header_match_specifier } =
        message;
    Some(HeaderMatcher {
        subject: header_subject(at, "name", name)?,
        test: header_test(at, header_match_specifier.as_ref())?,
        invert: *invert_match,
        missing_as_empty: *treat_missing_header_as_empty,
    })
}

/// The header of a field that may also name a pseudo header.
pub(crate) fn header_subject(at: &At<'_>, field: &'static str, name: &str) -> Option<HeaderSubject> {
    Some(match name.to_ascii_lowercase().as_str() {
        ":method" => HeaderSubject::Method,
        ":authority" => HeaderSubject::Authority,
        ":path" => HeaderSubject::Path,
        ":scheme" => HeaderSubject::Scheme,
        _ => match at.header_name(field, name)? {
            HOST => HeaderSubject::Authority,
            name => HeaderSubject::Named(name),
        },
    })
}

fn header_test(at: &At<'_>, specifier: Option<&HeaderSpecifier>) -> Option<HeaderTest> {
    let text = |field, text: &str| {
        at.required(field, text);
        Box::from(text)
    };
    let matcher = match specifier {
        None => return Some(HeaderTest::Present(true)),
        Some(HeaderSpecifier::PresentMatch(present)) => return Some(HeaderTest::Present(*present)),
        Some(HeaderSpecifier::RangeMatch(Int64Range { start, end })) => {
            return Some(HeaderTest::Range(*start, *end));
        }
        Some(HeaderSpecifier::StringMatch(matcher)) => string_matcher(&at.field("string_match"), matcher)?,
        Some(HeaderSpecifier::SafeRegexMatch(regex)) => {
            StringMatcher::Regex(regex_full_match(&at.field("safe_regex_match"), regex)?)
        }
        Some(HeaderSpecifier::ExactMatch(exact)) => StringMatcher::Exact(exact.as_str().into(), false),
        Some(HeaderSpecifier::PrefixMatch(prefix)) => {
            StringMatcher::Prefix(text("prefix_match", prefix), false)
        }
        Some(HeaderSpecifier::SuffixMatch(suffix)) => {
            StringMatcher::Suffix(text("suffix_match", suffix), false)
        }
        Some(HeaderSpecifier::ContainsMatch(part)) => {
            StringMatcher::Contains(text("contains_match", part), false)
        }
    };
    Some(HeaderTest::String(matcher))
}

/// A cookie matcher.
pub(crate) fn cookie_matcher(at: &At<'_>, message: &proto::CookieMatcher) -> Option<CookieMatcher> {
    let proto::CookieMatcher { name, string_match, invert_match } = message;
    at.required("name", name);
    let Some(test) = string_match else { return at.field("string_match").none("must be set") };
    Some(CookieMatcher {
        name: name.as_str().into(),
        test: string_matcher(&at.field("string_match"), test)?,
        invert: *invert_match,
    })
}

/// A query parameter matcher.
pub(crate) fn query_matcher(at: &At<'_>, message: &proto::QueryParameterMatcher) -> Option<QueryMatcher> {
    let proto::QueryParameterMatcher { name, query_parameter_match_specifier } = message;
    at.required("name", name);
    let test = match query_parameter_match_specifier {
        Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => {
            QueryTest::String(string_matcher(&at.field("string_match"), matcher)?)
        }
        Some(QueryParameterMatchSpecifier::PresentMatch(present)) => QueryTest::Present(*present),
        None => QueryTest::Present(true),
    };
    Some(QueryMatcher { name: name.as_str().into(), test })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substitutions_take_the_syntax_of_re2() {
        assert_eq!(replacement(r"/x/\1/$y\\z", 2), Ok(r"/x/${1}/$$y\z".to_owned()));
        assert_eq!(replacement(r"\0", 1), Ok("${0}".to_owned()));
        assert!(replacement(r"\2", 2).is_err());
        assert!(replacement(r"\x", 2).is_err());
        assert!(replacement("\\", 2).is_err());
    }
}
