//! A stock Envoy quits at once when it is asked to; under `meltemi agent` its running requests get their answers first.

use std::net::SocketAddr;
use std::time::Duration;

use http::Request;
use meltemi_e2e::backend::{Backend, free_port};
use meltemi_e2e::process::{DEADLINE, Process, until};
use meltemi_e2e::{bootstrap, client, peers};
use rustix::process::Signal;

use super::{Authority, ID};

/// An Envoy under an agent that drains it.
struct Drained {
    agent: Process,
    listener: SocketAddr,
    backend: Backend,
    _authority: Authority,
}

impl Drained {
    async fn start(seconds: u32, base_id: u32) -> Option<Drained> {
        let envoy = peers::envoy()?;
        let authority = Authority::start("1h").await;
        let backend = Backend::start("one").await.expect("a backend");
        let port = || free_port().expect("a port");
        let (admin, listener) = (port(), port());
        let text = bootstrap::one_route(
            "{cluster: one}",
            &bootstrap::cluster("one", "ROUND_ROBIN", &[backend.address.port()]),
        );
        let text = [admin, listener]
            .iter()
            .fold(text, |text, port| text.replacen("port_value: 0", &format!("port_value: {port}"), 1));
        let file = authority.path("envoy.yaml");
        std::fs::write(&file, text).expect("writable");
        let mut words = vec!["agent".to_owned()];
        words.extend(authority.flags(ID, "agent"));
        words.extend([
            format!("--proxy-admin=127.0.0.1:{admin}"),
            "--drain-listeners=all".to_owned(),
            format!("--termination-drain-duration={seconds}"),
            "--".to_owned(),
            envoy.display().to_string(),
        ]);
        words.extend(["-c".to_owned(), file.display().to_string(), "--disable-hot-restart".to_owned()]);
        // As Istio's agent runs it: clients are asked to go with the first answer.
        words.extend(["--drain-strategy".to_owned(), "immediate".to_owned()]);
        words.extend(["--base-id".to_owned(), base_id.to_string()]);
        let agent = authority.run(&words, "agent");
        let listener = SocketAddr::from(([127, 0, 0, 1], listener));
        let served = async || client::get(listener, "shop.example", "/").await.ok();
        until("Envoy serves", DEADLINE, served)
            .await
            .unwrap_or_else(|error| panic!("{error}: {}", agent.output()));
        backend.take();
        Some(Drained { agent, listener, backend, _authority: authority })
    }

    /// Asks for an answer that takes its time, and ends the agent once the backend has the request.
    async fn end_during_a_request(&self, signals: usize) -> anyhow::Result<client::Answer> {
        let slow = Request::get("/")
            .header("host", "shop.example")
            .header("x-delay-ms", "1200")
            .body(bytes::Bytes::new())
            .expect("a request");
        let end = async {
            let arrived = async || (!self.backend.take().is_empty()).then_some(());
            until("the request", DEADLINE, arrived).await.expect("it arrives");
            for sent in 1..=signals {
                self.agent.signal(Signal::TERM);
                let heard = async || (self.agent.output().matches("SIGTERM").count() >= sent).then_some(());
                until("the signal", DEADLINE, heard).await.expect("it is heard");
            }
        };
        let (answer, ()) = tokio::join!(client::http1(self.listener, slow), end);
        answer
    }
}

#[tokio::test]
async fn a_running_request_gets_its_answer_and_the_client_is_asked_to_go() {
    let Some(mut drained) = Drained::start(3, 78).await else { return };
    let answer = drained.end_during_a_request(1).await;
    let answer = answer.unwrap_or_else(|error| panic!("{error:#}: {}", drained.agent.output()));
    assert_eq!(answer.status(), 200);
    let connection = answer.headers().get("connection").expect("Envoy tells the client");
    assert_eq!(connection, "close");
    let status = drained.agent.wait(DEADLINE).await.expect("it ends");
    assert!(status.success(), "{status}: {}", drained.agent.output());
}

#[tokio::test]
async fn a_second_signal_ends_the_drain() {
    let Some(mut drained) = Drained::start(600, 79).await else { return };
    let began = std::time::Instant::now();
    drained.end_during_a_request(2).await.expect_err("Envoy quits at once");
    drained.agent.wait(DEADLINE).await.expect("it ends");
    assert!(began.elapsed() < Duration::from_secs(600));
}
