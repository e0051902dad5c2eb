use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use meltemi_api::Severity;
use tempfile::TempDir;
use tokio::sync::mpsc::Receiver;

use super::*;

/// A service of this name with this port.
fn service(name: &str, port: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n---\n"
    )
}

/// Changes in a line each: `+Service default/a`, `-Service default/a`, `synced`.
fn told(batch: &Batch) -> Vec<String> {
    let line = |change: &Change| match change {
        Change::Put(object) => format!("+{}", object.id),
        Change::Delete(id) => format!("-{id}"),
        Change::Synced(_) => "synced".to_owned(),
        Change::Lost(..) => "lost".to_owned(),
    };
    batch.changes.iter().map(line).collect()
}

fn codes_of(batch: &Batch) -> Vec<&'static str> {
    batch.diagnostics.iter().map(|diagnostic| diagnostic.code).collect()
}

/// A watched directory with one file in it, `a.yaml`, of two services, `a` and `b`.
struct Watched {
    directory: TempDir,
    batches: Receiver<Batch>,
    _watch: Watch,
}

impl Watched {
    fn start() -> Self {
        let directory = TempDir::new().unwrap();
        write(directory.path(), "a.yaml", &(service("a", "80") + &service("b", "80")));
        let (batches, watch) = watch(vec![directory.path().to_owned()]).unwrap();
        let mut watched = Self { directory, batches, _watch: watch };
        let first = watched.next();
        assert_eq!(told(&first), ["+Service default/a", "+Service default/b", "synced"]);
        watched
    }

    fn write(&self, name: &str, text: &str) {
        write(self.directory.path(), name, text);
    }

    /// The next batch, or a panic when none comes.
    fn next(&mut self) -> Batch {
        next(&mut self.batches)
    }
}

fn next(batches: &mut Receiver<Batch>) -> Batch {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let received =
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), batches.recv()).await });
    received.expect("no batch within 10 s").expect("the feed is closed")
}

fn write(directory: &Path, name: &str, text: &str) {
    fs::write(directory.join(name), text).unwrap();
}

#[test]
fn an_edit_is_told_alone() {
    let mut watched = Watched::start();
    watched.write("a.yaml", &(service("a", "80") + &service("b", "81")));
    let batch = watched.next();
    assert_eq!(told(&batch), ["+Service default/b"]);
    assert!(batch.diagnostics.is_empty());
}

#[test]
fn a_file_that_is_renamed_over_another_is_read() {
    let mut watched = Watched::start();
    watched.write(".a.yaml.swp", &(service("a", "81") + &service("b", "80")));
    let from = watched.directory.path().join(".a.yaml.swp");
    fs::rename(from, watched.directory.path().join("a.yaml")).unwrap();
    assert_eq!(told(&watched.next()), ["+Service default/a"]);
}

#[test]
fn a_broken_object_keeps_its_last_good_version_and_the_others_go_on() {
    let mut watched = Watched::start();
    watched.write("a.yaml", &(service("a", "81") + &service("b", "0")));
    let broken = watched.next();
    assert_eq!(told(&broken), ["+Service default/a"]);
    assert_eq!(codes_of(&broken), ["MEL0109"]);
    assert!(broken.sources.values().all(|text| text.contains("port: 0")));

    watched.write("a.yaml", &(service("a", "81") + &service("b", "82")));
    let fixed = watched.next();
    assert_eq!(told(&fixed), ["+Service default/b"]);
    assert!(fixed.diagnostics.is_empty());
}

#[test]
fn a_file_with_a_syntax_error_keeps_everything() {
    let mut watched = Watched::start();
    watched.write("a.yaml", "kind: [\n");
    let broken = watched.next();
    assert_eq!((told(&broken), codes_of(&broken)), (vec![], vec!["MEL0101"]));

    watched.write("a.yaml", &service("a", "80"));
    let fixed = watched.next();
    assert_eq!(told(&fixed)[0], "-Service default/b");
}

#[test]
fn the_text_of_a_version_in_force_outlives_its_file() {
    let mut watched = Watched::start();
    let first = service("a", "80") + &service("b", "80");
    watched.write("a.yaml", "kind: [\n");
    let broken = watched.next();
    let outdated: Vec<_> = broken.outdated.iter().map(|(id, text)| (&*id.name, &**text)).collect();
    assert_eq!(outdated, [("a", first.as_str()), ("b", first.as_str())]);

    let half = service("a", "99999") + &service("b", "81");
    watched.write("a.yaml", &half);
    let mended = watched.next();
    let outdated: Vec<_> = mended.outdated.iter().map(|(id, text)| (&*id.name, &**text)).collect();
    assert_eq!(outdated, [("a", first.as_str())], "b is what the file says");
}

#[test]
fn a_document_and_a_file_can_go() {
    let mut watched = Watched::start();
    watched.write("a.yaml", &service("a", "80"));
    assert_eq!(told(&watched.next())[0], "-Service default/b");
    fs::remove_file(watched.directory.path().join("a.yaml")).unwrap();
    assert_eq!(told(&watched.next()), ["-Service default/a"]);
}

#[test]
fn new_directories_are_watched() {
    let mut watched = Watched::start();
    fs::create_dir(watched.directory.path().join("more")).unwrap();
    watched.write("more/c.yml", &service("c", "80"));
    watched.write("more/ignored.txt", "kind: [");
    assert_eq!(told(&watched.next()), ["+Service default/c"]);
    watched.write("more/c.yml", &service("d", "80"));
    assert_eq!(told(&watched.next()), ["-Service default/c", "+Service default/d"]);
}

#[test]
fn a_swapped_volume_is_read() {
    let directory = TempDir::new().unwrap();
    let root = directory.path();
    for (revision, port) in [("..1", "80"), ("..2", "81")] {
        fs::create_dir(root.join(revision)).unwrap();
        write(root, &format!("{revision}/a.yaml"), &service("a", port));
    }
    symlink("..1", root.join("..data")).unwrap();
    symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
    let (mut batches, _watch) = watch(vec![root.to_owned()]).unwrap();
    assert_eq!(told(&next(&mut batches)), ["+Service default/a", "synced"]);
    symlink("..2", root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    assert_eq!(told(&next(&mut batches)), ["+Service default/a"]);
}

#[test]
fn a_file_may_appear_later_and_its_neighbours_do_not_matter() {
    let directory = TempDir::new().unwrap();
    let (mut batches, _watch) = watch(vec![directory.path().join("state.yaml")]).unwrap();
    assert_eq!(told(&next(&mut batches)), ["synced"]);
    write(directory.path(), "other.yaml", &service("x", "80"));
    write(directory.path(), "state.yaml", &service("a", "80"));
    assert_eq!(told(&next(&mut batches)), ["+Service default/a"]);
}

#[test]
fn a_directory_that_goes_takes_nothing_with_it() {
    let mut watched = Watched::start();
    let (here, away) = (watched.directory.path().to_owned(), watched.directory.path().with_extension("away"));
    fs::rename(&here, &away).unwrap();
    assert_eq!(told(&watched.next()), ["lost"]);
    write(&away, "a.yaml", &service("a", "80"));
    fs::rename(&away, &here).unwrap();
    assert_eq!(told(&watched.next()), ["-Service default/b", "synced"]);
    watched.write("a.yaml", &service("a", "81"));
    assert_eq!(told(&watched.next()), ["+Service default/a"]);
}

#[test]
fn of_two_definitions_the_first_file_counts() {
    let mut watched = Watched::start();
    watched.write("b.yaml", &service("a", "99"));
    let both = watched.next();
    assert_eq!((told(&both), codes_of(&both)), (vec![], vec!["MEL0201"]));
    assert_eq!(both.diagnostics[0].severity, Severity::Error);

    fs::remove_file(watched.directory.path().join("a.yaml")).unwrap();
    let alone = watched.next();
    assert_eq!(told(&alone), ["-Service default/b", "+Service default/a"]);
    assert!(alone.diagnostics.is_empty());
}

#[test]
fn twice_in_one_file_is_once_too_often() {
    let directory = TempDir::new().unwrap();
    write(directory.path(), "a.yaml", &(service("a", "80") + &service("a", "81")));
    let batch = load(&[directory.path().to_owned()]).unwrap();
    assert_eq!(codes_of(&batch), ["MEL0201"]);
    assert_eq!(told(&batch), ["+Service default/a", "synced"]);
}

#[test]
fn what_cannot_be_read_is_told() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("a.yaml"), [0xff, 0xfe]).unwrap();
    let batch = load(&[directory.path().to_owned()]).unwrap();
    assert_eq!(codes_of(&batch), ["MEL0120"]);
    assert!(load(&[directory.path().join("missing")]).is_err());
}

#[test]
fn dropping_the_watch_closes_the_feed() {
    let Watched { directory: _directory, mut batches, _watch: watch } = Watched::start();
    drop(watch);
    assert!(batches.blocking_recv().is_none());
}
