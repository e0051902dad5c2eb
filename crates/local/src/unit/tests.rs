//! Supervision of real, small processes.

use std::path::Path;

use tokio::time::timeout;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

struct Bench {
    shared: Shared,
    notices: mpsc::Receiver<(String, Notice)>,
    scratch: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let (sender, notices) = mpsc::channel(64);
        let scratch = tempfile::tempdir().unwrap();
        let credentials = Arc::new(Credentials::start(&scratch.path().join("key")).unwrap());
        let registrar = Registrar::to_nobody();
        let shared = Shared { mesh: mark::fresh(), registrar, notices: sender, credentials };
        Bench { shared, notices, scratch }
    }

    fn launch(&self, script: &str) -> Launch {
        Launch {
            command: ["sh", "-c", script].map(str::to_owned).into(),
            environment: [("GREETING".to_owned(), "hello".to_owned())].into(),
            directory: self.scratch.path().to_owned(),
            log: self.scratch.path().join("app.log"),
            identity: None,
            returns_lines: true,
        }
    }

    fn start(&self, script: &str) -> Unit {
        Unit::start("a-0/app".to_owned(), self.launch(script), self.shared.clone())
    }

    async fn next(&mut self) -> Notice {
        timeout(LIMIT, self.notices.recv()).await.expect("in time").expect("the unit lives").1
    }

    async fn line(&mut self) -> String {
        loop {
            if let Notice::Line(line) = self.next().await {
                return line;
            }
        }
    }
}

fn is_alive(pid: &str) -> bool {
    // A zombie is dead: its state is the third field.
    std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or_default().starts_with('Z'))
}

async fn until_dead(pid: &str) {
    let deadline = Instant::now() + LIMIT;
    while is_alive(pid) {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_crash_is_told_and_followed_by_a_restart() {
    let mut bench = Bench::new();
    let unit = bench.start("echo $GREETING; echo trouble >&2; exit 3");
    assert!(matches!(bench.next().await, Notice::Started(_)));
    let mut told = vec![bench.next().await, bench.next().await];
    told.sort_by_key(|notice| !matches!(notice, Notice::Line(_)));
    assert_eq!(told[0], Notice::Line("hello".to_owned()));
    let Notice::Ended { why, was_asked, pause } = &told[1] else { panic!("{told:?}") };
    assert_eq!((why.as_str(), *was_asked), ("exited with code 3", false));
    assert!(*pause <= RESTART_BASE);
    assert!(matches!(bench.next().await, Notice::Started(_)));
    unit.stop(LIMIT).await;
    let log = std::fs::read_to_string(bench.scratch.path().join("app.log")).unwrap();
    assert!(log.starts_with("trouble\n"), "{log}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_and_tried_again() {
    let mut bench = Bench::new();
    let mut launch = bench.launch("");
    launch.command = vec!["/nowhere/server".to_owned()];
    let unit = Unit::start("a-0/app".to_owned(), launch, bench.shared.clone());
    for _ in 0..2 {
        let Notice::Ended { why, .. } = bench.next().await else { panic!("it cannot start") };
        assert!(why.starts_with("/nowhere/server: No such file"), "{why}");
    }
    unit.stop(LIMIT).await;
}

#[tokio::test]
async fn stopping_ends_the_group_and_whoever_left_it() {
    let mut bench = Bench::new();
    // One child in the group, one in a session of its own; both outlive their parent's end.
    let unit = bench
        .start("trap '' TERM; sleep 600 & echo $!; setsid sleep 600 & echo $!; trap 'exit 0' TERM; wait");
    let pids = [bench.line().await, bench.line().await];
    assert!(pids.iter().all(|pid| is_alive(pid)));
    unit.stop(LIMIT).await;
    for pid in &pids {
        until_dead(pid).await;
    }
}

#[tokio::test]
async fn a_program_that_ignores_the_request_is_killed() {
    let mut bench = Bench::new();
    let unit = bench.start("trap '' TERM; echo $$; while :; do sleep 600; done");
    let pid = bench.line().await;
    unit.stop(Duration::from_millis(50)).await;
    until_dead(&pid).await;
}

#[tokio::test]
async fn a_restart_runs_the_new_command() {
    let mut bench = Bench::new();
    let unit = bench.start("echo old; exec sleep 600");
    assert_eq!(bench.line().await, "old");
    unit.restart(bench.launch("echo new; exec sleep 600"), LIMIT).await;
    assert!(matches!(bench.next().await, Notice::Ended { was_asked: true, .. }));
    assert_eq!(bench.line().await, "new");
    unit.stop(LIMIT).await;
}

#[tokio::test]
async fn every_start_gets_a_credential_of_its_own_where_nobody_else_sees_it() {
    let mut bench = Bench::new();
    let launch = Launch {
        identity: Some("spiffe://td/ns/a/sa/b".parse().unwrap()),
        ..bench.launch("cat; echo; env | grep -c spiffe; tr '\\0' ' ' < /proc/$$/cmdline | grep -c 'v1[~]'")
    };
    let unit = Unit::start("a-0/proxy".to_owned(), launch, bench.shared.clone());
    let first = bench.line().await;
    assert!(first.starts_with("v1~spiffe://td/ns/a/sa/b~"), "{first}");
    assert_eq!((bench.line().await.as_str(), bench.line().await.as_str()), ("0", "0"));
    let second = bench.line().await;
    assert!(second.starts_with("v1~") && second != first, "{second}");
    unit.stop(LIMIT).await;
}
