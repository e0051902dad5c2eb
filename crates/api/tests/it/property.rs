//! No text makes the parser panic, loop, or point outside of it.

use meltemi_api::{Diagnostic, render};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::golden::parse_named;

/// Pieces that YAML and our kinds are made of, so that random texts get past the scanner.
const PIECES: &[&str] = &[
    "apiVersion: networking.istio.io/v1\n",
    "kind: VirtualService\n",
    "metadata: {name: a}\n",
    "spec:\n",
    "  hosts: [a]\n",
    "  http:\n",
    "  - route:\n",
    "    - destination: {host: b}\n",
    "---\n",
    "- ",
    "  ",
    "\t",
    "\n",
    "\r\n",
    ": ",
    "{",
    "}",
    "[",
    "]",
    ",",
    "&a ",
    "*a",
    "<<: *a\n",
    "!!str ",
    "!x ",
    "|\n",
    ">-\n",
    "\"",
    "'",
    "# c\n",
    "? ",
    "...\n",
    "%YAML 1.2\n",
    "é",
    "\u{feff}",
    "\u{2028}",
    "0x",
    "1e999",
    ".nan",
    "null",
];

const SOUND: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: réviews, labels: {a: b}}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /é}, headers: {x-user: {exact: jason}}}]
    timeout: 1.5s
    route:
    - destination: {host: reviews, subset: v1}
      weight: 90
    - destination: {host: reviews, subset: v2}
      weight: 10
";

fn holds(text: &str) {
    let (objects, diagnostics) = parse_named(text, "f.yaml");
    for diagnostic in &diagnostics {
        if let Some(location) = &diagnostic.location {
            assert!(location.span.start <= location.span.end && location.span.end <= text.len());
            assert!(text.is_char_boundary(location.span.start));
        }
        let rendered = render(diagnostic, text, false);
        assert!(rendered.contains(diagnostic.code));
    }
    for object in &objects {
        assert!(
            !diagnostics.iter().any(|d: &Diagnostic| d.is_error() && d.object.as_ref() == Some(&object.id))
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text(text in any::<String>()) {
        holds(&text);
    }

    #[test]
    fn pieces_of_yaml(pieces in vec(proptest::sample::select(PIECES), 0..40)) {
        holds(&pieces.concat());
    }

    #[test]
    fn a_sound_text_with_mutations(cuts in vec((any::<prop::sample::Index>(), 0usize..12, proptest::sample::select(PIECES)), 1..4)) {
        let mut text: Vec<char> = SOUND.chars().collect();
        for (at, length, piece) in cuts {
            let at = at.index(text.len() + 1);
            let end = (at + length).min(text.len());
            text.splice(at..end, piece.chars());
        }
        holds(&text.into_iter().collect::<String>());
    }
}

#[test]
fn bombs_are_refused() {
    let deep = "[".repeat(100_000);
    let aliases: String = std::iter::once("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned())
        .chain((1..12).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(","))))
        .collect();
    let myself = "a: &a [*a]\n".to_owned();
    let broken = "[\n---\n".repeat(100_000);
    let keys: String = (0..100_000).map(|n| format!("k{n}: 1\n")).collect();
    let nested = ["- ", "? ", "a: ", "{", "!!str ", "*a ", "&a "].map(|piece| piece.repeat(100_000));
    for text in [deep, aliases, myself, broken, keys].into_iter().chain(nested) {
        let (objects, diagnostics) = parse_named(&text, "bomb.yaml");
        assert!(objects.is_empty());
        assert!(diagnostics.iter().any(Diagnostic::is_error));
    }
}
