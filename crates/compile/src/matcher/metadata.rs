//! Matchers of metadata values and of filter state.
//!
//! Source: `envoy.type.matcher.v3.MetadataMatcher`, `ValueMatcher` and `FilterStateMatcher`. A value that is not there
//! matches nothing, not even `present_match: false`: for its absence the matcher is inverted.

use meltemi_envoy::r#type::matcher::v3::double_matcher::MatchPattern as DoublePattern;
use meltemi_envoy::r#type::matcher::v3::filter_state_matcher::Matcher as FilterStatePattern;
use meltemi_envoy::r#type::matcher::v3::list_matcher::MatchPattern as ListPattern;
use meltemi_envoy::r#type::matcher::v3::metadata_matcher::PathSegment;
use meltemi_envoy::r#type::matcher::v3::metadata_matcher::path_segment::Segment;
use meltemi_envoy::r#type::matcher::v3::value_matcher::{MatchPattern, NullMatch};
use meltemi_envoy::r#type::matcher::v3::{self, DoubleMatcher, ListMatcher, OrMatcher};
use meltemi_envoy::r#type::v3::DoubleRange;
use prost_types::Value;
use prost_types::value::Kind;

use super::build::string_matcher;
use super::{RequestView, StringMatcher};
use crate::ledger::At;

/// `envoy.type.matcher.v3.MetadataMatcher`.
#[derive(Debug, Clone)]
pub struct MetadataMatcher {
    namespace: Box<str>,
    path: Box<[Box<str>]>,
    test: ValueTest,
    invert: bool,
}

/// `envoy.type.matcher.v3.ValueMatcher`.
#[derive(Debug, Clone)]
enum ValueTest {
    Null,
    Number(f64),
    /// Start inclusive, end exclusive.
    NumberRange(f64, f64),
    String(StringMatcher),
    Bool(bool),
    Present(bool),
    AnyOfList(Box<ValueTest>),
    AnyTest(Vec<ValueTest>),
}

/// `envoy.type.matcher.v3.FilterStateMatcher`.
#[derive(Debug, Clone)]
pub struct FilterStateMatcher {
    key: Box<str>,
    test: StringMatcher,
}

/// Nested list matchers end here.
const MAX_NESTING: usize = 16;

impl MetadataMatcher {
    /// Whether the dynamic metadata of a request matches.
    pub(crate) fn matches(&self, view: &impl RequestView) -> bool {
        self.test.matches(view.dynamic_metadata(&self.namespace, &self.path)) != self.invert
    }
}

impl ValueTest {
    fn matches(&self, value: Option<&Value>) -> bool {
        let kind = value.and_then(|value| value.kind.as_ref());
        match (self, kind) {
            (ValueTest::Present(present), kind) => *present && kind.is_some(),
            (ValueTest::AnyTest(tests), _) => tests.iter().any(|test| test.matches(value)),
            (ValueTest::Null, Some(Kind::NullValue(_))) => true,
            (ValueTest::Number(wanted), Some(Kind::NumberValue(number))) => number == wanted,
            (ValueTest::NumberRange(start, end), Some(Kind::NumberValue(number))) => {
                (*start..*end).contains(number)
            }
            (ValueTest::String(test), Some(Kind::StringValue(text))) => test.matches(text.as_bytes()),
            (ValueTest::Bool(wanted), Some(Kind::BoolValue(is))) => is == wanted,
            (ValueTest::AnyOfList(test), Some(Kind::ListValue(list))) => {
                list.values.iter().any(|value| test.matches(Some(value)))
            }
            _ => false,
        }
    }
}

impl FilterStateMatcher {
    /// Whether the filter state of a request matches.
    pub(crate) fn matches(&self, view: &impl RequestView) -> bool {
        view.filter_state(&self.key).is_some_and(|text| self.test.matches(text.as_bytes()))
    }
}

/// A metadata matcher.
pub(crate) fn metadata_matcher(at: &At<'_>, message: &v3::MetadataMatcher) -> Option<MetadataMatcher> {
    let v3::MetadataMatcher { filter, path, value, invert } = message;
    at.required("filter", filter);
    if path.is_empty() {
        at.field("path").reject("must have at least one segment");
    }
    let path = at.each("path", path, |at, PathSegment { segment }| match segment {
        Some(Segment::Key(key)) => {
            at.required("key", key);
            Some(key.as_str().into())
        }
        None => at.none("must be set"),
    });
    let Some(value) = value else { return at.field("value").none("must be set") };
    Some(MetadataMatcher {
        namespace: filter.as_str().into(),
        path: path.into(),
        test: value_test(&at.field("value"), value, 0)?,
        invert: *invert,
    })
}

fn value_test(at: &At<'_>, message: &v3::ValueMatcher, depth: usize) -> Option<ValueTest> {
    if depth > MAX_NESTING {
        return at.none("nested too deep");
    }
    let v3::ValueMatcher { match_pattern } = message;
    Some(match match_pattern {
        Some(MatchPattern::NullMatch(NullMatch {})) => ValueTest::Null,
        Some(MatchPattern::DoubleMatch(DoubleMatcher { match_pattern })) => match match_pattern {
            Some(DoublePattern::Exact(number)) => ValueTest::Number(*number),
            Some(DoublePattern::Range(DoubleRange { start, end })) => ValueTest::NumberRange(*start, *end),
            None => return at.field("double_match").none("must be set"),
        },
        Some(MatchPattern::StringMatch(matcher)) => {
            ValueTest::String(string_matcher(&at.field("string_match"), matcher)?)
        }
        Some(MatchPattern::BoolMatch(wanted)) => ValueTest::Bool(*wanted),
        Some(MatchPattern::PresentMatch(present)) => ValueTest::Present(*present),
        Some(MatchPattern::ListMatch(list)) => {
            let ListMatcher { match_pattern } = &**list;
            let at = at.field("list_match");
            match match_pattern {
                Some(ListPattern::OneOf(inner)) => {
                    ValueTest::AnyOfList(Box::new(value_test(&at.field("one_of"), inner, depth + 1)?))
                }
                None => return at.none("must be set"),
            }
        }
        Some(MatchPattern::OrMatch(OrMatcher { value_matchers })) => {
            let at = at.field("or_match");
            let tests = |at: &At<'_>, inner: &v3::ValueMatcher| value_test(at, inner, depth + 1);
            ValueTest::AnyTest(at.each("value_matchers", value_matchers, tests))
        }
        None => return at.none("must be set"),
    })
}

/// A filter state matcher.
pub(crate) fn filter_state_matcher(
    at: &At<'_>,
    message: &v3::FilterStateMatcher,
) -> Option<FilterStateMatcher> {
    let v3::FilterStateMatcher { key, matcher } = message;
    at.required("key", key);
    match matcher {
        Some(FilterStatePattern::StringMatch(matcher)) => Some(FilterStateMatcher {
            key: key.as_str().into(),
            test: string_matcher(&at.field("string_match"), matcher)?,
        }),
        Some(FilterStatePattern::AddressMatch(_)) => at.field("address_match").none("not supported yet"),
        None => at.none("must be set"),
    }
}

#[cfg(test)]
mod tests {
    use meltemi_envoy::json::Codec;
    use prost_types::{ListValue, Struct};

    use super::*;
    use crate::ledger::Ledger;

    fn test(yaml: &str) -> ValueTest {
        let message = Codec::new().parse::<v3::ValueMatcher>(yaml).unwrap();
        Ledger::run("", |at| value_test(at, &message, 0)).unwrap()
    }

    fn value(kind: Kind) -> Value {
        Value { kind: Some(kind) }
    }

    #[test]
    fn a_value_is_matched_by_a_test_of_its_kind() {
        let text = value(Kind::StringValue("ab".to_owned()));
        let list =
            value(Kind::ListValue(ListValue { values: vec![text.clone(), value(Kind::NumberValue(2.0))] }));
        let matches = |yaml: &str, value: &Value| test(yaml).matches(Some(value));
        assert!(matches("string_match: {prefix: a}", &text));
        assert!(!matches("string_match: {prefix: b}", &text));
        assert!(!matches("bool_match: true", &text));
        assert!(matches("bool_match: false", &value(Kind::BoolValue(false))));
        assert!(matches("list_match: {one_of: {double_match: {range: {start: 2, end: 3}}}}", &list));
        assert!(!matches("list_match: {one_of: {double_match: {exact: 3}}}", &list));
        assert!(matches(
            "or_match: {value_matchers: [{bool_match: true}, {string_match: {exact: ab}}]}",
            &text
        ));
        assert!(matches("null_match: {}", &value(Kind::NullValue(0))));
        assert!(matches("present_match: true", &value(Kind::StructValue(Struct::default()))));
    }

    #[test]
    fn a_value_that_is_not_there_matches_nothing() {
        for yaml in
            ["null_match: {}", "string_match: {exact: ''}", "present_match: true", "present_match: false"]
        {
            assert!(!test(yaml).matches(None), "{yaml}");
        }
    }
}
