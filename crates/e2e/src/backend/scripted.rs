//! Backends that write given bytes: for answers that no HTTP library would send, and for plain TCP.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Received, short};

/// What a scripted backend does with each connection.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Its name.
    pub name: String,
    /// After each request head (up to an empty line), write this.
    #[serde(default)]
    pub http: Option<String>,
    /// Further pieces, each after a tenth of a second.
    #[serde(default)]
    pub then: Vec<String>,
    /// Write this as soon as a connection is there.
    #[serde(default)]
    pub greeting: Option<String>,
    /// Write back what comes, and close when the peer has finished.
    #[serde(default)]
    pub echo: bool,
    /// Close after the first answer or greeting.
    #[serde(default)]
    pub close: bool,
    /// Accept, and say nothing.
    #[serde(default)]
    pub silent: bool,
}

/// Long enough to arrive as a piece of its own, short enough to be no timeout.
const BETWEEN_PIECES: Duration = Duration::from_millis(100);

pub(super) async fn accept(listener: TcpListener, script: Script, received: Arc<Mutex<Vec<Received>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _nodelay = stream.set_nodelay(true);
        let (script, received) = (script.clone(), Arc::clone(&received));
        tokio::spawn(async move {
            let _ended = serve(stream, &script, &received).await;
        });
    }
}

async fn serve(
    mut stream: TcpStream,
    script: &Script,
    received: &Mutex<Vec<Received>>,
) -> std::io::Result<()> {
    if let Some(greeting) = &script.greeting {
        stream.write_all(greeting.as_bytes()).await?;
    }
    let mut pending = Vec::new();
    let mut all = Vec::new();
    let mut chunk = vec![0; 65536];
    loop {
        if script.close && script.http.is_none() {
            return Ok(());
        }
        let count = stream.read(&mut chunk).await?;
        if count == 0 {
            break;
        }
        all.extend_from_slice(&chunk[..count]);
        if script.echo {
            stream.write_all(&chunk[..count]).await?;
        }
        pending.extend_from_slice(&chunk[..count]);
        while let (Some(answer), Some(end)) = (&script.http, head_end(&pending)) {
            let head: Vec<u8> = pending.drain(..end).collect();
            note(script, &head, received);
            all.clear();
            write(&mut stream, answer, &script.then).await?;
            if script.close {
                return Ok(());
            }
        }
    }
    if script.http.is_none() && !all.is_empty() {
        note(script, &all, received);
    }
    Ok(())
}

async fn write(stream: &mut TcpStream, first: &str, then: &[String]) -> std::io::Result<()> {
    stream.write_all(first.as_bytes()).await?;
    for piece in then {
        tokio::time::sleep(BETWEEN_PIECES).await;
        stream.write_all(piece.as_bytes()).await?;
    }
    Ok(())
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// Raw bytes are told as the lines of a body; for a head the header lines are told too.
fn note(script: &Script, bytes: &[u8], received: &Mutex<Vec<Received>>) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let is_http = script.http.is_some();
    let mut lines = text.lines();
    let first = if is_http { lines.next().unwrap_or_default() } else { "" };
    let mut words = first.split(' ').map(str::to_owned);
    let mut headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": ").filter(|_| is_http))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    headers.sort();
    let request = Received {
        backend: script.name.clone(),
        method: words.next().unwrap_or_default(),
        path: words.next().unwrap_or_default(),
        version: words.next().unwrap_or_default(),
        headers,
        body: if is_http { String::new() } else { short(bytes) },
        trailers: Vec::new(),
    };
    received.lock().expect("no handler panicked").push(request);
}
