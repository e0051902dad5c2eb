//! Peers that mean harm, on both sides of `meltemi proxy`: the verdict, and that everybody else is still served.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use meltemi_e2e::bootstrap;
use meltemi_e2e::differential::{Proxy, Running, start};
use meltemi_e2e::peers;
use meltemi_e2e::process::{Process, until};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Nothing here may take longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the memory of the proxy may grow by under any of these attacks, each of which offers more.
const GROWTH_MAX_KIB: usize = 24 << 10;

const GET: &[u8] = b"GET /ok HTTP/1.1\r\nhost: a\r\n\r\n";

/// A proxy before an upstream that does what the path says, and how much memory it had at its start.
struct Target {
    running: Running,
    resident_kib: usize,
    _dir: TempDir,
}

impl Target {
    async fn start() -> Target {
        let dir = tempfile::tempdir().expect("a folder");
        let upstream = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = upstream.local_addr().expect("bound").port();
        tokio::spawn(serve(upstream));
        let bootstrap = dir.path().join("bootstrap.yaml");
        std::fs::write(&bootstrap, bootstrap_text(port)).expect("written");
        let proxy = Proxy::Meltemi(peers::meltemi());
        let running = start(&proxy, &bootstrap, dir.path()).await.expect("the proxy is up");
        let mut target = Target { running, resident_kib: 0, _dir: dir };
        target.assert_serving().await;
        target.resident_kib = target.resident_kib();
        target
    }

    fn address(&self) -> SocketAddr {
        self.running.listeners["main"]
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.expect("connected")
    }

    /// What comes back for these bytes until the proxy closes, or until the text ends with `until`.
    async fn answer(&self, wire: &[u8], until: &str) -> String {
        let mut stream = self.connect().await;
        // The proxy may have closed before it was all sent.
        let _sent = stream.write_all(wire).await;
        let mut received = Vec::new();
        let reading = async {
            while !until_reached(&received, until)
                && stream.read_buf(&mut received).await.is_ok_and(|n| n > 0)
            {}
        };
        let in_time = timeout(PATIENCE, reading).await.is_ok();
        let text = String::from_utf8_lossy(&received).into_owned();
        assert!(in_time, "neither closed nor answered: {text}");
        text
    }

    async fn assert_serving(&self) {
        let answer = self.answer(GET, "ok").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    fn resident_kib(&self) -> usize {
        let path = format!("/proc/{}/status", self.running.process.pid());
        let status = std::fs::read_to_string(path).expect("the proxy runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    fn assert_small(&self, attack: &str) {
        let grown = self.resident_kib().saturating_sub(self.resident_kib);
        assert!(grown < GROWTH_MAX_KIB, "{attack}: {grown} KiB more");
    }
}

fn until_reached(received: &[u8], until: &str) -> bool {
    !until.is_empty() && received.ends_with(until.as_bytes())
}

fn bootstrap_text(port: u16) -> String {
    bootstrap::one_route("{cluster: a}", &bootstrap::cluster("a", "ROUND_ROBIN", &[port]))
}

async fn serve(upstream: TcpListener) {
    while let Ok((stream, _)) = upstream.accept().await {
        tokio::spawn(behave(stream));
    }
}

/// Answers each request head as its path says. Bodies are not read.
async fn behave(mut stream: TcpStream) -> io::Result<()> {
    let mut received = Vec::new();
    loop {
        while !received.windows(4).any(|window| window == b"\r\n\r\n") {
            if stream.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
        }
        let head = String::from_utf8_lossy(&received).into_owned();
        received.clear();
        match head.split(' ').nth(1).unwrap_or_default() {
            "/hang" => std::future::pending::<()>().await,
            "/endless" => endless(&mut stream).await?,
            path => {
                let (wire, closes) = misdeed(path);
                stream.write_all(wire.as_bytes()).await?;
                if closes {
                    return Ok(());
                }
            }
        }
    }
}

/// What an upstream sends, and whether it then closes.
fn misdeed(path: &str) -> (&'static str, bool) {
    match path {
        "/garbage" => ("\x16\x03\x01 no HTTP\r\n\r\n", true),
        "/two-lengths" => ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc", false),
        "/length-and-chunks" => {
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", false)
        }
        "/204-with-body" => ("HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\nevil", false),
        "/101" => {
            ("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nevil", false)
        }
        "/dies" => ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart", true),
        "/second" => (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 201 Created\r\ncontent-length: 4\r\n\r\nevil",
            false,
        ),
        _ => ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", false),
    }
}

async fn endless(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
    let chunk = [b"10000\r\n", &[b'x'; 1 << 16][..], b"\r\n"].concat();
    loop {
        stream.write_all(&chunk).await?;
    }
}

/// Writes until the peer takes no more for a while, closes, or has taken `most`; says how it ended.
async fn press(stream: &mut TcpStream, piece: &[u8], most: usize) -> io::Result<usize> {
    let mut sent = 0;
    while sent < most {
        match timeout(Duration::from_millis(300), stream.write_all(piece)).await {
            Ok(written) => written?,
            Err(_) => return Ok(sent),
        }
        sent += piece.len();
    }
    Ok(sent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_two_parsers_read_differently_reach_nobody() {
    let target = Target::start().await;
    let post = |fields: &str, body: &str| format!("POST /ok HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n{body}");
    let smuggled = "0\r\n\r\nGET /ok HTTP/1.1\r\nhost: a\r\n\r\n";
    let chunked = "transfer-encoding: chunked";
    let cases = [
        (post("content-length: 5\r\ntransfer-encoding: chunked", smuggled), "400"),
        (post("content-length: 2\r\ncontent-length: 3", "abc"), "400"),
        (post("content-length: +2", "ab"), "400"),
        (post("transfer-encoding: xchunked", smuggled), "501"),
        (post("transfer-encoding : chunked", smuggled), "400"),
        (post("transfer-encoding:\r\n chunked", smuggled), "400"),
        (post("x: a\nhost: b", ""), "400"),
        (post("x: a\0b", ""), "400"),
        (post("host: b", ""), "400"),
        ("GET /ok HTTP/1.1\r\nhost: a/b c\r\n\r\n".to_owned(), "400"),
        ("GET /ok b HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "400"),
        (post(&"x: y\r\n".repeat(200), ""), "431"),
        (format!("GET /{} ", "a".repeat(100 << 10)), "431"),
        (post(chunked, "-1\r\n"), "400"),
        (post(chunked, &format!("1;{}\r\n", "x".repeat(4 << 10))), "400"),
        (post(chunked, &format!("0\r\n{}\r\n", "a: b\r\n".repeat(500))), "400"),
    ];
    for (wire, status) in cases {
        let answer = target.answer(wire.as_bytes(), "").await;
        let statuses: Vec<&str> =
            answer.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3)).collect();
        // The chunks of the last cases are read while the upstream may already have answered.
        let answered_before = wire.contains(chunked) && statuses == ["200"];
        assert!(statuses == [status] || answered_before, "{wire:.80} -> {answer}");
    }
    target.assert_serving().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lying_upstream_harms_one_response() {
    let target = Target::start().await;
    for path in ["/garbage", "/two-lengths", "/length-and-chunks", "/204-with-body", "/101"] {
        let wire = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let answer = target.answer(wire.as_bytes(), "").await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{path} -> {answer}");
        assert!(!answer.contains("evil"), "{path} -> {answer}");
    }
    let cut = target.answer(b"GET /dies HTTP/1.1\r\nhost: a\r\n\r\n", "").await;
    assert!(cut.contains("content-length: 100\r\n") && cut.ends_with("part"), "{cut}");
    // The answer that nobody asked for must not be the next one's.
    let second = b"GET /second HTTP/1.1\r\nhost: a\r\n\r\n".repeat(3);
    for _ in 0..3 {
        let answer = target
            .answer(&[&second[..], b"GET /ok HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"].concat(), "")
            .await;
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 4, "{answer}");
        assert!(!answer.contains("evil"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_bodies_and_idle_connections_cost_bounded_memory() {
    let target = Target::start().await;
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut slow_reader = target.connect().await;
        slow_reader.write_all(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
        held.push(slow_reader);
    }
    let chunk = [b"10000\r\n", &[b'x'; 1 << 16][..], b"\r\n"].concat();
    for _ in 0..3 {
        let mut upload = target.connect().await;
        upload
            .write_all(b"POST /hang HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
            .await
            .expect("sent");
        let taken = press(&mut upload, &chunk, 64 << 20).await.expect("still open");
        assert!(taken < 64 << 20, "an upstream that reads nothing must stop its client");
        held.push(upload);
    }
    target.assert_small("endless bodies");
    let mut pipeline = target.connect().await;
    let taken = press(&mut pipeline, &GET.repeat(1000), 64 << 20).await.unwrap_or(0);
    assert!(taken < 64 << 20, "a client that reads nothing must be stopped");
    held.push(pipeline);
    for count in 0..500 {
        let mut slow = target.connect().await;
        if count % 2 == 0 {
            slow.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx: ").await.expect("sent");
        }
        held.push(slow);
    }
    target.assert_serving().await;
    target.assert_small("idle and slow connections");
}

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// `POST http://a/hang` in HPACK: the static table's 3 and 6, then literals for its names 1 and 4.
const POST_HANG: &[u8] = b"\x83\x86\x01\x01a\x04\x05/hang";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_floods_end_their_own_connection() {
    let target = Target::start().await;
    let open = [PREFACE, &frame(1, 4, 1, POST_HANG)].concat();
    let unfinished = [PREFACE, &frame(1, 0, 1, POST_HANG)].concat();
    let resets: Vec<u8> = (0..2000)
        .flat_map(|n| [frame(1, 5, 2 * n + 1, POST_HANG), frame(3, 0, 2 * n + 1, &[0, 0, 0, 8])].concat())
        .collect();
    let floods = [
        ("rapid reset", PREFACE.to_vec(), resets),
        ("CONTINUATION", unfinished, frame(9, 0, 1, &[0, 1, b'a', 1, b'b'].repeat(100)).repeat(20)),
        ("empty DATA", open.clone(), frame(0, 0, 1, b"").repeat(1000)),
        ("padding", open.clone(), frame(0, 8, 1, &[3, 0, 0, 0]).repeat(1000)),
        ("WINDOW_UPDATE", open.clone(), frame(8, 0, 1, &[0, 0, 0, 1]).repeat(1000)),
        ("PRIORITY", open, frame(2, 0, 1, &[0, 0, 0, 3, 1]).repeat(1000)),
        ("garbage", PREFACE.to_vec(), vec![b'A'; 1000]),
        ("stream 0", PREFACE.to_vec(), frame(0, 0, 0, b"data").repeat(10)),
        ("window overflow", PREFACE.to_vec(), frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
    ];
    for (name, beginning, flood) in floods {
        let mut stream = target.connect().await;
        stream.write_all(&beginning).await.expect("sent");
        let pressed = press(&mut stream, &flood, 16 << 20);
        // Not every flood is cut while it is written; the close follows it.
        let _cut = timeout(PATIENCE, pressed).await.unwrap_or_else(|_| panic!("{name} goes on"));
        let drained = async { while stream.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {} };
        timeout(PATIENCE, drained).await.unwrap_or_else(|_| panic!("{name}: still open"));
        target.assert_serving().await;
        target.assert_small(name);
    }
    for (name, flood) in
        [("PING", frame(6, 0, 0, b"12345678")), ("SETTINGS", frame(4, 0, 0, &[0, 4, 0, 1, 0, 0]))]
    {
        let mut stream = target.connect().await;
        stream.write_all(PREFACE).await.expect("sent");
        let taken = press(&mut stream, &flood.repeat(1000), 64 << 20).await.unwrap_or(0);
        assert!(taken < 64 << 20, "{name}: answers that nobody reads must stop the flood");
        target.assert_serving().await;
        target.assert_small(name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_out_of_descriptors_passes() {
    let target = Target::start().await;
    let pid = Pid::from_raw(target.running.process.pid().try_into().expect("a pid")).expect("a pid");
    let few = Rlimit { current: Some(64), maximum: Some(64) };
    prlimit(Some(pid), Resource::Nofile, few).expect("our own child");
    let mut crowd = Vec::new();
    for _ in 0..150 {
        crowd.push(target.connect().await);
    }
    drop(crowd);
    until("the proxy serves again", PATIENCE, async || {
        let mut stream = TcpStream::connect(target.address()).await.ok()?;
        stream.write_all(GET).await.ok()?;
        let mut head = [0; 12];
        timeout(Duration::from_secs(1), stream.read_exact(&mut head)).await.ok()?.ok()?;
        (&head == b"HTTP/1.1 200").then_some(())
    })
    .await
    .expect("it recovers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_bootstraps_end_with_a_message() {
    let aliases: String = (0..10)
        .map(|level| {
            format!("a{}: &a{} [{}]\n", level + 1, level + 1, vec![format!("*a{level}"); 9].join(", "))
        })
        .collect();
    let cases = [
        ("binary", b"\0\xff\xfe".to_vec()),
        ("nesting", vec![b'['; 100_000]),
        ("aliases", format!("a0: &a0 [x]\n{aliases}node: {{metadata: {{x: *a10}}}}\n").into_bytes()),
        (
            "nodes",
            format!("static_resources: {{listeners: [{}]}}", "{name: a},".repeat(300_000)).into_bytes(),
        ),
    ];
    for (name, text) in cases {
        let dir = tempfile::tempdir().expect("a folder");
        let (status, output) = validate(dir.path(), &text).await;
        assert_eq!(status, Some(1), "{name}: {output:.300}");
        assert!(output.contains("error") || output.contains("bootstrap"), "{name}: {output:.300}");
    }
}

async fn validate(dir: &Path, bootstrap: &[u8]) -> (Option<i32>, String) {
    let path = dir.join("bootstrap.yaml");
    std::fs::write(&path, bootstrap).expect("written");
    let mut command = Command::new(peers::meltemi());
    command.args(["proxy", "--mode", "validate", "-c"]).arg(&path);
    let mut process = Process::spawn(&mut command, &dir.join("output")).expect("spawned");
    let status = process.wait(PATIENCE).await.expect("it ends");
    (status.code(), process.output())
}
