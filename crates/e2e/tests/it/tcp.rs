//! `meltemi proxy` relays TCP: bulk in both directions, half-close, resets, and chains that change under connections.

use std::net::SocketAddr;

use meltemi_e2e::bootstrap;
use meltemi_e2e::differential::{Proxy, Running, start};
use meltemi_e2e::peers;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of a bulk transfer: far beyond what buffers, sockets and a pipe hold.
const BULK: usize = 32 << 20;

/// A proxy whose listener `main` sends every connection to `upstream`.
async fn relay(upstream: SocketAddr, dir: &std::path::Path) -> Running {
    let text = format!(
        r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: upstream
  clusters:
{}"#,
        bootstrap::cluster("upstream", "ROUND_ROBIN", &[upstream.port()])
    );
    let path = dir.join("bootstrap.yaml");
    std::fs::write(&path, text).expect("written");
    start(&Proxy::Meltemi(peers::meltemi()), &path, dir).await.expect("the proxy is up")
}

/// A client's connection through a proxy, the upstream's end of it, and what keeps them alive.
async fn connected() -> (TcpStream, TcpStream, Running, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a folder");
    let upstream = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let running = relay(upstream.local_addr().expect("an address"), dir.path()).await;
    let client = TcpStream::connect(running.listeners["main"]).await.expect("connected");
    let (upstream, _) = upstream.accept().await.expect("accepted");
    (client, upstream, running, dir)
}

/// Bytes that differ from place to place, so that lost, doubled or swapped ones show.
fn pattern() -> Vec<u8> {
    (0..BULK as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_moves_bulk_both_ways_at_once_unchanged() {
    let (client, upstream, _running, _dir) = connected().await;
    let (sent, expected) = (pattern(), pattern());
    let ends = [client, upstream].map(|end| {
        let sent = sent.clone();
        tokio::spawn(async move {
            let (mut read, mut write) = end.into_split();
            let writing = tokio::spawn(async move {
                write.write_all(&sent).await.expect("all is taken");
                write.shutdown().await.expect("ended");
            });
            let mut received = Vec::new();
            read.read_to_end(&mut received).await.expect("all comes");
            writing.await.expect("written");
            received
        })
    });
    for end in ends {
        assert!(end.await.expect("no panic") == expected, "bytes changed on their way");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_passes_on_that_one_side_has_finished() {
    let (mut client, mut upstream, _running, _dir) = connected().await;
    client.write_all(b"question").await.expect("sent");
    client.shutdown().await.expect("finished");
    let mut question = String::new();
    upstream.read_to_string(&mut question).await.expect("the end comes");
    upstream.write_all(b"answer").await.expect("the other direction is open");
    drop(upstream);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("an answer");
    assert_eq!((question.as_str(), answer.as_str()), ("question", "answer"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_passes_on_a_reset() {
    for by_client in [true, false] {
        let (mut client, mut upstream, _running, _dir) = connected().await;
        // A reset before the proxy has seen its connection is one that could not be made: first a byte goes through.
        client.write_all(b"x").await.expect("sent");
        upstream.read_exact(&mut [0]).await.expect("it arrives");
        let (breaks, mut other) = if by_client { (client, upstream) } else { (upstream, client) };
        rustix::net::sockopt::set_socket_linger(&breaks, Some(std::time::Duration::ZERO)).expect("set");
        drop(breaks);
        let error = other.read(&mut [0; 8]).await.expect_err("a reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "by client: {by_client}");
    }
}
