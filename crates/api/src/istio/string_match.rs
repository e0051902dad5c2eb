//! `StringMatch`: how a string is compared. Source: Istio `networking.StringMatch` (a oneof).

use serde_json::{Value as Json, json};

use crate::codes;
use crate::decode::{Decoder, Field, Leaf, Wire};
use crate::node::Node;
use crate::syntax;

/// How a string is compared. Case-sensitive unless the place of use says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum StringMatch {
    /// Anything, as long as it is there: `{}`.
    #[default]
    Present,
    /// The whole string, exactly.
    Exact(String),
    /// The start of the string.
    Prefix(String),
    /// RE2 regular expression that must match the whole string, or `*` where that stands for any.
    Regex(String),
}

const FIELDS: [Field; 3] = [
    Field { key: "exact", required: false, leaf: None },
    Field { key: "prefix", required: false, leaf: None },
    Field { key: "regex", required: false, leaf: Some(syntax::regex_or_any) },
];

impl Wire for StringMatch {
    const EXPECTED: &'static str = "one of `exact`, `prefix` or `regex`";

    fn decode(node: &Node, decoder: &mut Decoder, _: Option<Leaf>) -> Option<Self> {
        let entries = decoder.mapping(node, Self::EXPECTED)?;
        let [exact, prefix, regex]: [Option<String>; 3] =
            FIELDS.each_ref().map(|field| decoder.field(node, entries, field));
        decoder.surplus(entries, &["exact", "prefix", "regex"], &[], &[]);
        let set = [&exact, &prefix, &regex].into_iter().flatten().count();
        if set > 1 {
            let message = "only one of `exact`, `prefix` and `regex` may be set".to_owned();
            decoder.report(node, &codes::CONFLICTING_FIELDS, message, String::new());
        }
        let choices = [exact.map(Self::Exact), prefix.map(Self::Prefix), regex.map(Self::Regex)];
        Some(choices.into_iter().flatten().next().unwrap_or_default())
    }

    fn encode(&self) -> Option<Json> {
        Some(match self {
            Self::Present => json!({}),
            Self::Exact(text) => json!({ "exact": text }),
            Self::Prefix(text) => json!({ "prefix": text }),
            Self::Regex(text) => json!({ "regex": text }),
        })
    }
}
