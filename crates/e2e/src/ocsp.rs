//! OCSP responses of a test, which openssl makes.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use serde::Deserialize;

/// What a case says of a response. By default it is good for a day from now.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OcspSpec {
    /// The certificate that it is for.
    pub of: String,
    /// Who signed that, and signs this.
    pub issuer: String,
    /// Its time is over.
    pub expired: bool,
    /// It does not say until when it is good.
    pub endless: bool,
}

/// Makes `NAME.der` beside the certificates.
///
/// # Errors
/// If openssl is missing or makes none.
pub fn respond(name: &str, spec: &OcspSpec, dir: &Path) -> anyhow::Result<()> {
    let OcspSpec { of, issuer, expired, endless } = spec;
    std::fs::write(dir.join("ocsp-index"), "")?;
    let file = format!("{name}.der");
    let mut command = Command::new("openssl");
    command
        .current_dir(dir)
        .args(["ocsp", "-index", "ocsp-index", "-CA", &format!("{issuer}.pem"), "-resp_no_certs"])
        .args(["-rsigner", &format!("{issuer}.pem"), "-rkey", &format!("{issuer}.key")])
        .args(["-issuer", &format!("{issuer}.pem"), "-cert", &format!("{of}.pem"), "-respout", &file]);
    if !endless {
        command.args(["-ndays", "1"]);
    }
    let output = command.output().context("openssl runs")?;
    if !output.status.success() {
        bail!("openssl ocsp: {}", String::from_utf8_lossy(&output.stderr));
    }
    if *expired {
        let path = dir.join(&file);
        let mut response = std::fs::read(&path)?;
        expire(&mut response)?;
        std::fs::write(path, response)?;
    }
    Ok(())
}

/// openssl makes none that are over, so the year of `nextUpdate` is written over. Servers do not look at the signature.
fn expire(response: &mut [u8]) -> anyhow::Result<()> {
    // GeneralizedTime of 15 bytes: producedAt, thisUpdate, nextUpdate.
    const TIME: &[u8] = b"\x18\x0f20";
    let times = response.windows(TIME.len()).enumerate().filter(|(_, bytes)| *bytes == TIME);
    let (at, _) = times.into_iter().nth(2).context("there is no nextUpdate")?;
    response[at + 2..at + 6].copy_from_slice(b"2001");
    Ok(())
}
