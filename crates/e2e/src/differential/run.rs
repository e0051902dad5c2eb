//! Running the calls of a case through a proxy.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use futures::future::join_all;
use http::Request;

use super::calls::Call;
use super::case::{Case, Tokens};
use super::mask::Mask;
use super::observed::{Answer, Observed, Outcome};
use super::proxy::{Proxy, Running, start_with};
use crate::backend::{Backend, Received, dead_port, short};
use crate::client;
use crate::dns::DnsServer;
use crate::process::until;
use crate::tls_client::TlsClient;

/// How long requests are waited for that should have come.
const SETTLE: Duration = Duration::from_secs(3);
/// How long a call with `until` is repeated, and how often.
const REPEAT: Duration = Duration::from_secs(10);
const REPEAT_PAUSE: Duration = Duration::from_millis(20);

impl Case {
    /// Runs the calls through a proxy.
    ///
    /// # Errors
    /// If the proxy does not start.
    pub async fn run(&self, proxy: &Proxy) -> anyhow::Result<Observed> {
        let dir = tempfile::tempdir()?;
        let certificates = self.certificates(dir.path())?;
        let mut backends = Vec::new();
        for spec in &self.calls.backends {
            backends.push(Backend::start_as(spec, &certificates).await?);
        }
        let dns = DnsServer::start(self.calls.dns.clone()).await?;
        let mut ports: Vec<(String, u16)> =
            vec![("dns".to_owned(), dns.address.port()), ("dead".to_owned(), dead_port()?)];
        ports.extend(backends.iter().map(|backend| (backend.name.clone(), backend.address.port())));
        let log = dir.path().join("access.log");
        let hashes = certificates.hashes()?;
        let tokens = Tokens { ports, hashes, dir: dir.path().to_path_buf(), log };
        let bootstrap = dir.path().join("bootstrap.yaml");
        std::fs::write(&bootstrap, self.bootstrap(&tokens)?)?;
        let calls = self.calls(&tokens)?;
        let running = start_with(proxy, &bootstrap, &self.calls.arguments, dir.path())
            .await
            .with_context(|| self.dir.display().to_string())?;
        let mut ports = tokens.ports.clone();
        ports.extend(running.listeners.iter().map(|(name, at)| (format!("listener {name}"), at.port())));
        ports.push(("admin".to_owned(), running.admin.port()));
        let mut mask = Mask::new(ports);
        mask.texts = certificates.masks()?;
        mask.texts.push((dir.path().display().to_string(), "<dir>".to_owned()));
        let mut outcomes = Vec::new();
        // What was received when it was recorded is waited for: backends, mirrors above all, may be a moment behind.
        let recording = self.expected().unwrap_or_default();
        for (index, call) in calls.calls.iter().enumerate() {
            let recorded = recording.calls.get(index).map_or(0, |outcome| outcome.upstream.len());
            let tls = call.tls.as_ref().map(|tls| TlsClient::new(tls, &certificates)).transpose()?;
            outcomes.push(outcome(call, tls.as_ref(), &running, (&backends, recorded), &mask).await?);
        }
        Ok(Observed { calls: outcomes, log: self.log_lines(&tokens.log, recording.log.len(), &mask).await })
    }

    /// The access log, once it has a line for every call, and as many as were `recorded` if several loggers write.
    async fn log_lines(&self, log: &Path, recorded: usize, mask: &Mask) -> Vec<String> {
        let calls = self.calls.calls.iter().filter(|call| !call.admin);
        let called: usize = calls.map(|c| c.repeat.unwrap_or(1).max(c.parallel.unwrap_or(1))).sum();
        let wanted = called.max(recorded);
        let read = || String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
        // A raw call may log more or fewer lines than one, so what is there at the deadline counts.
        let deadline = Duration::from_millis(1500);
        let _complete =
            until("all lines", deadline, async || (read().lines().count() >= wanted).then_some(())).await;
        let is_unordered = |call: &Call| {
            call.count_only || call.parallel.is_some() || call.until.is_some() || call.until_status.is_some()
        };
        if self.differs() || self.calls.calls.iter().any(|call| !call.admin && is_unordered(call)) {
            return Vec::new();
        }
        read().lines().map(|line| mask.text(line)).collect()
    }
}

async fn outcome(
    call: &Call,
    tls: Option<&TlsClient>,
    running: &Running,
    (backends, recorded): (&[Backend], usize),
    mask: &Mask,
) -> anyhow::Result<Outcome> {
    tokio::time::sleep(Duration::from_millis(call.pause_ms)).await;
    let mut outcome = Outcome { name: call.name.clone(), ..Outcome::default() };
    for address in addresses(call, running)? {
        if call.is_raw() {
            outcome.raw = Some(raw(call, address, mask).await?);
        }
        outcome.answers.extend(answers(call, tls, address, mask).await?);
    }
    outcome.upstream = received(call.received.max(recorded), backends, mask).await;
    if call.parallel.is_some() {
        outcome.upstream.sort();
    }
    if call.ignore_upstream || call.until.is_some() || call.until_status.is_some() {
        outcome.upstream.clear();
    }
    if call.count_only {
        outcome.count();
    }
    // Whether the head of a request had left before its body turned out bad is a matter of timing.
    let is_refused = |raw: &client::RawAnswer| raw.statuses.iter().all(|status| *status >= 400);
    if !call.raw_text && outcome.raw.as_ref().is_some_and(is_refused) {
        outcome.upstream.clear();
    }
    Ok(outcome)
}

/// Whom a call calls.
fn addresses(call: &Call, running: &Running) -> anyhow::Result<Vec<SocketAddr>> {
    let one = call.listener.as_deref().unwrap_or("main");
    let address =
        |name: &str| running.listeners.get(name).copied().with_context(|| format!("no listener {name}"));
    match (call.admin, call.listeners.as_slice()) {
        (true, _) => Ok(vec![running.admin]),
        (false, []) => Ok(vec![address(one)?]),
        (false, several) => several.iter().map(|name| address(name)).collect(),
    }
}

/// What the backends received during a call, so many requests at least if they come in time.
async fn received(wanted: usize, backends: &[Backend], mask: &Mask) -> Vec<Received> {
    let mut received = Vec::new();
    let _all = until("all requests", SETTLE, async || {
        received.extend(backends.iter().flat_map(Backend::take).map(|r| mask.received(r)));
        (received.len() >= wanted).then_some(())
    })
    .await;
    received
}

async fn raw(call: &Call, address: SocketAddr, mask: &Mask) -> anyhow::Result<client::RawAnswer> {
    let steps = match (&call.frames, &call.raw) {
        (Some(frames), _) => {
            let frames = client::frames(frames)?.repeat(call.frames_repeat.unwrap_or(1));
            return tokio::task::spawn_blocking(move || client::raw_http2(address, &frames)).await?;
        }
        (None, Some(raw)) => vec![raw.clone()],
        (None, None) => call.raw_steps.clone(),
    };
    let mut raw = tokio::task::spawn_blocking(move || client::raw_steps(address, &steps)).await??;
    raw.text = call.raw_text.then(|| {
        let text = raw.text.unwrap_or_default().concat();
        text.split_inclusive('\n').map(|line| mask.line(line)).collect()
    });
    Ok(raw)
}

async fn answers(
    call: &Call,
    tls: Option<&TlsClient>,
    address: SocketAddr,
    mask: &Mask,
) -> anyhow::Result<Vec<Answer>> {
    if call.until.is_some() || call.until_status.is_some() {
        return Ok(vec![answer_until(call, tls, address, mask).await?]);
    }
    let mut answers = Vec::new();
    for _ in 0..call.repeat.unwrap_or(usize::from(!call.is_raw())) {
        let batch = join_all((0..call.parallel.unwrap_or(1)).map(|_| answer(call, tls, address, mask))).await;
        answers.extend(batch.into_iter().collect::<anyhow::Result<Vec<_>>>()?);
    }
    if call.parallel.is_some() {
        answers.sort();
    }
    Ok(answers)
}

async fn answer_until(
    call: &Call,
    tls: Option<&TlsClient>,
    address: SocketAddr,
    mask: &Mask,
) -> anyhow::Result<Answer> {
    let deadline = Instant::now() + REPEAT;
    loop {
        let answer = answer(call, tls, address, mask).await?;
        let has_text = call.until.as_ref().is_none_or(|text| answer.body.contains(text.as_str()));
        let has_status = call.until_status.is_none_or(|status| status == answer.status);
        if (has_text && has_status) || Instant::now() > deadline {
            return Ok(answer);
        }
        tokio::time::sleep(REPEAT_PAUSE).await;
    }
}

async fn answer(
    call: &Call,
    tls: Option<&TlsClient>,
    address: SocketAddr,
    mask: &Mask,
) -> anyhow::Result<Answer> {
    let host = call.host.as_deref().unwrap_or("shop.example");
    let path = call.path.as_deref().unwrap_or("/");
    let method = call.method.as_deref().unwrap_or("GET");
    let uri = match call.http2 {
        true if method == "CONNECT" => host.to_owned(),
        true if tls.is_some() => format!("https://{host}{path}"),
        true => format!("http://{host}{path}"),
        false => path.to_owned(),
    };
    let mut request = Request::builder().method(method).uri(uri);
    if !call.http2 {
        request = request.header("host", host);
    }
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    let body = if call.body_size > 0 { "b".repeat(call.body_size) } else { call.body.clone() };
    let request = request.body(Bytes::from(body)).with_context(|| call.name.clone())?;
    let cancel = call.cancel_after_ms.map(Duration::from_millis);
    let whole = client::whole_call(address, call.http2, request, &call.trailers, cancel, tls).await?;
    let mut answer = Answer {
        status: whole.status,
        informational: whole.informational,
        headers: masked(&whole.headers, mask),
        body: short(&whole.body),
        trailers: masked(&whole.trailers, mask),
        tls: whole.tls,
        broken: whole.broken,
    };
    answer.headers.retain(|(name, _)| !call.ignore_headers.contains(name));
    if !call.keep.is_empty() {
        let text = String::from_utf8_lossy(&whole.body);
        let mut kept: Vec<&str> = text
            .lines()
            .filter(|line| call.keep.iter().any(|wanted| line.contains(wanted.as_str())))
            .collect();
        kept.sort_unstable();
        answer.body = kept.join("\n");
    }
    if call.admin {
        answer.headers.retain(|(name, _)| name == "content-type");
    }
    answer.body = mask.text(&answer.body);
    Ok(answer)
}

fn masked(headers: &[(String, String)], mask: &Mask) -> Vec<(String, String)> {
    let mut masked: Vec<_> = headers.iter().map(|(name, value)| mask.header(name, value)).collect();
    masked.sort();
    masked
}
