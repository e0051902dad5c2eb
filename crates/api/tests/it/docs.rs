//! `docs/diagnostics.md` is the catalogue of codes, written from it. `UPDATE_GOLDEN=1` rewrites it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use meltemi_api::codes;

use crate::golden::assert_golden;

#[test]
fn the_documentation_has_every_code() {
    let mut text = "# Diagnostics\n\nWhat Meltemi says about its input, by code. Written from the catalogue in \
        `crates/api/src/diagnostic/codes.rs`.\n\n- **error**: the object is not put in force; its last good version stays.\n\
        - **warning**: it is in force, and probably not what was meant.\n- **info**: worth knowing.\n"
        .to_owned();
    for code in codes::ALL {
        let severity = code.severity.as_str();
        write!(text, "\n## {}: {}\n\n*{severity}*. {}\n", code.id, code.title, code.explanation).unwrap();
    }
    assert_golden(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/diagnostics.md"), &text);
}

#[test]
fn every_code_is_unique_and_in_order() {
    let ids: Vec<_> = codes::ALL.iter().map(|code| code.id).collect();
    let sorted: BTreeSet<_> = ids.iter().copied().collect();
    assert_eq!(ids, sorted.into_iter().collect::<Vec<_>>());
}
