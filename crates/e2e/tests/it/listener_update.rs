//! A listener whose chains change in place (LDS): connections of the chain that stays live on, those of the chain that
//! changed are asked to go and end with the drain time. Through Envoy and through our proxy.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use meltemi_e2e::differential::{Proxy, Running, start_with};
use meltemi_e2e::{peers, process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// `--drain-time-s`.
const DRAIN_TIME: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_stays_keeps_its_connections() {
    update(&Proxy::Meltemi(peers::meltemi())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_envoy_that_stays_keeps_its_connections() {
    match peers::envoy() {
        Some(envoy) => update(&Proxy::Envoy(envoy)).await,
        None => peers::missing("no Envoy to compare with"),
    }
}

async fn update(proxy: &Proxy) {
    let dir = tempfile::tempdir().expect("a folder");
    let running = serving(proxy, dir.path()).await;
    let main = running.listeners["main"];
    let (mut stays, mut changes) = (Client::connect(main, 1).await, Client::connect(main, 2).await);
    assert_eq!(stays.get().await, ("one".to_owned(), false));
    assert_eq!(changes.get().await, ("two".to_owned(), false));
    let mut waits = Client::connect(main, 2).await;
    assert_eq!(waits.get().await, ("two".to_owned(), false));

    write_listener(dir.path(), "two, changed");
    let changed = process::until("new connections see the change", process::DEADLINE, async || {
        let (answer, _) = Client::connect(main, 2).await.get().await;
        (answer == "two, changed").then_some(())
    });
    changed.await.expect("the update is in force");
    let began = Instant::now();
    assert_eq!(changes.get().await, ("two".to_owned(), true), "its old chain, and it shall go");
    assert_eq!(stays.get().await, ("one".to_owned(), false));
    assert!(waits.is_closed().await, "the drain time ends it");
    assert!(began.elapsed() < DRAIN_TIME + Duration::from_secs(10));
    assert_eq!(stays.get().await, ("one".to_owned(), false));
    assert_eq!(Client::connect(main, 1).await.get().await, ("one".to_owned(), false));
}

async fn serving(proxy: &Proxy, dir: &Path) -> Running {
    write_listener(dir, "two");
    let bootstrap = format!(
        r#"
node: {{id: proxy, cluster: c}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
dynamic_resources:
  lds_config: {{resource_api_version: V3, path_config_source: {{path: "{}"}}}}
"#,
        dir.join("lds.yaml").display()
    );
    let path = dir.join("bootstrap.yaml");
    std::fs::write(&path, bootstrap).expect("written");
    let drain_time = DRAIN_TIME.as_secs().to_string();
    let arguments = ["--drain-strategy", "immediate", "--drain-time-s", &drain_time].map(str::to_owned);
    start_with(proxy, &path, &arguments, dir).await.expect("the proxy is up")
}

/// Puts the listener in place, in one move.
fn write_listener(dir: &Path, second: &str) {
    let chain = |source: u8, answer: &str| {
        format!(
            r#"
  - filter_chain_match: {{source_prefix_ranges: [{{address_prefix: 127.0.0.{source}, prefix_len: 32}}]}}
    filters:
    - name: h
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: m
        route_config: {{virtual_hosts: [{{name: a, domains: ["*"], routes: [{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: "{answer}"}}}}}}]}}]}}
        http_filters: [{{name: r, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]"#
        )
    };
    let text = format!(
        r#"
resources:
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: main
  address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
  filter_chains:{}{}
"#,
        chain(1, "one"),
        chain(2, second)
    );
    std::fs::write(dir.join("next.yaml"), text).expect("written");
    std::fs::rename(dir.join("next.yaml"), dir.join("lds.yaml")).expect("moved");
}

/// A client that keeps its connection.
struct Client(TcpStream);

impl Client {
    /// Connects from 127.0.0.`source`.
    async fn connect(to: SocketAddr, source: u8) -> Client {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, source], 0).into()).expect("loopback is a /8");
        Client(socket.connect(to).await.expect("connected"))
    }

    /// The body of an answer, and whether it asks to go.
    async fn get(&mut self) -> (String, bool) {
        self.0.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        let mut text = String::new();
        loop {
            let mut piece = [0; 1024];
            let count = self.0.read(&mut piece).await.expect("an answer");
            assert!(count > 0, "closed after {text:?}");
            text += std::str::from_utf8(&piece[..count]).expect("text");
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
            if body.len() >= length.parse().expect("a number") {
                return (body.to_owned(), head.contains("connection: close"));
            }
        }
    }

    /// Whether the proxy closes the connection.
    async fn is_closed(&mut self) -> bool {
        let read = tokio::time::timeout(process::DEADLINE, self.0.read(&mut [0])).await;
        matches!(read, Ok(Ok(0)))
    }
}
