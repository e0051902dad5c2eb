//! What rows of answers mean, on paused time.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::time::Instant;

use super::*;

/// Answers in turn, then the last one for ever; counts the questions.
struct Script {
    answers: Mutex<VecDeque<bool>>,
    asked_at: Mutex<Vec<Duration>>,
    start: Instant,
}

impl Script {
    fn new(answers: impl IntoIterator<Item = bool>) -> Script {
        let answers = Mutex::new(answers.into_iter().collect());
        Script { answers, asked_at: Mutex::default(), start: Instant::now() }
    }

    fn asked_at_ms(&self) -> Vec<u128> {
        self.asked_at.lock().unwrap().iter().map(Duration::as_millis).collect()
    }
}

impl Ask for Script {
    async fn ask(&self) -> Result<(), String> {
        self.asked_at.lock().unwrap().push(self.start.elapsed());
        let mut answers = self.answers.lock().unwrap();
        let answer = answers[0];
        if answers.len() > 1 {
            answers.pop_front();
        }
        if answer { Ok(()) } else { Err("status 503".to_owned()) }
    }
}

/// Never answers.
struct Silent;

impl Ask for Silent {
    async fn ask(&self) -> Result<(), String> {
        std::future::pending().await
    }
}

fn report() -> (Report, mpsc::Receiver<Verdict>) {
    let (verdicts, inbox) = mpsc::channel(16);
    (Report { subject: Subject { unit: "a-0/app".into(), pid: 1 }, verdicts }, inbox)
}

fn schedule(successes: u32, failures: u32) -> Schedule {
    let second = Duration::from_secs(1);
    Schedule { initial_delay: 2 * second, period: 10 * second, timeout: second, successes, failures }
}

#[tokio::test(start_paused = true)]
async fn readiness_is_eager_until_the_first_success_then_keeps_its_period() {
    let script = Script::new([false, false, true, true, false, false, true]);
    let (report, mut inbox) = report();
    let watch = readiness(&script, schedule(1, 2), Purpose::Readiness, &report);
    let read = async {
        let verdicts =
            [inbox.recv().await.unwrap(), inbox.recv().await.unwrap(), inbox.recv().await.unwrap()];
        verdicts.map(|verdict| (verdict.is_good, verdict.detail))
    };
    let told = tokio::select! {
        () = watch => unreachable!("somebody listens"),
        told = read => told,
    };
    assert_eq!(told, [(true, "ok".into()), (false, "status 503".into()), (true, "ok".into())]);
    assert_eq!(script.asked_at_ms(), [2000, 2100, 2200, 12_200, 22_200, 32_200, 42_200]);
}

#[tokio::test(start_paused = true)]
async fn liveness_needs_failures_in_a_row() {
    let script = Script::new([true, false, false, true, false, false, false]);
    let (report, mut inbox) = report();
    liveness(&script, schedule(1, 3), &report).await;
    let verdict = inbox.recv().await.unwrap();
    assert_eq!((verdict.purpose, verdict.is_good), (Purpose::Liveness, false));
    assert_eq!(script.asked_at_ms().len(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_startup_probe_gives_up_at_its_threshold_and_a_silent_program_counts_as_failing() {
    let (report, mut inbox) = report();
    let start = Instant::now();
    assert!(!startup(&Silent, schedule(1, 3), &report).await);
    let verdict = inbox.recv().await.unwrap();
    assert_eq!((verdict.is_good, verdict.detail.as_str()), (false, "no answer within 1s"));
    // A delay of 2, then three times a timeout of 1 with a period of 10 between.
    assert_eq!(start.elapsed(), Duration::from_secs(2 + 3 + 20));
}

#[tokio::test(start_paused = true)]
async fn success_may_need_several_answers_in_a_row() {
    let script = Script::new([true, false, true, true, true]);
    let (report, mut inbox) = report();
    tokio::select! {
        () = readiness(&script, schedule(3, 1), Purpose::Readiness, &report) => unreachable!(),
        verdict = inbox.recv() => assert!(verdict.unwrap().is_good),
    }
    assert_eq!(script.asked_at_ms().len(), 5);
}

#[test]
fn kubernetes_defaults() {
    let schedule = Schedule::of(&Probe::default());
    let seconds = Duration::from_secs;
    assert_eq!(
        (schedule.initial_delay, schedule.period, schedule.timeout),
        (seconds(0), seconds(10), seconds(1))
    );
    assert_eq!((schedule.successes, schedule.failures), (1, 3));
}

mod asking {
    //! The real ways of asking, over loopback.

    use std::net::SocketAddr;
    use std::path::PathBuf;

    use meltemi_api::kubernetes::{
        Container, ContainerPort, ExecAction, HttpGetAction, HttpHeader, PortRef, TcpSocketAction,
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::*;

    fn target(program: SocketAddr) -> Target {
        let port =
            ContainerPort { name: Some("http".into()), container_port: 8080, ..ContainerPort::default() };
        Target {
            container: Container { ports: vec![port], ..Container::default() },
            address: program.ip(),
            port: program.port(),
            environment: [("ANSWER".to_owned(), "3".to_owned())].into(),
            directory: PathBuf::from("/"),
            mark: "test".into(),
        }
    }

    /// Answers one request with this text; returns what it was asked.
    async fn serve_once(listener: TcpListener, answer: &str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(request[..length].to_vec()).unwrap()
    }

    async fn http(answer: &str) -> (Result<(), String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(listener.local_addr().unwrap());
        let get = HttpGetAction {
            path: Some("/healthz".into()),
            port: PortRef::Name("http".into()),
            http_headers: vec![
                HttpHeader { name: "Host".into(), value: "shop".into() },
                HttpHeader { name: "x-probe".into(), value: "1".into() },
            ],
            ..HttpGetAction::default()
        };
        let probe = Probe { http_get: Some(get), ..Probe::default() };
        let asker = target.asker(&probe).unwrap();
        tokio::join!(asker.ask(), serve_once(listener, answer))
    }

    #[tokio::test]
    async fn http_statuses_from_200_to_399_are_good() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Ok(())),
            ("HTTP/1.0 302 Found\r\n\r\n", Ok(())),
            ("HTTP/1.1 404 Not Found\r\n\r\n", Err("status 404".to_owned())),
            ("SSH-2.0-server\r\n", Err("the answer is not HTTP".to_owned())),
        ] {
            let (verdict, request) = http(answer).await;
            assert_eq!(verdict, expected);
            assert!(request.starts_with("GET /healthz HTTP/1.1\r\nHost: shop\r\n"), "{request}");
            assert!(request.contains("\r\nx-probe: 1\r\n"), "{request}");
        }
    }

    #[tokio::test]
    async fn a_declared_port_is_the_programs_and_any_other_is_itself() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let program = listener.local_addr().unwrap();
        let ask = async |port| {
            let tcp = TcpSocketAction { port: PortRef::Number(port), ..TcpSocketAction::default() };
            let probe = Probe { tcp_socket: Some(tcp), ..Probe::default() };
            target(program).asker(&probe).unwrap().ask().await
        };
        assert_eq!(ask(8080).await, Ok(()));
        assert_eq!(ask(program.port().into()).await, Ok(()));
        drop(listener);
        assert!(ask(8080).await.is_err());
    }

    #[tokio::test]
    async fn a_command_is_judged_by_its_exit_code_in_the_programs_environment() {
        let target = target("127.0.0.1:1".parse().unwrap());
        let ask = async |script: &str| {
            let command = vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
            let probe = Probe { exec: Some(ExecAction { command }), ..Probe::default() };
            target.asker(&probe).unwrap().ask().await
        };
        assert_eq!(ask("test $ANSWER = 3").await, Ok(()));
        assert_eq!(ask("exit $ANSWER").await, Err("exit status: 3".to_owned()));
    }
}
