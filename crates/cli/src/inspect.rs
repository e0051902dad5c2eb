//! `meltemi cert inspect`: what certificates say, in a file or shown by a TLS server. A server's certificate is shown
//! whether it is to be believed or not; that is the question to answer. Leaves out private keys.

mod server;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use clap::Args;
use meltemi_identity::{AlternativeName, Certificate, certificates_from_pem};
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use serde_json::json;

use crate::validate::Output;

/// Exit code when a certificate is not good now.
const NOT_GOOD: u8 = 1;
/// Exit code when there is none to be shown; also clap's for wrong usage.
const TROUBLE: u8 = 2;

/// Largest file: a bundle of every public authority has 300 KiB.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Show what certificates say: a PEM file, or a live server (HOST:PORT).
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
    meltemi cert inspect root-cert.pem                 every certificate of a file\n  \
    meltemi cert inspect 10.0.0.1:15012                what a server shows, to be believed or not\n  \
    meltemi cert inspect edge:443 --name shop.example  what it shows to who asks for that name\n\n\
    Exit code: 0 when all are good now, 1 when one is expired or not valid yet, 2 when there is none to be shown.")]
pub struct InspectArgs {
    /// A PEM file, or HOST:PORT of a TLS server
    #[arg(value_name = "FILE|HOST:PORT")]
    pub target: String,

    /// The server name to ask for (SNI); by default the host
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Prints the certificates. The exit code is 1 if one of them is not good now, 2 with a message if there are none to be had.
///
/// # Errors
/// If standard output cannot be written to.
pub fn inspect(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let now = SystemTime::now();
    let read = certificates(args).and_then(|ders| {
        let facts = ders.iter().enumerate().map(|(index, der)| {
            Certificate::from_der(der).with_context(|| format!("{}: certificate {}", args.target, index + 1))
        });
        facts.collect::<anyhow::Result<Vec<_>>>()
    });
    let certificates = match read {
        Ok(certificates) => certificates,
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            return Ok(ExitCode::from(TROUBLE));
        }
    };
    let mut out = io::stdout().lock();
    match args.output {
        // A certificate has more to say than a row holds.
        Output::Text | Output::Table => {
            for (index, certificate) in certificates.iter().enumerate() {
                print(&mut out, index + 1, certificate, now)?;
            }
        }
        Output::Json | Output::Yaml => {
            let all: Vec<Shown<'_>> =
                certificates.iter().map(|certificate| Shown::new(certificate, now)).collect();
            let all = json!({ "certificates": all });
            match args.output {
                Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?,
                _ => out.write_all(serde_saphyr::to_string(&all)?.as_bytes())?,
            }
        }
    }
    out.flush()?;
    let all_good = certificates.iter().all(|certificate| certificate.check_time(now).is_ok());
    Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::from(NOT_GOOD) })
}

/// Those of the file or the server.
fn certificates(args: &InspectArgs) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let target = &args.target;
    let path = Path::new(target);
    if path.exists() {
        return in_file(path).with_context(|| target.clone());
    }
    ensure!(
        target.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()),
        "{target}: there is no such file; a live server is named by HOST:PORT"
    );
    server::shown_by(target, args.name.as_deref()).with_context(|| format!("the server {target}"))
}

fn in_file(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    ensure!(!path.is_dir(), "it is a directory: name a PEM file");
    // A pipe would be waited for.
    ensure!(path.is_file(), "it is no regular file");
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text))?;
    ensure!(text.len() as u64 <= MAX_FILE_BYTES, "it is larger than {} MiB", MAX_FILE_BYTES >> 20);
    Ok(certificates_from_pem(&text)?)
}

/// A certificate for machines.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'c> {
    subject: &'c str,
    issuer: &'c str,
    san: Vec<String>,
    key: &'c str,
    is_authority: bool,
    serial_number: &'c str,
    sha256: &'c str,
    not_before: String,
    not_after: String,
    valid: bool,
}

impl Shown<'_> {
    fn new(certificate: &Certificate, now: SystemTime) -> Shown<'_> {
        Shown {
            subject: &certificate.subject,
            issuer: &certificate.issuer,
            san: certificate.names.iter().map(name).collect(),
            key: &certificate.key,
            is_authority: certificate.is_authority,
            serial_number: &certificate.serial,
            sha256: &certificate.fingerprint,
            not_before: moment(certificate.not_before),
            not_after: moment(certificate.not_after),
            valid: certificate.check_time(now).is_ok(),
        }
    }
}

/// A name without its kind.
pub(crate) fn name(name: &AlternativeName) -> String {
    match name {
        AlternativeName::Uri(name) | AlternativeName::Dns(name) | AlternativeName::Other(name) => {
            name.clone()
        }
        AlternativeName::Ip(address) => address.to_string(),
    }
}

/// As RFC 3339 writes times.
pub(crate) fn moment(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|time| time.to_string()).unwrap_or_default()
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
pub(crate) fn validity(certificate: &Certificate, now: SystemTime) -> String {
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

    fn refusal(target: &str) -> String {
        let args = InspectArgs { target: target.to_owned(), name: None, output: Output::Text };
        format!("{:#}", certificates(&args).unwrap_err())
    }

    #[test]
    fn what_cannot_be_shown_says_why() {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name).display().to_string();
        let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
        let domain = "td".parse().unwrap();
        let (pem, _) =
            Authority::make_root(&domain, KeyKind::EcdsaP256, SystemTime::now(), Serial::new([1; 16]))
                .unwrap();
        write("cut", &pem[..pem.len() / 2]);
        write("text", "hello");
        write("garbage", "-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n");
        for (target, told) in [
            (path("none.pem"), "there is no such file; a live server is named by HOST:PORT"),
            (scratch.path().display().to_string(), "it is a directory: name a PEM file"),
            (path("cut"), "broken PEM"),
            (path("text"), "there is no certificate in it"),
            (path("garbage"), "broken PEM"),
            ("/dev/null".to_owned(), "it is no regular file"),
            ("127.0.0.1:99999".to_owned(), "there is no such file"),
        ] {
            let refusal = refusal(&target);
            assert!(refusal.contains(told) && refusal.contains(&target), "{target}: {refusal}");
        }
    }

    #[test]
    fn a_server_that_is_away_hangs_or_speaks_no_tls_is_told_from_the_others() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let plain = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
            listener
        });
        let refused = refusal(&address);
        assert!(refused.contains("does it speak TLS?"), "{refused}");
        // Now nobody accepts: the kernel does, and nothing comes.
        let listener = plain.join().unwrap();
        let hung = refusal(&address);
        assert!(hung.contains("no answer within 5 s"), "{hung}");
        drop(listener);
        let away = refusal(&address);
        assert!(away.contains("cannot be reached") && away.contains("refused"), "{away}");
    }

    #[test]
    fn machines_get_the_same_facts() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (pem, _) =
            Authority::make_root(&"td".parse().unwrap(), KeyKind::EcdsaP256, now, Serial::new([1; 16]))
                .unwrap();
        let certificate = Certificate::from_der(&certificates_from_pem(pem.as_bytes()).unwrap()[0]).unwrap();
        let shown = json!(Shown::new(&certificate, now));
        assert_eq!((&shown["subject"], &shown["valid"]), (&json!("O=td"), &json!(true)));
        assert_eq!(shown["notAfter"], "2037-01-12T08:00:00Z");
        assert_eq!(
            json!(Shown::new(&certificate, certificate.not_after + Duration::from_secs(1)))["valid"],
            false
        );
    }
}
