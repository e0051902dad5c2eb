//! `meltemi cert inspect`: what certificates say, in a file or shown by a TLS server. A server's certificate is shown
//! whether it is to be believed or not; that is the question to answer. Leaves out private keys.

use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::Args;
use meltemi_identity::{AlternativeName, Certificate, certificates_from_pem};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Show what certificates say: a PEM file, or a live server (HOST:PORT).
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// A PEM file, or HOST:PORT of a TLS server
    #[arg(value_name = "FILE|HOST:PORT")]
    pub target: String,

    /// The server name to ask for (SNI); by default the host
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

/// Prints the certificates. The exit code is 1 if one of them is not good now.
///
/// # Errors
/// If there are none to be had, or standard output cannot be written to.
pub fn inspect(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let path = Path::new(&args.target);
    let certificates = match path.exists() {
        true => {
            let text = std::fs::read(path).with_context(|| format!("read {}", args.target))?;
            certificates_from_pem(&text).with_context(|| args.target.clone())?
        }
        false => shown_by(&args.target, args.name.as_deref())
            .with_context(|| format!("{} is no file, and as a server", args.target))?,
    };
    let now = SystemTime::now();
    let mut out = io::stdout().lock();
    let mut all_good = true;
    for (index, der) in certificates.iter().enumerate() {
        let certificate = Certificate::from_der(der).with_context(|| format!("certificate {}", index + 1))?;
        all_good &= certificate.check_time(now).is_ok();
        print(&mut out, index + 1, &certificate, now)?;
    }
    Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(out: &mut impl Write, number: usize, certificate: &Certificate, now: SystemTime) -> io::Result<()> {
    let or_none = |text: &str| if text.is_empty() { "(none)".to_owned() } else { text.to_owned() };
    writeln!(out, "certificate {number}")?;
    writeln!(out, "  subject      {}", or_none(&certificate.subject))?;
    writeln!(out, "  issuer       {}", or_none(&certificate.issuer))?;
    for name in &certificate.names {
        match name {
            AlternativeName::Uri(uri) => writeln!(out, "  URI          {uri}")?,
            AlternativeName::Dns(name) => writeln!(out, "  DNS          {name}")?,
            AlternativeName::Ip(address) => writeln!(out, "  IP           {address}")?,
            AlternativeName::Other(name) => writeln!(out, "  name         {name}")?,
        }
    }
    let authority = if certificate.is_authority { ", may sign others" } else { "" };
    writeln!(out, "  key          {}{authority}", certificate.key)?;
    writeln!(out, "  serial       {}", certificate.serial)?;
    writeln!(out, "  fingerprint  SHA-256 {}", certificate.fingerprint)?;
    writeln!(out, "  validity     {}", validity(certificate, now))
}

/// From when to when in words of now: people ask how long is left.
fn validity(certificate: &Certificate, now: SystemTime) -> String {
    if let Ok(until) = certificate.not_before.duration_since(now)
        && !until.is_zero()
    {
        return format!("NOT YET: begins in {}", span(until));
    }
    let whole = certificate.not_after.duration_since(certificate.not_before).unwrap_or_default();
    match certificate.not_after.duration_since(now) {
        Ok(left) => format!("{} left of {}", span(left), span(whole)),
        Err(over) => format!("EXPIRED {} ago", span(over.duration())),
    }
}

fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h {minutes}m"),
        (days, hours, ..) => format!("{days}d {hours}h"),
    }
}

/// The chain that a server shows.
fn shown_by(target: &str, name: Option<&str>) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let (host, _) = target.rsplit_once(':').context("it has no port")?;
    let name = name.unwrap_or(host.trim_matches(['[', ']'])).to_owned();
    let name = ServerName::try_from(name.clone()).with_context(|| format!("{name:?} is no server name"))?;
    let address = target.to_socket_addrs()?.next().context("the name has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
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
            Err(error) => Err(error.into()),
        },
    }
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

#[cfg(test)]
mod tests {
    use meltemi_identity::{Authority, KeyKind, Serial};

    use super::*;

    #[test]
    fn a_certificate_is_shown_with_the_time_that_is_left() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (pem, _) =
            Authority::make_root(&"td".parse().unwrap(), KeyKind::EcdsaP256, now, Serial::new([1; 16]))
                .unwrap();
        let certificate = Certificate::from_der(&certificates_from_pem(pem.as_bytes()).unwrap()[0]).unwrap();
        let mut out = Vec::new();
        print(&mut out, 1, &certificate, now).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("  subject      O=td\n")
                && text.contains("  key          EC 256, may sign others\n")
        );
        assert!(text.ends_with("  validity     3650d 0h left of 3650d 0h\n"), "{text}");
        let late = certificate.not_after + Duration::from_secs(61);
        assert_eq!(validity(&certificate, late), "EXPIRED 1m 1s ago");
        let early = certificate.not_before - Duration::from_secs(5);
        assert_eq!(validity(&certificate, early), "NOT YET: begins in 5s");
    }
}
