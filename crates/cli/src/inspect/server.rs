//! The certificates that a live server shows. Nothing is sent to it but a TLS hello, and it is not believed. Leaves out what
//! they say.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

/// How long a server may take for all of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The chain that a server shows.
///
/// # Errors
/// If it is not reached, does not speak TLS, or takes too long.
pub(super) fn shown_by(target: &str, name: Option<&str>) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let (host, _) = target.rsplit_once(':').context("it has no port")?;
    let name = name.unwrap_or(host.trim_matches(['[', ']'])).to_owned();
    let name = ServerName::try_from(name.clone()).with_context(|| format!("{name:?} is no server name"))?;
    let addresses: Vec<SocketAddr> = target.to_socket_addrs().context("its name is not known")?.collect();
    let end = Instant::now() + PATIENCE;
    let mut stream = Hurried { stream: connect(&addresses, end)?, end };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let mut connection = ClientConnection::new(Arc::new(config), name)?;
    // A server that wants a certificate from us may refuse after it has shown its own.
    let outcome = connection.complete_io(&mut stream);
    match connection.peer_certificates() {
        Some(chain) => Ok(chain.iter().map(|der| der.clone().into_owned()).collect()),
        None => match outcome {
            Ok(_) => bail!("it has shown no certificate"),
            Err(error) => Err(error).context("it has shown no certificate; does it speak TLS?"),
        },
    }
}

/// To the first address that answers.
fn connect(addresses: &[SocketAddr], end: Instant) -> anyhow::Result<TcpStream> {
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(address, left(end)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some((address, error)),
        }
    }
    match last {
        Some((address, error)) => Err(error).with_context(|| format!("{address} cannot be reached")),
        None => bail!("its name has no address"),
    }
}

/// What is left of the time; the system takes no timeout of zero.
fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(too_late()) } else { Ok(left) }
}

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", PATIENCE.as_secs()))
}

/// A connection all of whose steps together have a deadline: a server that sends an octet now and then gets no more.
struct Hurried {
    stream: TcpStream,
    end: Instant,
}

impl Read for Hurried {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.end)?))?;
        self.stream.read(buffer).map_err(timeout)
    }
}

impl Write for Hurried {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(left(self.end)?))?;
        self.stream.write(bytes).map_err(timeout)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// The system calls a timeout "temporarily unavailable".
fn timeout(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { too_late() } else { error }
}

/// Believes every certificate, for looking at it; nothing is sent to the server.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
