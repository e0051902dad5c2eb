//! Connecting to a host, with the options of its cluster.
//!
//! A host with several addresses is dialled as RFC 8305 says (happy eyeballs): families take turns, and the next address
//! is tried when one failed or takes its time; the first connection that stands is used. Source: `envoy.config.cluster.v3.UpstreamConnectionOptions` and `envoy.config.core.v3.BindConfig`.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use meltemi_compile::program::{Cluster, Host, TcpKeepalive};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

/// How long an address has before the next one is tried beside it; Envoy's value.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(300);

/// The addresses of a host, families in turn, beginning with that of the first.
pub(super) fn in_order(host: &Host) -> Vec<SocketAddr> {
    let mut same: VecDeque<SocketAddr> = VecDeque::from([host.address]);
    let mut other = VecDeque::new();
    for address in &host.additional_addresses {
        let is_same = address.is_ipv4() == host.address.is_ipv4();
        if is_same { same.push_back(*address) } else { other.push_back(*address) }
    }
    let mut ordered = Vec::with_capacity(1 + host.additional_addresses.len());
    while !same.is_empty() || !other.is_empty() {
        ordered.extend(same.pop_front());
        ordered.extend(other.pop_front());
    }
    ordered
}

/// Connects to the first address that answers.
pub(super) async fn dial(addresses: &[SocketAddr], cluster: &Cluster) -> io::Result<TcpStream> {
    if let [address] = addresses {
        return connect(*address, cluster).await;
    }
    let mut under_way = FuturesUnordered::new();
    let mut rest = addresses.iter();
    loop {
        under_way.extend(rest.next().map(|address| connect(*address, cluster)));
        let has_more = rest.len() > 0;
        tokio::select! {
            Some(connected) = under_way.next() => match connected {
                Err(error) if under_way.is_empty() && !has_more => return Err(error),
                Err(_) => {}
                Ok(stream) => return Ok(stream),
            },
            () = tokio::time::sleep(NEXT_ADDRESS_AFTER), if has_more => {}
            else => return Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }
}

async fn connect(address: SocketAddr, cluster: &Cluster) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Without it small writes wait for acknowledgements; a failure only costs speed.
    let _ = socket.set_nodelay(true);
    let options = &cluster.connection;
    if let Some(keepalive) = &options.tcp_keepalive {
        SockRef::from(&socket).set_tcp_keepalive(&probes(keepalive))?;
    }
    if let Some(source) = options.source_for(address) {
        bind(&socket, source, options.freebind)?;
    }
    socket.connect(address).await
}

fn bind(socket: &TcpSocket, source: SocketAddr, freebind: bool) -> io::Result<()> {
    let raw = SockRef::from(socket);
    if freebind && source.is_ipv4() {
        raw.set_freebind_v4(true)?;
    } else if freebind {
        raw.set_freebind_v6(true)?;
    }
    socket.bind(source)
}

fn probes(keepalive: &TcpKeepalive) -> socket2::TcpKeepalive {
    let mut probes = socket2::TcpKeepalive::new();
    if let Some(time) = keepalive.time {
        probes = probes.with_time(time);
    }
    if let Some(interval) = keepalive.interval {
        probes = probes.with_interval(interval);
    }
    if let Some(count) = keepalive.probes {
        probes = probes.with_retries(count);
    }
    probes
}

/// Envoy's words: `delayed connect error: Connection refused`.
pub(super) fn failure_reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    format!("delayed connect error: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let host = Host {
            address: address("[::1]:80"),
            additional_addresses: ["[::2]:80", "1.1.1.1:80", "1.1.1.2:80", "1.1.1.3:80"]
                .map(address)
                .to_vec(),
            ..Host::default()
        };
        let expected = ["[::1]:80", "1.1.1.1:80", "[::2]:80", "1.1.1.2:80", "1.1.1.3:80"].map(address);
        assert_eq!(in_order(&host), expected);
    }
}
