//! How names of fields are spelled on the wire.
//!
//! Inside, names are lower case. With [`KeyFormat::Preserve`] a received head keeps the spelling of its peer, in one
//! allocation, for whoever sends it on. Source: Envoy's `HeaderKeyFormatter` and its preserve_case extension.

use bytes::{Bytes, BytesMut};
use http::HeaderName;

use super::KeyFormat;

/// The spelling of a received head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spelling {
    /// Names as they came; the first of several spellings of one name counts.
    names: Vec<Bytes>,
    /// The reason phrase, where it is passed on.
    pub(crate) reason: Option<Bytes>,
    proper_case_ours: bool,
}

impl Spelling {
    /// For a head received under `format`; `None` when it keeps none.
    pub(crate) fn for_format(format: KeyFormat) -> Option<Box<Spelling>> {
        match format {
            KeyFormat::Lower | KeyFormat::ProperCase => None,
            KeyFormat::Preserve { proper_case_ours, .. } => {
                Some(Box::new(Spelling { proper_case_ours, ..Spelling::default() }))
            }
        }
    }

    pub(crate) fn note(&mut self, name: Bytes) {
        self.names.push(name);
    }
}

/// Appends a name as the message's spelling has it, or else as the format says.
pub(crate) fn put_name(out: &mut BytesMut, name: &str, spelling: Option<&Spelling>, format: KeyFormat) {
    let known = spelling
        .and_then(|spelling| spelling.names.iter().find(|known| known.eq_ignore_ascii_case(name.as_bytes())));
    match (known, spelling) {
        (Some(known), _) => out.extend_from_slice(known),
        (None, Some(spelling)) if spelling.proper_case_ours => put_proper_case(out, name),
        (None, None) if format == KeyFormat::ProperCase => put_proper_case(out, name),
        (None, _) => out.extend_from_slice(name.as_bytes()),
    }
}

/// Appends a name of a field.
pub(crate) fn put_header_name(
    out: &mut BytesMut,
    name: &HeaderName,
    spelling: Option<&Spelling>,
    format: KeyFormat,
) {
    if spelling.is_none() && format != KeyFormat::ProperCase {
        return out.extend_from_slice(name.as_str().as_bytes());
    }
    put_name(out, name.as_str(), spelling, format);
}

/// A capital at the start and after everything that is neither letter nor digit.
fn put_proper_case(out: &mut BytesMut, name: &str) {
    let mut starts = true;
    for byte in name.bytes() {
        out.extend_from_slice(&[if starts { byte.to_ascii_uppercase() } else { byte }]);
        starts = !byte.is_ascii_alphanumeric();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(name: &str, spelling: Option<&Spelling>, format: KeyFormat) -> String {
        let mut out = BytesMut::new();
        put_name(&mut out, name, spelling, format);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn names_follow_the_peer_then_the_format() {
        assert_eq!(put("x-abc", None, KeyFormat::Lower), "x-abc");
        assert_eq!(put("my-bar_baz", None, KeyFormat::ProperCase), "My-Bar_Baz");
        assert_eq!(put("my.header$x", None, KeyFormat::ProperCase), "My.Header$X");
        let format = KeyFormat::Preserve { reason_phrase: false, proper_case_ours: true };
        let mut spelling = Spelling::for_format(format).unwrap();
        spelling.note(Bytes::from_static(b"X-aBc"));
        spelling.note(Bytes::from_static(b"x-ABC"));
        assert_eq!(put("x-abc", Some(&spelling), KeyFormat::Lower), "X-aBc");
        assert_eq!(put("x-other", Some(&spelling), KeyFormat::Lower), "X-Other");
    }
}
