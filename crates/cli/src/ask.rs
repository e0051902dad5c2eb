//! Questions to an admin interface, of a proxy or of a control plane, over plain HTTP/1.1. Leaves out whose it is and what
//! the answer means.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest answer: the dump of ten thousand services has some 50 MiB.
pub(crate) const MAX_BYTES: usize = 256 << 20;

/// Longest reason of a refusal that is shown.
const MAX_REASON_BYTES: usize = 2000;

/// The body of a page.
///
/// # Errors
/// If there is no answer in time, or it is no success; then with what the answer says.
pub(crate) fn get(address: &str, path: &str) -> anyhow::Result<Vec<u8>> {
    ask(Method::GET, address, path)
}

/// Asks for a change; the body of the answer.
///
/// # Errors
/// As of [`get`].
pub(crate) fn post(address: &str, path: &str) -> anyhow::Result<Vec<u8>> {
    ask(Method::POST, address, path)
}

fn ask(method: Method, address: &str, path: &str) -> anyhow::Result<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async { timeout(PATIENCE, exchange(method, address, path)).await });
    let answer = answer.unwrap_or_else(|_| bail!("no answer within {} s", PATIENCE.as_secs()));
    answer.with_context(|| format!("http://{address}{path} cannot be asked"))
}

async fn exchange(method: Method, address: &str, path: &str) -> anyhow::Result<Vec<u8>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder().method(method).uri(path).header(header::HOST, address);
    let request = request.body(Empty::<Bytes>::new())?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
        let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes().to_vec();
        ensure!(status.is_success(), "the answer is {status}: {}", reason(&body));
        Ok(body)
    };
    let mut exchange = pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // What came before the end is still there to be read.
        ended = connection => {
            ended?;
            exchange.await
        }
    }
}

fn reason(body: &[u8]) -> String {
    let shown = &body[..body.len().min(MAX_REASON_BYTES)];
    String::from_utf8_lossy(shown).trim().chars().filter(|letter| !letter.is_control()).collect()
}

/// `HOST:PORT`, also of a host alone or a URL.
pub(crate) fn with_port(address: &str, port: u16) -> String {
    let authority = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    let has_port = authority.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']'))
    });
    if has_port { authority.to_owned() } else { format!("{authority}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_an_admin_interface_may_be_left_out() {
        for (given, address) in [
            ("10.0.0.1:9901", "10.0.0.1:9901"),
            ("10.0.0.1", "10.0.0.1:15000"),
            ("http://edge:9901/", "edge:9901"),
            ("[::1]", "[::1]:15000"),
            ("[::1]:9901", "[::1]:9901"),
        ] {
            assert_eq!(with_port(given, 15000), address);
        }
    }

    #[test]
    fn a_refusal_is_one_line() {
        assert_eq!(reason(b"no such\x1b[31m page\n"), "no such[31m page");
    }
}
