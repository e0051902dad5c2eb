//! Pacing and gating of generations.

use std::time::Duration;

use meltemi_api::parse;
use meltemi_sources::files::SOURCE;

use super::*;

const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}]}}";

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
    let mut mesh = Mesh::new(false, None);
    assert_eq!(turn(&mut mesh, batch(put())), None);
    assert_eq!(turn(&mut mesh, batch(vec![synced()])), Some(1));
    assert_eq!(turn(&mut mesh, batch(Vec::new())), None, "nothing has changed");
    let id = ObjectId::new(meltemi_api::Kind::Service, "default", "a");
    assert_eq!(turn(&mut mesh, batch(vec![Change::Delete(id)])), Some(2));
}

#[test]
fn an_empty_mesh_is_a_generation_too() {
    assert_eq!(turn(&mut Mesh::new(false, None), batch(vec![synced()])), Some(1));
}

#[test]
fn strict_waits_for_the_end_of_all_errors() {
    let mut mesh = Mesh::new(true, None);
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
    let findings = Mesh::new(false, None).turn(batch, Instant::now()).findings;
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
    let mut mesh = Mesh::new(true, None);
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
