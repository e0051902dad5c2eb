//! `x-forwarded-client-cert`, as far as naming a caller needs it. Source: "x-forwarded-client-cert" of Envoy's header
//! documentation: elements are joined by commas, their pairs by semicolons, both may stand in quotes.

/// The URI of the last element: the one that the proxy nearest to us has added. Earlier ones are what it was told.
pub(super) fn nearest_uri(header: &str) -> Option<&str> {
    let element = split(header, b',').last()?;
    let uri = split(element, b';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case("URI").then(|| value.trim().trim_matches('"'))
    });
    uri.filter(|uri| !uri.is_empty())
}

/// Parts between separators outside of quotes.
fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |c: char| {
        let was_escaped = is_escaped;
        is_escaped = c == '\\' && !was_escaped;
        if c == '"' && !was_escaped {
            is_quoted = !is_quoted;
        }
        !is_quoted && c == separator as char
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_element_counts() {
        for (header, uri) in [
            ("URI=spiffe://td/a", Some("spiffe://td/a")),
            ("By=x;Hash=1;Subject=\"CN=a,O=b;c\";URI=spiffe://td/a", Some("spiffe://td/a")),
            ("URI=spiffe://td/forged,By=x;uri=\"spiffe://td/a\"", Some("spiffe://td/a")),
            ("URI=spiffe://td/a,Hash=1", None),
            ("Subject=\"x\\\",URI=spiffe://td/forged\"", None),
            ("URI=", None),
            ("", None),
        ] {
            assert_eq!(nearest_uri(header), uri, "{header}");
        }
    }
}
