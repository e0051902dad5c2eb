//! `tcp_proxy`.

use crate::harness::{Connection, Upstream, Worker, cluster, dead_address, resources};

fn tcp_listener(cluster: &str) -> String {
    format!(
        r#"
  - name: tcp
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: {cluster}
"#
    )
}

#[test]
fn bytes_go_both_ways_and_a_half_close_is_passed_on() {
    let upstream = Upstream::start(|mut connection| {
        let request = connection.read_until("?").unwrap();
        assert!(connection.is_closed());
        connection.write(&format!("{request}!"));
    });
    let worker = Worker::start(&resources(&[tcp_listener("a")], &[cluster("a", &[upstream.address], &[])]));
    let mut client = Connection::open(worker.address("tcp"));
    client.write("who?");
    client.close_write();
    assert_eq!(client.read_until("!").as_deref(), Some("who?!"));
    assert!(client.is_closed());
    worker.wait_until_idle();
}

#[test]
fn large_transfers_arrive_whole() {
    const SIZE: usize = 3_000_000;
    let upstream = Upstream::start(|mut connection| {
        let got = connection.read_exactly(SIZE).unwrap();
        connection.write(&got);
    });
    let worker = Worker::start(&resources(&[tcp_listener("a")], &[cluster("a", &[upstream.address], &[])]));
    let mut client = Connection::open(worker.address("tcp"));
    let text: String = (0..SIZE).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
    client.write(&text);
    assert!(client.read_exactly(SIZE).unwrap() == text);
}

#[test]
fn a_dead_host_closes_the_connection() {
    let worker = Worker::start(&resources(&[tcp_listener("a")], &[cluster("a", &[dead_address()], &[])]));
    assert!(Connection::open(worker.address("tcp")).is_closed());
}
