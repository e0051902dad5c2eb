//! Identities for the measured pair of proxies, and the clients that measure TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Both ends of the mutual TLS show it.
const IDENTITY: &str = "spiffe://cluster.local/ns/default/sa/default";
const NAME: &str = "bench";

/// Writes `ca.pem`, `cert.pem`, `key.pem` and `both.pem`: ECDSA P-256, as Istio's CA makes them by default here.
pub(crate) fn write_certificates(dir: &Path) -> anyhow::Result<()> {
    let mut params = CertificateParams::new([])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let mut params = CertificateParams::new([NAME.to_owned()])?;
    // With the name of its issuer it would count as self-signed.
    params.distinguished_name.push(DnType::CommonName, NAME);
    params.subject_alt_names.push(SanType::URI(IDENTITY.try_into()?));
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &ca)?;
    std::fs::write(dir.join("ca.pem"), ca.pem())?;
    std::fs::write(dir.join("cert.pem"), certificate.pem())?;
    std::fs::write(dir.join("key.pem"), key.serialize_pem())?;
    std::fs::write(dir.join("both.pem"), certificate.pem() + &key.serialize_pem())?;
    Ok(())
}

/// A client that trusts the CA of the folder.
fn client(folder: &Path, resumption: Resumption) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem"))?)?;
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.resumption = resumption;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A handshake and a request per connection, `slots` at a time; prints the number of good answers. Resumed handshakes
/// must really be resumed.
pub(crate) fn handshakes(
    address: SocketAddr,
    time: Duration,
    slots: usize,
    folder: &Path,
    is_resumed: bool,
) -> anyhow::Result<()> {
    let resumption = if is_resumed { Resumption::in_memory_sessions(256) } else { Resumption::disabled() };
    let config = client(folder, resumption)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let end = Instant::now() + time;
        let loops = (0..slots).map(|_| async {
            let mut done = 0_u64;
            while Instant::now() < end {
                let kind = handshake(address, config.clone()).await;
                done += u64::from(kind.is_ok_and(|was_resumed| was_resumed == is_resumed));
            }
            done
        });
        futures::future::join_all(loops).await.into_iter().sum::<u64>()
    });
    println!("{done}");
    Ok(())
}

/// One connection; tells whether its session was resumed.
async fn handshake(address: SocketAddr, config: Arc<ClientConfig>) -> anyhow::Result<bool> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let connector = tokio_rustls::TlsConnector::from(config);
    let mut stream = connector.connect(ServerName::try_from(NAME)?, stream).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::with_capacity(2048);
    // A peer that closes without close_notify has answered all the same.
    let _end = stream.read_to_end(&mut answer).await;
    anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200") && answer.len() > 1024, "no good answer");
    Ok(stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed))
}

/// Keep-alive TLS connections that have served a request each.
pub(crate) fn idle_connections(
    address: SocketAddr,
    count: usize,
    folder: &Path,
) -> anyhow::Result<Vec<StreamOwned<ClientConnection, TcpStream>>> {
    let config = client(folder, Resumption::disabled())?;
    (0..count).map(|_| idle_connection(address, config.clone())).collect()
}

fn idle_connection(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> anyhow::Result<StreamOwned<ClientConnection, TcpStream>> {
    let session = ClientConnection::new(config, ServerName::try_from(NAME)?)?;
    let tcp = TcpStream::connect(address)?;
    // Or the request waits for the acknowledgement of the handshake's end.
    tcp.set_nodelay(true)?;
    let mut stream = StreamOwned::new(session, tcp);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")?;
    let (mut buffer, mut got) = ([0; 4096], 0);
    while got < 1024 {
        let count = stream.read(&mut buffer).context("an answer over TLS")?;
        anyhow::ensure!(count > 0, "the connection was closed");
        got += count;
    }
    Ok(stream)
}
