//! Connections that the kernel redirects (`SO_ORIGINAL_DST`), and IPv6, through Envoy and through our proxy.
//!
//! Redirects need rules of the kernel, so the test makes a user and network namespace of its own and runs
//! [`inside`] there.

mod mesh;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use meltemi_e2e::differential::{Proxy, start};
use meltemi_e2e::{peers, process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Gives the namespace addresses, and redirects connections to two of them into the proxy.
const NETWORK: &str = "
ip link set lo up
ip addr add 10.9.8.1/24 dev lo
ip -6 addr add fd00:9::7/128 dev lo
nft 'table ip redirected { chain output { type nat hook output priority -100;
     ip daddr 10.9.8.0/24 tcp dport 80-89 redirect to :15001; }; }'
nft 'table ip6 redirected { chain output { type nat hook output priority -100;
     ip6 daddr fd00:9::7 tcp dport 80 redirect to :15006; }; }'
";

const BOOTSTRAP: &str = r#"
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
static_resources:
  listeners:
  - name: redirected
    address: {socket_address: {address: 0.0.0.0, port_value: 15001}}
    use_original_dst: true
    listener_filters: &original-dst
    - {name: o, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}
    filter_chains:
    - filter_chain_match: {prefix_ranges: [{address_prefix: 10.9.8.9, prefix_len: 32}]}
      filters: [{name: d, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config, response: {inline_string: chain of an address}}}]
    - filter_chain_match: {destination_port: 83}
      filters: [{name: d, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config, response: {inline_string: chain of a port}}}]
    default_filter_chain:
      filters: [{name: d, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config, response: {inline_string: default chain}}}]
  - name: handed-on
    bind_to_port: false
    address: {socket_address: {address: 10.9.8.7, port_value: 80}}
    filter_chains:
    - filters: [{name: d, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config, response: {inline_string: listener of an address}}}]
  - name: handed-on-by-port
    bind_to_port: false
    address: {socket_address: {address: 0.0.0.0, port_value: 81}}
    filter_chains:
    - filters: [{name: d, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config, response: {inline_string: listener of a port}}}]
  - name: redirected-six
    address: {socket_address: {address: "::1", port_value: 15006}}
    listener_filters: *original-dst
    filter_chains:
    - filter_chain_match: {destination_port: 80, prefix_ranges: [{address_prefix: "fd00:9::7", prefix_len: 128}]}
      filters: [{name: d, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config, response: {inline_string: chain of an IPv6 address}}}]
  - name: both-families
    address: {socket_address: {address: "::", port_value: 8080, ipv4_compat: true}}
    filter_chains: &to-six
    - filters: [{name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: six}}]
  - name: one-family
    address: {socket_address: {address: "::", port_value: 8081}}
    additional_addresses: [{address: {socket_address: {address: 127.0.0.1, port_value: 8082}}}]
    filter_chains: *to-six
  clusters:
  - name: six
    type: STATIC
    load_assignment: {cluster_name: six, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: "::1", port_value: 9000}}}}]}]}
"#;

/// Where to connect, and what comes back.
const ANSWERS: [(&str, &str); 11] = [
    ("10.9.8.7:80", "listener of an address"),
    ("10.9.8.6:81", "listener of a port"),
    ("10.9.8.9:82", "chain of an address"),
    ("10.9.8.6:83", "chain of a port"),
    ("10.9.8.6:84", "default chain"),
    ("127.0.0.1:15001", "default chain"),
    ("[fd00:9::7]:80", "chain of an IPv6 address"),
    ("127.0.0.1:8080", "upstream over IPv6"),
    ("[::1]:8080", "upstream over IPv6"),
    ("[::1]:8081", "upstream over IPv6"),
    ("127.0.0.1:8082", "upstream over IPv6"),
];

/// Refused: its socket is IPv6 only.
const NOBODY: &str = "127.0.0.1:8081";

#[test]
fn redirected_connections_reach_what_they_wanted_to_reach() {
    in_a_network(NETWORK, "redirected::inside");
}

/// Runs an ignored test of this binary in a user and network namespace of its own, once `network` is set up there.
fn in_a_network(network: &str, test: &str) {
    let unshare = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--net", "sh", "-ec", command]);
        unshare.output()
    };
    let works = |command: &str| unshare(command).is_ok_and(|output| output.status.success());
    if !works("true") {
        return eprintln!("SKIPPED: this machine permits no user and network namespaces");
    }
    if !works(network) {
        return peers::missing(
            "nft and ip are needed (packages nftables, iproute2), and a kernel with nf_tables",
        );
    }
    let this = std::env::current_exe().expect("this test");
    let run = format!("{network}\nexec {} --exact {test} --ignored --nocapture", this.display());
    let output = unshare(&run).expect("it ran before");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "redirected_connections_reach_what_they_wanted_to_reach runs it in a namespace"]
async fn inside() {
    let upstream = TcpListener::bind("[::1]:9000").await.expect("a namespace of its own");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = upstream.accept().await {
            stream.write_all(b"upstream over IPv6").await.expect("sent");
        }
    });
    answers(&Proxy::Meltemi(peers::meltemi())).await;
    match peers::envoy() {
        Some(envoy) => answers(&Proxy::Envoy(envoy)).await,
        None => peers::missing("no Envoy to compare with"),
    }
}

async fn answers(proxy: &Proxy) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("bootstrap.yaml");
    std::fs::write(&path, BOOTSTRAP).expect("written");
    let mut running = start(proxy, &path, dir.path()).await.expect("the proxy is up");
    for (address, expected) in ANSWERS {
        let address: SocketAddr = address.parse().expect("an address");
        let mut answer = String::new();
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let read = tokio::time::timeout(process::DEADLINE, stream.read_to_string(&mut answer)).await;
        assert!(read.is_ok_and(|read| read.is_ok()), "{proxy:?} {address}");
        assert_eq!(answer, expected, "{proxy:?} {address}");
    }
    TcpStream::connect(NOBODY).await.expect_err("IPv6 only");
    running.process.signal(rustix::process::Signal::KILL);
    running.process.wait(Duration::from_secs(5)).await.expect("it is gone, and its ports are free");
}
