//! `RING_HASH` and `MAGLEV` send every key to the host that Envoy sends it to.
//!
//! The same host sets behind both proxies, many keys each; nobody listens on the hosts, so every call fails, and the
//! access log says which host was picked. The port is a part of what is hashed, so both proxies get the same one.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use meltemi_e2e::backend::dead_port;
use meltemi_e2e::differential::{Proxy, start};
use meltemi_e2e::peers;
use meltemi_e2e::process::{DEADLINE, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Keys that are looked up in every host set.
const KEYS: usize = 1000;

/// A cluster: its name, the fields of its balancing, and its endpoints.
struct HostSet {
    name: &'static str,
    balancing: &'static str,
    endpoints: String,
}

/// Hosts 127.9.`set`.1 and following with these fields each.
fn hosts(set: u8, port: u16, fields: &[&str]) -> String {
    let host = |(i, fields): (usize, &&str)| {
        let address =
            format!("address: {{socket_address: {{address: 127.9.{set}.{}, port_value: {port}}}}}", i + 1);
        format!("{{endpoint: {{{address}}}{fields}}}")
    };
    fields.iter().enumerate().map(host).collect::<Vec<_>>().join(", ")
}

fn flat(set: u8, port: u16, fields: &[&str]) -> String {
    format!("- {{lb_endpoints: [{}]}}", hosts(set, port, fields))
}

fn host_sets(port: u16) -> Vec<HostSet> {
    let down = ", health_status: UNHEALTHY";
    let weights =
        ["", ", load_balancing_weight: 2", ", load_balancing_weight: 3", ", load_balancing_weight: 10"];
    let keyed = ", metadata: {filter_metadata: {envoy.lb: {hash_key: pinned}}}";
    let zones = |set: u8| {
        format!(
            "- {{locality: {{region: r, zone: b}}, load_balancing_weight: 1, lb_endpoints: [{}]}}\n      \
             - {{locality: {{region: r, zone: a}}, load_balancing_weight: 3, lb_endpoints: [{}]}}\n      \
             - {{locality: {{region: q}}, lb_endpoints: [{}]}}",
            hosts(set, port, &["", ""]),
            hosts(set + 1, port, &["", ", load_balancing_weight: 4", down]),
            hosts(set + 2, port, &[""]),
        )
    };
    let set = |name, balancing, endpoints| HostSet { name, balancing, endpoints };
    let ring = "lb_policy: RING_HASH";
    let maglev = "lb_policy: MAGLEV";
    vec![
        set("ring", ring, flat(1, port, &[""; 5])),
        set("ring-weights", ring, flat(2, port, &weights)),
        set(
            "ring-small",
            "lb_policy: RING_HASH\n    ring_hash_lb_config: {minimum_ring_size: 7, maximum_ring_size: 11}",
            flat(3, port, &[weights[0], weights[1], weights[2], "", ""]),
        ),
        set(
            "ring-murmur",
            "lb_policy: RING_HASH\n    ring_hash_lb_config: {hash_function: MURMUR_HASH_2}",
            flat(4, port, &[""; 7]),
        ),
        set("ring-keyed", ring, flat(5, port, &["", keyed, ""])),
        set(
            "ring-zones",
            "lb_policy: RING_HASH\n    common_lb_config: {locality_weighted_lb_config: {}}",
            zones(10),
        ),
        set(
            "ring-priorities",
            ring,
            format!(
                "{}\n      - {{priority: 1, lb_endpoints: [{}]}}",
                flat(6, port, &["", "", down, down, down]),
                hosts(7, port, &["", ""])
            ),
        ),
        set("ring-panic", ring, flat(8, port, &["", down, down])),
        set("maglev", maglev, flat(20, port, &[""; 6])),
        set(
            "maglev-weights",
            "lb_policy: MAGLEV\n    maglev_lb_config: {table_size: 1009}",
            flat(21, port, &weights),
        ),
        set(
            "maglev-zones",
            "lb_policy: MAGLEV\n    common_lb_config: {locality_weighted_lb_config: {}}",
            zones(22),
        ),
        set("maglev-keyed", maglev, flat(25, port, &["", "", keyed, ""])),
    ]
}

/// Calls choose a host set by path and bring their key in a header.
fn bootstrap(sets: &[HostSet], log: &Path) -> String {
    let mut routes = String::new();
    let mut clusters = String::new();
    for HostSet { name, balancing, endpoints } in sets {
        let hash = "hash_policy: [{header: {header_name: x-key}}]";
        let _ = writeln!(
            routes,
            "              - {{match: {{path: /{name}}}, route: {{cluster: {name}, {hash}}}}}"
        );
        let _ = write!(
            clusters,
            "  - name: {name}\n    connect_timeout: 1s\n    {balancing}\n    circuit_breakers: {{thresholds: [{{max_connections: 100000}}]}}\n    load_assignment:\n      cluster_name: {name}\n      endpoints:\n      {endpoints}\n"
        );
    }
    format!(
        r#"admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: main
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {}
              log_format: {{text_format_source: {{inline_string: "%REQ(:PATH)% %REQ(X-KEY)% %UPSTREAM_HOST%\n"}}}}
          route_config:
            name: routes
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
{routes}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
{clusters}"#,
        log.display()
    )
}

/// All keys of a host set over one connection.
async fn call_all(mut stream: TcpStream, name: &'static str) -> anyhow::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    for key in 0..KEYS {
        let request = format!("GET /{name} HTTP/1.1\r\nhost: a\r\nx-key: key-{key}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        // The whole answer: its body ends with the reason.
        while !answer.contains("\r\n\r\n") || answer.ends_with("\r\n\r\n") {
            let read = stream.read(&mut buffer).await?;
            anyhow::ensure!(read > 0, "closed after {answer:?}");
            answer.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        anyhow::ensure!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
    Ok(())
}

/// Which host each key of each set went to: the sorted lines of the access log.
async fn picks(proxy: &Proxy, port: u16) -> anyhow::Result<Vec<String>> {
    let dir = tempfile::tempdir()?;
    let (path, log) = (dir.path().join("bootstrap.yaml"), dir.path().join("access.log"));
    let sets = host_sets(port);
    std::fs::write(&path, bootstrap(&sets, &log))?;
    let running = start(proxy, &path, dir.path()).await?;
    let mut calls = tokio::task::JoinSet::new();
    for set in &sets {
        calls.spawn(call_all(TcpStream::connect(running.listeners["main"]).await?, set.name));
    }
    while let Some(done) = calls.join_next().await {
        done??;
    }
    let wanted = sets.len() * KEYS;
    let lines = until("all calls are logged", DEADLINE, async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        (lines.len() == wanted).then_some(lines)
    });
    lines.await.context("the access log")
}

#[tokio::test]
async fn every_key_goes_to_the_host_that_envoy_picks() {
    let Some(envoy) = peers::envoy() else {
        eprintln!("SKIPPED: no Envoy; scripts/peers brings one");
        return;
    };
    let port = dead_port().expect("a free port");
    let theirs = picks(&Proxy::Envoy(envoy), port).await.expect("Envoy answers");
    let ours = picks(&Proxy::Meltemi(peers::meltemi()), port).await.expect("our proxy answers");
    let used: std::collections::BTreeSet<&str> =
        theirs.iter().filter_map(|line| line.split(' ').nth(2)).collect();
    assert!(used.len() > 50, "the host sets are in use: {used:?}");
    let different: Vec<_> = theirs.iter().zip(&ours).filter(|(theirs, ours)| theirs != ours).collect();
    assert!(
        different.is_empty(),
        "{} of {} keys differ, as {:?}",
        different.len(),
        theirs.len(),
        different[0]
    );
}
