//! The gradual drain strategy, by number: the share of responses that ask their client to go, second by second, through
//! Envoy and through our proxy.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use meltemi_e2e::backend::Backend;
use meltemi_e2e::differential::{Proxy, start_with};
use meltemi_e2e::{bootstrap, client, peers};

/// `--drain-time-s`: the share grows over half of it.
const DRAIN_TIME: &str = "8";

/// A share of 1/2 is missed by more than this with `n` responses once in 30,000 runs (4 sigma); there are always more
/// than 200.
const TOLERANCE: f64 = 0.15;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gradual_drain_asks_half_of_the_clients_in_the_middle_of_its_ramp() {
    shares(&Proxy::Meltemi(peers::meltemi())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gradual_drain_of_envoy_asks_as_many() {
    match peers::envoy() {
        Some(envoy) => shares(&Proxy::Envoy(envoy)).await,
        None => peers::missing("no Envoy to compare with"),
    }
}

async fn shares(proxy: &Proxy) {
    let dir = tempfile::tempdir().expect("a folder");
    let a = Backend::start("a").await.expect("up");
    let path = dir.path().join("bootstrap.yaml");
    let cluster = bootstrap::cluster("a", "ROUND_ROBIN", &[a.address.port()]);
    std::fs::write(&path, bootstrap::one_route("{cluster: a}", &cluster)).expect("written");
    let arguments = ["--drain-strategy", "gradual", "--drain-time-s", DRAIN_TIME].map(str::to_owned);
    let running = start_with(proxy, &path, &arguments, dir.path()).await.expect("the proxy is up");
    let main = running.listeners["main"];
    assert!(!is_asked(main).await);

    let drain = Request::post("/drain_listeners?graceful&skip_exit").header("host", "admin");
    let drain = drain.body(Bytes::new()).expect("a request");
    let began = Instant::now();
    client::whole_call(running.admin, false, drain, &[], None, None).await.expect("drains");
    let at_most = began.elapsed();
    // Between two and three seconds, the share is 2/4.
    tokio::time::sleep(Duration::from_millis(2050)).await;
    let (mut asked, mut all) = (0, 0);
    while began.elapsed() < Duration::from_millis(2900) {
        asked += u32::from(is_asked(main).await);
        all += 1;
    }
    assert!(at_most < Duration::from_millis(50) && all > 200, "this machine is too slow: {all} responses");
    let share = f64::from(asked) / f64::from(all);
    assert!((share - 0.5).abs() < TOLERANCE, "{asked} of {all}");

    tokio::time::sleep(Duration::from_millis(4100).saturating_sub(began.elapsed())).await;
    for _ in 0..20 {
        assert!(is_asked(main).await);
    }
}

async fn is_asked(address: SocketAddr) -> bool {
    let request = Request::get("/").header("host", "x").body(Bytes::new()).expect("a request");
    let answer = client::whole_call(address, false, request, &[], None, None).await.expect("an answer");
    assert_eq!(answer.status, 200);
    answer.headers.iter().any(|(name, value)| name == "connection" && value == "close")
}
