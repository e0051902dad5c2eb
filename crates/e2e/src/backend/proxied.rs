//! Backends that want a header of the PROXY protocol in front of each connection, and tell what it says.

use std::net::SocketAddr;

use meltemi_http::proxy_protocol::{self, Header, MAX_BYTES, Parsed, ProxyVersion};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The pseudo header under which a request tells of it.
pub(super) const PSEUDO_HEADER: &str = ":proxy-protocol";

/// Takes the header off a connection; what is there instead when it has none.
pub(super) async fn take(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut seen = vec![0; MAX_BYTES];
    let header = loop {
        let count = stream.peek(&mut seen).await?;
        match proxy_protocol::parse(&seen[..count]) {
            Parsed::Header(header) => break header,
            Parsed::Partial(_) if count > 0 => tokio::task::yield_now().await,
            _ => return Ok("none".to_owned()),
        }
    };
    stream.read_exact(&mut seen[..header.len]).await?;
    Ok(told(&header))
}

fn told(header: &Header) -> String {
    let version = match header.version {
        ProxyVersion::V1 => "v1",
        ProxyVersion::V2 => "v2",
    };
    let mut text = match header.addresses {
        Some((source, destination)) => format!("{version} {} -> {destination}", client(source)),
        None => format!("{version} local"),
    };
    for tlv in &header.tlvs {
        text.push_str(&format!(" {:#04x}={}", tlv.kind, String::from_utf8_lossy(&tlv.value)));
    }
    text
}

/// The port of a client of the test differs from run to run.
fn client(source: SocketAddr) -> String {
    match source.ip().is_loopback() {
        true => format!("{}:<client>", source.ip()),
        false => source.to_string(),
    }
}
