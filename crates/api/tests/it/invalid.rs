//! Objects with one mistake each: `testdata/invalid/*.yaml`, one document per object. What is said of it stands at the
//! end of the line that it is said of: `  weight: -1 #! MEL0109 spec.http[0].route[0].weight`. Nothing else may be said.
//! `UPDATE_GOLDEN=1` rewrites these notes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use meltemi_api::{Diagnostic, codes};

use crate::golden::parse_named;

/// Begins a note.
const NOTE: &str = " #! ";

/// Invalid objects that there have to be.
const OBJECTS: usize = 150;

fn files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/invalid");
    let entries = fs::read_dir(directory).expect("the corpus is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

/// What a note says, of its line.
fn said(diagnostic: &Diagnostic) -> String {
    format!("{} {}", diagnostic.code, diagnostic.field).trim_end().to_owned()
}

/// The text with what is said of each line at its end.
fn noted(text: &str) -> String {
    let plain: Vec<&str> = text.lines().map(|line| line.split(NOTE).next().unwrap_or_default()).collect();
    let plain: String = plain.iter().map(|line| format!("{line}\n")).collect();
    let (_, diagnostics) = parse_named(&plain, "invalid.yaml");
    let mut notes: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for diagnostic in diagnostics.iter().filter(|diagnostic| diagnostic.code != codes::NOT_IN_FORCE.id) {
        let line = diagnostic.location.as_ref().expect("a place").span.line as usize;
        notes.entry(line).or_default().push(said(diagnostic));
    }
    let mut noted = String::new();
    for (index, line) in plain.lines().enumerate() {
        noted.push_str(line);
        for note in notes.get(&(index + 1)).into_iter().flatten() {
            noted.push_str(NOTE);
            noted.push_str(note);
        }
        noted.push('\n');
    }
    noted
}

#[test]
fn every_invalid_object_is_told_by_code_line_and_field() {
    let mut objects = 0;
    let mut sound = Vec::new();
    for path in files() {
        let text = fs::read_to_string(&path).expect("the corpus is text");
        let actual = noted(&text);
        for document in actual.split("\n---\n") {
            if !document.contains(NOTE) {
                sound.push(format!("{}:\n{document}", path.display()));
            }
            objects += 1;
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &actual).expect("the corpus is writable");
            continue;
        }
        for (line, (expected, found)) in text.lines().zip(actual.lines()).enumerate() {
            assert_eq!(found, expected, "{}:{}", path.display(), line + 1);
        }
    }
    assert!(sound.is_empty(), "nothing is said of {}", sound.join("\n"));
    assert!(objects >= OBJECTS, "only {objects} objects");
}
