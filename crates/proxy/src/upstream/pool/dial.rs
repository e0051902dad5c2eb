//! Connecting to a host, with the options of its cluster.
//!
//! Source: `envoy.config.cluster.v3.UpstreamConnectionOptions` and `envoy.config.core.v3.BindConfig`.

use std::io;
use std::net::SocketAddr;

use meltemi_compile::program::{Cluster, TcpKeepalive};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

/// Connects.
pub(super) async fn dial(address: SocketAddr, cluster: &Cluster) -> io::Result<TcpStream> {
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
