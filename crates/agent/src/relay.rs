//! The proxy's way to the control plane: a Unix socket whose connections are carried, byte for byte (but for authorities
//! that are paths, see `authority.rs`), over TLS with the workload's certificate. The proxy speaks plain HTTP/2 and needs
//! neither key nor roots for it; who may use the socket is decided by its permissions. Source: the xDS proxy of Istio's
//! agent, which parses the messages; here nothing is to be changed in them.

use std::io;
use std::sync::Arc;

use meltemi_runtime::task;
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::authority::Lenient;
use crate::limits::{ACCEPT_PAUSE, MAX_RELAYED};
use crate::svid::Current;
use crate::tls::ControlPlane;

/// Serves the socket for ever.
pub(crate) async fn serve(listener: UnixListener, control_plane: ControlPlane, current: Current) {
    let places = Arc::new(Semaphore::new(MAX_RELAYED));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection of the proxy cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (control_plane, current) = (control_plane.clone(), current.clone());
        let relay = async move {
            if let Err(error) = relay(stream, &control_plane, current).await {
                // The proxy sees the end of its connection and comes again.
                tracing::debug!(%error, "the connection to the control plane has ended");
            }
            drop(place);
        };
        task::spawn("relay", relay).detach();
    }
}

async fn relay(stream: UnixStream, control_plane: &ControlPlane, mut current: Current) -> io::Result<()> {
    let mut stream = Lenient::new(stream);
    let svid = current.wait_for(Option::is_some).await.map_err(io::Error::other)?.clone();
    let mut upstream = control_plane.connect(svid.as_deref()).await?;
    copy_bidirectional(&mut stream, &mut upstream).await.map(drop)
}
