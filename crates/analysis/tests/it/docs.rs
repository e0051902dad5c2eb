//! `docs/analyze.md` ends with the catalogue of Istio's codes, written from it. `UPDATE_GOLDEN=1` rewrites that part.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use meltemi_analysis::{CATALOGUE, State};

/// Begins the part that is written from the catalogue.
const MARK: &str = "## Istio's codes\n";

/// Codes that Istio has.
const CODES: usize = 68;

fn table() -> String {
    let reported = CATALOGUE.iter().filter(|entry| entry.state == State::Reported).count();
    let mut text = format!(
        "{MARK}\nWritten from `crates/analysis/src/catalogue.rs`. Of Istio's {CODES} codes {reported} are reported, and \
         {} have no meaning here.\n\n| code | name | level | what it says | here |\n|---|---|---|---|---|\n",
        CODES - reported
    );
    for entry in CATALOGUE {
        let code = entry.code;
        let here = match entry.state {
            State::Reported => "reported".to_owned(),
            State::NoMeaning(reason) => format!("no: {reason}"),
        };
        let level = code.severity.as_str();
        writeln!(text, "| {} | {} | {level} | {} | {here} |", code.id, code.title, code.explanation)
            .expect("text");
    }
    text
}

#[test]
fn the_documentation_has_every_code_of_istio() {
    assert_eq!(CATALOGUE.len(), CODES);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/analyze.md");
    let page = fs::read_to_string(&path).expect("the page is there");
    let (by_hand, written) = page.split_once(MARK).expect("the page has the heading");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return fs::write(&path, format!("{by_hand}{}", table())).expect("the page is writable");
    }
    assert!(format!("{MARK}{written}") == table(), "docs/analyze.md is stale: UPDATE_GOLDEN=1 rewrites it");
}
