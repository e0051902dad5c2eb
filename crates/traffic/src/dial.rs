//! Connecting to a target.

use std::io;
use std::time::Duration;

use meltemi_http::Io;
use tokio::net::TcpStream;

/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to `host:port`; tries the addresses of a name in the resolver's order.
pub(crate) async fn dial(host: &str, port: u16) -> io::Result<Io> {
    let connecting = TcpStream::connect((host, port));
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(Io::Tcp(stream))
}
