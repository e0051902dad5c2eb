//! Files in, generations out.

use std::time::Duration;

use super::*;

fn objects(text: &str) -> Vec<Arc<Object>> {
    let (objects, diagnostics) = parse(text, &"a.yaml".into());
    assert_eq!(diagnostics, []);
    objects.into_iter().map(Arc::new).collect()
}

fn service(port: u16) -> Vec<Arc<Object>> {
    objects(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: a}}, spec: {{ports: [{{port: {port}}}]}}}}"
    ))
}

fn secret(data: &str) -> Vec<Arc<Object>> {
    objects(&format!("{{apiVersion: v1, kind: Secret, metadata: {{name: s}}, stringData: {{key: {data}}}}}"))
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn numbers(store: &Store) -> Vec<u64> {
    store.records().map(|record| record.generation).collect()
}

#[test]
fn generations_are_kept_over_a_restart_with_time_and_change() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("generations");
    let mut store = Store::open(&directory, 10).unwrap();
    store.save(1, &service(80), now()).unwrap();
    store.save(2, &service(80), now()).unwrap();
    assert_eq!(numbers(&store), [1], "it says the same");
    store.save(4, &service(81), now()).unwrap();
    let store = Store::open(&directory, 10).unwrap();
    assert_eq!(numbers(&store), [1, 4]);
    let last = store.last().unwrap();
    assert_eq!(
        (last.time.as_str(), &last.change.changed[..]),
        ("2023-11-14T22:13:20Z", &["Service default/a".into()][..])
    );
    let kept = store.load(1).unwrap();
    assert!(kept.objects[0].same_content(&service(80)[0]));
    assert!(store.load(3).unwrap_err().to_string().contains("kept are 1, 4"));
}

#[test]
fn nobody_else_reads_them_and_secrets_are_not_in_them() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("generations");
    let mut store = Store::open(&directory, 10).unwrap();
    store.save(1, &[service(80), secret("hunter2")].concat(), now()).unwrap();
    store.save(2, &[service(80), secret("hunter3")].concat(), now()).unwrap();
    assert_eq!(store.last().unwrap().change.changed, ["Secret default/s"], "that it has changed is told");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{path:?}");
        assert!(!fs::read_to_string(&path).unwrap().contains("hunter"), "{path:?}");
    }
    assert_eq!(store.load(1).unwrap().objects.len(), 1);
}

#[test]
fn the_oldest_are_let_go() {
    let scratch = tempfile::tempdir().unwrap();
    let mut store = Store::open(scratch.path(), 2).unwrap();
    for number in 1..=5u16 {
        store.save(number.into(), &service(number), now()).unwrap();
    }
    assert_eq!(numbers(&store), [4, 5]);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 4);
    let mut none = Store::open(scratch.path(), 0).unwrap();
    none.save(9, &service(9), now()).unwrap();
    assert_eq!(numbers(&none), [4, 5], "nothing is kept, nothing is thrown away");
}

#[test]
fn a_file_that_was_cut_off_is_not_served() {
    let scratch = tempfile::tempdir().unwrap();
    let mut store = Store::open(scratch.path(), 2).unwrap();
    store.save(1, &service(80), now()).unwrap();
    fs::write(scratch.path().join("1.yaml"), "---\n").unwrap();
    assert!(store.load(1).unwrap_err().to_string().contains("not as it was written"));
    fs::write(scratch.path().join("1.json"), "{").unwrap();
    assert!(numbers(&Store::open(scratch.path(), 2).unwrap()).is_empty());
}

#[test]
fn what_is_served_is_remembered_until_the_files_change() {
    let scratch = tempfile::tempdir().unwrap();
    let store = Store::open(scratch.path(), 2).unwrap();
    assert_eq!(store.marked(&service(80)), None);
    store.mark(7, &service(80)).unwrap();
    assert_eq!((store.marked(&service(80)), store.marked(&service(81))), (Some(7), None));
    store.unmark();
    assert_eq!(store.marked(&service(80)), None);
}
