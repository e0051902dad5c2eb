//! Texts with mistakes and what is said about them: `testdata/diagnostics/*.yaml` beside `*.txt`.
//! `UPDATE_GOLDEN=1` rewrites the latter.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use meltemi_api::{Diagnostic, Object, parse, render};

pub(crate) fn parse_named(text: &str, file: &str) -> (Vec<Object>, Vec<Diagnostic>) {
    parse(text, &Arc::from(file))
}

/// Compares with a file, or rewrites it.
pub(crate) fn assert_golden(path: &Path, actual: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return fs::write(path, actual).expect("the golden file is writable");
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(actual, expected, "{} differs; UPDATE_GOLDEN=1 rewrites it", path.display());
}

#[test]
fn mistakes_are_told_with_their_place() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/diagnostics");
    let mut cases = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        cases += 1;
        let text = fs::read_to_string(&path).unwrap();
        let (objects, diagnostics) = parse_named(&text, &path.file_name().unwrap().to_string_lossy());
        let mut actual = String::new();
        for diagnostic in &diagnostics {
            actual.push_str(&render(diagnostic, &text, false));
            actual.push_str("\n\n");
        }
        let sound: Vec<_> = objects.iter().map(|object| object.id.to_string()).collect();
        actual.push_str(&format!("in force: {}\n", sound.join(", ")));
        assert_golden(&path.with_extension("txt"), &actual);
    }
    assert!(cases >= 8, "only {cases} cases found");
}
