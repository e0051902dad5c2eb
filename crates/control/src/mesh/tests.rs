//! Pacing and gating of generations.

use std::time::Duration;

use meltemi_api::parse;
use meltemi_sources::files::SOURCE;

use super::*;

const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}]}}";

fn strict() -> Settings {
    Settings { is_strict: true, ..Settings::default() }
}

fn put() -> Vec<Change> {
    let (objects, diagnostics) = parse(SERVICE, &"a.yaml".into());
    assert_eq!(diagnostics, []);
    objects.into_iter().map(|object| Change::Put(Arc::new(object))).collect()
}

fn batch(changes: Vec<Change>) -> Batch {
    Batch { changes, ..Default::default() }
}

fn synced() -> Change {
    Change::Synced(SOURCE.into())
}

fn broken() -> Vec<Diagnostic> {
    let (_, diagnostics) = parse("kind: {", &"broken.yaml".into());
    assert!(diagnostics.iter().any(Diagnostic::is_error));
    diagnostics
}

fn turn(mesh: &mut Mesh, batch: Batch) -> Option<u64> {
    mesh.turn(batch, Instant::now()).generation.map(|generation| generation.number)
}

#[test]
fn there_is_no_generation_before_everything_is_there() {
    let mut mesh = Mesh::new(Settings::default());
    assert_eq!(turn(&mut mesh, batch(put())), None);
    assert_eq!(turn(&mut mesh, batch(vec![synced()])), Some(1));
    assert_eq!(turn(&mut mesh, batch(Vec::new())), None, "nothing has changed");
    let id = ObjectId::new(meltemi_api::Kind::Service, "default", "a");
    assert_eq!(turn(&mut mesh, batch(vec![Change::Delete(id)])), Some(2));
}

#[test]
fn an_empty_mesh_is_a_generation_too() {
    assert_eq!(turn(&mut Mesh::new(Settings::default()), batch(vec![synced()])), Some(1));
}

#[test]
fn strict_waits_for_the_end_of_all_errors() {
    let mut mesh = Mesh::new(strict());
    let first = Batch { changes: vec![synced()], diagnostics: broken(), ..Default::default() };
    let first = mesh.turn(first, Instant::now());
    assert!(first.generation.is_none() && first.findings.is_refused);
    assert_eq!(turn(&mut mesh, Batch { changes: put(), diagnostics: broken(), ..Default::default() }), None);
    let mended = mesh.turn(batch(Vec::new()), Instant::now());
    let generation = mended.generation.expect("no error is left");
    assert_eq!((generation.number, generation.snapshot.objects().count()), (1, 1));
    assert!(!mended.findings.is_refused);
}

#[test]
fn findings_are_shown_in_the_text_that_they_are_about() {
    let file: Arc<str> = "a.yaml".into();
    let good = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec: {host: nobody}\n";
    let bad: Arc<str> = "spec: {\n".into();
    let (objects, _) = parse(good, &file);
    let id = objects[0].id.clone();
    let mut changes: Vec<_> = objects.into_iter().map(|object| Change::Put(Arc::new(object))).collect();
    changes.push(synced());
    let batch = Batch {
        changes,
        diagnostics: parse(&bad, &file).1,
        sources: [(Arc::clone(&file), Arc::clone(&bad))].into(),
        outdated: [(id, good.into())].into(),
    };
    let findings = Mesh::new(Settings::default()).turn(batch, Instant::now()).findings;
    let codes: Vec<_> = findings.diagnostics.iter().map(|diagnostic| diagnostic.code).collect();
    assert_eq!(codes, ["MEL0101", "MEL0210"]);
    assert_eq!(findings.texts, [Some(bad), Some(good.into())]);
    let span = findings.diagnostics[1].location.as_ref().expect("a place").span;
    assert_eq!(&good[span.start..span.end], "nobody");
}

#[tokio::test(start_paused = true)]
async fn changes_that_follow_closely_are_gathered() {
    let (sender, mut batches) = mpsc::channel(4);
    let editor = task::spawn("editor", async move {
        for diagnostics in [broken(), Vec::new()] {
            let batch = Batch { changes: put(), diagnostics, ..Default::default() };
            sender.send(batch).await.expect("gathering");
            tokio::time::advance(DEBOUNCE_QUIET / 2).await;
        }
        tokio::time::advance(DEBOUNCE_QUIET).await;
        sender
    });
    let first = batches.recv().await.expect("changes");
    let (gathered, _) = gather(first, &mut batches).await;
    assert_eq!(gathered.changes.len(), 2);
    assert_eq!(gathered.diagnostics, [], "the later list counts");
    drop(editor);
}

#[tokio::test(start_paused = true)]
async fn changes_that_never_end_do_not_put_off_a_generation() {
    let (sender, mut batches) = mpsc::channel(1);
    let restless = task::spawn("restless", async move {
        loop {
            sender.send(batch(put())).await.expect("gathering");
            tokio::time::advance(DEBOUNCE_QUIET / 2).await;
        }
    });
    let began = tokio::time::Instant::now();
    let first = batches.recv().await.expect("changes");
    let (gathered, _) = gather(first, &mut batches).await;
    assert!(began.elapsed() <= DEBOUNCE_MAX + Duration::from_millis(20), "{:?}", began.elapsed());
    assert!(gathered.changes.len() > 5);
    drop(restless);
}

fn policy(mode: &str) -> Vec<Change> {
    let text = format!(
        "{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: p}}, spec: {{mtls: {{mode: {mode}}}}}}}"
    );
    let (objects, diagnostics) = parse(&text, &"p.yaml".into());
    assert_eq!(diagnostics, []);
    objects.into_iter().map(|object| Change::Put(Arc::new(object))).collect()
}

/// What workloads of the generation let in.
fn lets_in(turn: Turn) -> &'static str {
    let generation = turn.generation.expect("a generation");
    let policies = &generation.snapshot.config.peer_authentications;
    policies.let_in("default", &BTreeMap::new(), 80).as_str()
}

#[test]
fn callers_get_time_to_change_what_they_send() {
    let mut mesh = Mesh::new(strict());
    let to = |mesh: &mut Mesh, changes: Vec<Change>| lets_in(mesh.turn(batch(changes), Instant::now()));
    assert_eq!(to(&mut mesh, [policy("DISABLE"), vec![synced()]].concat()), "DISABLE", "nothing was before");
    assert_eq!(mesh.steps_at, None);
    assert_eq!(to(&mut mesh, policy("STRICT")), "PERMISSIVE");
    let due = mesh.steps_at;
    assert!(due.is_some());
    assert_eq!(to(&mut mesh, put()), "PERMISSIVE");
    assert_eq!(mesh.steps_at, due, "another change does not make it longer");
    // What is refused in the meantime does not come in by the back door.
    let refused = Batch { changes: policy("DISABLE"), diagnostics: broken(), ..Default::default() };
    assert!(mesh.turn(refused, Instant::now()).generation.is_none());
    assert_eq!(lets_in(mesh.step(Instant::now())), "PERMISSIVE", "callers hear of it");
    assert!(mesh.steps_at.is_some());
    assert_eq!(lets_in(mesh.step(Instant::now())), "STRICT");
    assert_eq!(mesh.steps_at, None);
}

/// A mesh that keeps its generations, and takes readiness from another process.
fn kept(directory: &std::path::Path, is_strict: bool) -> Mesh {
    let generations = Some(Store::open(directory, 10).expect("a directory"));
    Mesh::new(Settings { is_strict, trust: None, machine: vec!["state.yaml".into()], generations })
}

/// The ports of the services of a generation, and how many endpoints they have.
fn served(turn: Turn) -> (Vec<u32>, usize) {
    let snapshot = turn.generation.expect("a generation").snapshot;
    let services = snapshot.services.iter().flat_map(|service| service.ports.iter().map(|port| port.number));
    let entries = snapshot.objects().filter(|object| object.kind() == meltemi_api::Kind::WorkloadEntry);
    (services.map(u32::from).collect(), entries.count())
}

fn puts(text: &str, file: &str) -> Vec<Change> {
    let (objects, diagnostics) = parse(text, &file.into());
    assert_eq!(diagnostics, []);
    objects.into_iter().map(|object| Change::Put(Arc::new(object))).collect()
}

fn port(number: u16) -> Vec<Change> {
    puts(&SERVICE.replace("80", &number.to_string()), "a.yaml")
}

fn replica(name: &str) -> Vec<Change> {
    let text = format!(
        "{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: {name}}}, spec: {{address: 127.0.0.2}}}}"
    );
    puts(&text, "state.yaml")
}

/// A turn as the task does it: in force, then kept.
fn saved(mesh: &mut Mesh, batch: Batch) -> Turn {
    let turn = mesh.turn(batch, Instant::now());
    if turn.generation.is_some() {
        mesh.keep();
    }
    turn
}

#[test]
fn an_earlier_generation_is_served_until_the_files_change() {
    let scratch = tempfile::tempdir().expect("a folder");
    let mut mesh = kept(scratch.path(), false);
    assert_eq!(served(saved(&mut mesh, batch([port(80), vec![synced()]].concat()))), (vec![80], 0));
    assert_eq!(served(saved(&mut mesh, batch(port(81)))), (vec![81], 0));
    assert_eq!(served(saved(&mut mesh, batch(replica("one")))), (vec![81], 1));
    let refusal = mesh.rollback(9, Instant::now()).err().expect("refused").to_string();
    assert!(refusal.contains("kept are 1, 2"), "{refusal}");

    let back = mesh.rollback(1, Instant::now()).expect("it is kept");
    assert_eq!(back.serves, Some(1));
    assert_eq!(served(back), (vec![80], 1), "who is there now is there still");
    assert_eq!(served(saved(&mut mesh, batch(replica("two")))), (vec![80], 2), "readiness goes on");
    assert!(mesh.turn(batch(Vec::new()), Instant::now()).generation.is_none());

    // A restart goes on with it; another file ends it.
    let mut mesh = kept(scratch.path(), false);
    let all = [port(81), replica("one"), vec![synced()]].concat();
    let again = saved(&mut mesh, batch(all));
    assert_eq!(again.serves, Some(1));
    assert_eq!(served(again), (vec![80], 1));
    let changed = saved(&mut mesh, batch(port(82)));
    assert_eq!(changed.serves, None);
    assert_eq!(served(changed), (vec![82], 1));
    let mut mesh = kept(scratch.path(), false);
    assert_eq!(mesh.turn(batch([port(82), vec![synced()]].concat()), Instant::now()).serves, None);
}

#[test]
fn the_files_are_served_again_on_request() {
    let scratch = tempfile::tempdir().expect("a folder");
    let mut mesh = kept(scratch.path(), false);
    saved(&mut mesh, batch([port(80), vec![synced()]].concat()));
    saved(&mut mesh, batch(port(81)));
    assert!(mesh.resume(Instant::now()).is_err(), "they are");
    mesh.rollback(1, Instant::now()).expect("it is kept");
    assert_eq!(served(mesh.resume(Instant::now()).expect("back to the files")), (vec![81], 0));
    assert_eq!(mesh.turn(batch(Vec::new()), Instant::now()).serves, None);
}

#[test]
fn strict_holds_back_what_is_written_and_not_what_runs() {
    let scratch = tempfile::tempdir().expect("a folder");
    let mut mesh = kept(scratch.path(), true);
    saved(&mut mesh, batch([port(80), vec![synced()]].concat()));
    let refused = Batch { changes: port(81), diagnostics: broken(), ..Default::default() };
    assert!(saved(&mut mesh, refused).generation.is_none());
    let ready = Batch { changes: replica("one"), diagnostics: broken(), ..Default::default() };
    assert_eq!(served(saved(&mut mesh, ready)), (vec![80], 1));

    // A restart with the same broken files has the last good generation, with what runs now.
    let mut mesh = kept(scratch.path(), true);
    let changes = [port(81), replica("one"), replica("two"), vec![synced()]].concat();
    let start = saved(&mut mesh, Batch { changes, diagnostics: broken(), ..Default::default() });
    assert_eq!(start.serves, Some(1));
    assert_eq!(served(start), (vec![80], 2));
    let mended = saved(&mut mesh, batch(Vec::new()));
    assert_eq!(mended.serves, None);
    assert_eq!(served(mended), (vec![81], 2));
}

#[test]
fn secrets_and_programs_do_not_go_back() {
    let secret = |data: &str| {
        puts(
            &format!("{{apiVersion: v1, kind: Secret, metadata: {{name: s}}, stringData: {{k: {data}}}}}"),
            "a.yaml",
        )
    };
    let scratch = tempfile::tempdir().expect("a folder");
    let mut mesh = kept(scratch.path(), false);
    saved(&mut mesh, batch([port(80), secret("old"), vec![synced()]].concat()));
    saved(&mut mesh, batch([port(81), secret("new")].concat()));
    let back = mesh.rollback(1, Instant::now()).expect("it is kept").generation.expect("a generation");
    let id = ObjectId::new(meltemi_api::Kind::Secret, "default", "s");
    let now = secret("new");
    let Change::Put(now) = &now[0] else { panic!("a secret") };
    assert!(back.snapshot.object(&id).expect("the secret").same_content(now));
}
