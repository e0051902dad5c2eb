//! The same bootstrap and the same calls through Envoy and through our proxy give the same answers.

use std::path::PathBuf;

use futures::StreamExt;
use meltemi_e2e::differential::{Case, Observed, Proxy};
use meltemi_e2e::peers;
use serde::Serialize;

/// Proxies that run at the same time.
const AT_ONCE: usize = 4;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/differential")
}

/// `DIFFERENTIAL_CASE=name` narrows a run to the cases whose name holds it.
fn cases() -> Vec<Case> {
    let only = std::env::var("DIFFERENTIAL_CASE").unwrap_or_default();
    let all = Case::all(&root()).expect("the cases are readable");
    all.into_iter().filter(|case| case.dir.to_string_lossy().contains(&only)).collect()
}

fn name(case: &Case) -> String {
    case.dir.file_name().expect("a case has a folder").to_string_lossy().into_owned()
}

/// Runs every case, a few at a time, and gives them back by name.
async fn run_all(proxy: &Proxy) -> Vec<(Case, anyhow::Result<Observed>)> {
    let runs = cases().into_iter().map(async |case| {
        let observed = case.run(proxy).await;
        (case, observed)
    });
    let mut done: Vec<_> = futures::stream::iter(runs).buffer_unordered(AT_ONCE).collect().await;
    done.sort_by_key(|(case, _)| case.dir.clone());
    done
}

/// How often a case is run on Envoy, by itself, before a difference counts: what Envoy does was recorded, so one that does
/// not come again is the machine's, not Envoy's. Ours has no second chance.
const RUNS_ON_ENVOY: usize = 3;

/// Every difference is worth seeing, so all cases run before the test fails.
async fn differences(proxy: &Proxy) -> Vec<String> {
    let mut found = Vec::new();
    for (case, observed) in run_all(proxy).await {
        let mut differences = differences_of(proxy, &case, observed);
        if matches!(proxy, Proxy::Envoy(_)) {
            for _ in 1..RUNS_ON_ENVOY {
                if differences.is_empty() {
                    break;
                }
                println!("once, and run again:\n{}", differences.join("\n"));
                differences = differences_of(proxy, &case, case.run(proxy).await);
            }
        }
        found.extend(differences);
    }
    found
}

fn differences_of(proxy: &Proxy, case: &Case, observed: anyhow::Result<Observed>) -> Vec<String> {
    let expected = match proxy {
        Proxy::Envoy(_) => case.expected(),
        Proxy::Meltemi(_) => case.expected_of_ours(),
    };
    match (expected, observed) {
        (Ok(expected), Ok(observed)) => compare(case, &expected, &observed),
        (Err(error), _) | (_, Err(error)) => vec![format!("{}: {error:#}", name(case))],
    }
}

fn compare(case: &Case, expected: &Observed, observed: &Observed) -> Vec<String> {
    let mut found = Vec::new();
    let calls = case.calls.calls.iter();
    // A call that differs on purpose, and has no answer of ours instead, is only made.
    let is_compared: Vec<bool> =
        calls.map(|call| call.differs.as_ref().is_none_or(|differs| differs.instead.is_some())).collect();
    let case = name(case);
    if expected.calls.len() != is_compared.len() {
        found.push(format!("{case}: the calls are not those of the recording"));
    }
    for ((want, got), is_compared) in expected.calls.iter().zip(&observed.calls).zip(is_compared) {
        if is_compared && want != got {
            found.push(format!("{case}: {}\n{}", want.name, difference(want, got)));
        }
    }
    if expected.log != observed.log {
        found.push(format!("{case}: access log\n{}", difference(&expected.log, &observed.log)));
    }
    found
}

/// The lines of the YAML forms that only one side has.
fn difference<T: Serialize>(want: &T, got: &T) -> String {
    let lines = |value: &T| -> Vec<String> {
        let yaml = serde_saphyr::to_string(value).expect("an observation is plain data");
        yaml.lines().map(str::to_owned).collect()
    };
    let (want, got) = (lines(want), lines(got));
    let only_envoy = want.iter().filter(|line| !got.contains(line)).map(|line| format!("  envoy: {line}\n"));
    let only_here = got.iter().filter(|line| !want.contains(line)).map(|line| format!("  got:   {line}\n"));
    only_envoy.chain(only_here).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn differential_meltemi_answers_as_envoy() {
    if std::env::var("DIFFERENTIAL").is_ok_and(|v| v == "record") {
        return record().await;
    }
    let all = cases();
    assert!(!all.is_empty(), "there are cases");
    let found = differences(&Proxy::Meltemi(peers::meltemi())).await;
    assert!(found.is_empty(), "{} differences from Envoy:\n{}", found.len(), found.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn differential_envoy_still_answers_as_recorded() {
    let Some(envoy) = peers::envoy() else { return };
    if std::env::var("DIFFERENTIAL").is_ok_and(|v| v == "record") {
        return;
    }
    let found = differences(&Proxy::Envoy(envoy)).await;
    assert!(found.is_empty(), "Envoy differs from its recording:\n{}", found.join("\n"));
}

/// Cases that Envoy cannot run are all named at once; the others are recorded.
async fn record() {
    let envoy = peers::envoy().expect("recording needs Envoy");
    let mut failed = Vec::new();
    for (case, observed) in run_all(&Proxy::Envoy(envoy)).await {
        match observed {
            Ok(observed) => case.record(&observed).expect("the recording is written"),
            Err(error) => failed.push(format!("{}: {error:#}", name(&case))),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
