//! What the user does not want to hear: a code for an object, on the command line or in an annotation of the object.
//!
//! Source: Istio `pkg/config/analysis/local` (`AnalysisSuppression`, `galley.istio.io/analyze-suppress`).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use meltemi_api::{Diagnostic, Object, ObjectId};

/// The annotation with codes, separated by commas, that are not reported for its object; `*` for all.
const ANNOTATION: &str = "galley.istio.io/analyze-suppress";

/// A code that is not reported for some objects: `CODE=KIND NAME.NAMESPACE`, with `*` for any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppression {
    /// The code.
    pub code: String,
    /// Pattern of the objects.
    pub objects: String,
}

/// A text that is no suppression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSuppression;

impl fmt::Display for BadSuppression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write CODE=KIND NAME.NAMESPACE, such as `IST0102=Namespace shop` or `IST0109=VirtualService *.shop`")
    }
}

impl std::error::Error for BadSuppression {}

impl FromStr for Suppression {
    type Err = BadSuppression;

    fn from_str(text: &str) -> Result<Self, BadSuppression> {
        let (code, objects) = text.split_once('=').ok_or(BadSuppression)?;
        let is_fine = !code.is_empty() && !objects.is_empty() && !objects.contains('=');
        let suppression = Self { code: code.to_owned(), objects: objects.to_owned() };
        is_fine.then_some(suppression).ok_or(BadSuppression)
    }
}

impl Suppression {
    fn silences(&self, code: &str, object: &ObjectId) -> bool {
        let named = match object.namespace.is_empty() {
            true => format!("{} {}", object.kind, object.name),
            false => format!("{} {}.{}", object.kind, object.name, object.namespace),
        };
        self.code == code && matches(&self.objects, &named)
    }
}

/// Leaves out what is not to be reported. Findings about no object are always reported.
pub fn suppressed<'a>(
    findings: Vec<Diagnostic>,
    suppressions: &[Suppression],
    objects: impl Iterator<Item = &'a Object>,
) -> Vec<Diagnostic> {
    let annotated: BTreeMap<&ObjectId, &str> = objects
        .filter_map(|object| Some((&object.id, object.meta.annotations.get(ANNOTATION)?.as_str())))
        .collect();
    let is_silenced = |finding: &Diagnostic| {
        let Some(object) = &finding.object else { return false };
        let by_annotation = annotated.get(object).is_some_and(|codes| {
            codes.split(',').map(str::trim).any(|code| code == "*" || code == finding.code)
        });
        by_annotation || suppressions.iter().any(|suppression| suppression.silences(finding.code, object))
    };
    findings.into_iter().filter(|finding| !is_silenced(finding)).collect()
}

/// Whether a text is one that a pattern stands for; `*` is any number of characters.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, expected) in [
            ("Pod a.b", "Pod a.b", true),
            ("Pod a.b", "Pod a.bc", false),
            ("Pod *.b", "Pod a.b", true),
            ("*", "Pod a.b", true),
            ("Pod *a*.b", "Pod xay.b", true),
            ("Pod a*a", "Pod a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_suppression_is_a_code_and_a_pattern() {
        let read = "IST0102=Namespace shop".parse::<Suppression>();
        assert_eq!(read.map(|suppression| suppression.objects), Ok("Namespace shop".to_owned()));
        assert_eq!("IST0102".parse::<Suppression>(), Err(BadSuppression));
        assert_eq!("A=B=C".parse::<Suppression>(), Err(BadSuppression));
    }
}
