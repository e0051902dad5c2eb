//! `meltemi cert issue` and `meltemi cert rotate-root`: work on the files of a certificate authority, with or without a
//! control plane that runs from them.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::Args;
use meltemi_identity::{Csr, Key, KeyKind, Serial, SpiffeId, TrustDomain, certificates_to_pem};

use crate::args::duration;
use crate::ca::{Directory, Progress, Rotation};

/// Issue a certificate from the files of an authority, for a machine that no control plane reaches.
#[derive(Debug, Clone, Args)]
pub struct IssueArgs {
    /// Directory of the authority, as `meltemi control-plane --ca-directory` has it.
    #[arg(long, value_name = "DIR")]
    pub ca_directory: PathBuf,

    /// Whose certificate: spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT.
    #[arg(long, value_name = "SPIFFE-ID")]
    pub identity: SpiffeId,

    /// How long it is good: 30s, 10m, 24h, 90d.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub ttl: Duration,

    /// The kind of key: ecdsa-p256, ecdsa-p384, rsa-2048 or rsa-4096.
    #[arg(long, value_name = "KIND", default_value = "ecdsa-p256")]
    pub key_kind: KeyKind,

    /// Where key.pem, cert-chain.pem and root-cert.pem are written; existing ones are not replaced.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
}

/// Change the self-signed root of an authority without breaking a running mesh.
///
/// The new root is trusted first, signs once every workload has heard of it, and the old one is trusted no more once
/// nothing lives that it has signed. Where the change is stands in the files: stop it at any time and run the command
/// again. A running control plane follows by itself.
#[derive(Debug, Clone, Args)]
pub struct RotateRootArgs {
    /// Directory of the authority, as `meltemi control-plane --ca-directory` has it.
    #[arg(long, value_name = "DIR")]
    pub ca_directory: PathBuf,

    /// The trust domain of the authority.
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    pub trust_domain: TrustDomain,

    /// The kind of the new key: ecdsa-p256, ecdsa-p384, rsa-2048 or rsa-4096.
    #[arg(long, value_name = "KIND", default_value = "ecdsa-p256")]
    pub key_kind: KeyKind,

    /// The longest life of a certificate in the mesh, which decides how long each step waits.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub cert_ttl: Duration,

    /// Wait for each step and do all of them; otherwise do what is due now and say what comes next.
    #[arg(long)]
    pub wait: bool,
}

/// Issues a certificate into files.
///
/// # Errors
/// If the authority cannot be used, or a file exists already.
pub fn issue(args: &IssueArgs) -> anyhow::Result<ExitCode> {
    let now = SystemTime::now();
    let domain = args.identity.trust_domain().clone();
    let authority = Directory::new(args.ca_directory.clone(), domain, KeyKind::default()).load(now)?;
    let key = Key::generate(args.key_kind)?;
    let csr = Csr::from_pem(Csr::make(&key, &args.identity)?.as_bytes())?;
    let serial = Serial::new(meltemi_identity::random()?);
    let issued = authority.sign(&csr, &args.identity, args.ttl, now, serial)?;
    fs::create_dir_all(&args.out).with_context(|| format!("create {}", args.out.display()))?;
    write_new(&args.out, "key.pem", 0o600, key.to_pem().as_bytes())?;
    write_new(&args.out, "cert-chain.pem", 0o644, certificates_to_pem(&issued.chain).as_bytes())?;
    write_new(&args.out, "root-cert.pem", 0o644, certificates_to_pem(&issued.roots).as_bytes())?;
    println!("{}: key.pem, cert-chain.pem, root-cert.pem in {}", args.identity, args.out.display());
    Ok(ExitCode::SUCCESS)
}

fn write_new(directory: &Path, name: &str, mode: u32, text: &[u8]) -> anyhow::Result<()> {
    let path = directory.join(name);
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
    file.and_then(|mut file| file.write_all(text)).with_context(|| format!("write {}", path.display()))
}

/// Changes the root, step by step, and tells each on standard output.
///
/// # Errors
/// If the files cannot be used, or the root was not made here.
pub fn rotate_root(args: &RotateRootArgs) -> anyhow::Result<ExitCode> {
    if !args.ca_directory.is_dir() {
        bail!("{} is no directory", args.ca_directory.display());
    }
    let directory = Directory::new(args.ca_directory.clone(), args.trust_domain.clone(), args.key_kind);
    let rotation = Rotation::new(directory, args.ca_directory.clone(), args.key_kind, args.cert_ttl);
    loop {
        let now = SystemTime::now();
        let due = match rotation.step(now)? {
            Progress::Announced => {
                println!("1 of 3: a new root is made, and trusted beside the old one");
                continue;
            }
            Progress::Spreading(due) => {
                tell("workloads hear of the new root as they renew; it can sign", due, now);
                due
            }
            Progress::Switched => {
                println!("2 of 3: the new root signs");
                continue;
            }
            Progress::Retiring(due) => {
                tell("certificates of the old root still live; it can go", due, now);
                due
            }
            Progress::Done => {
                println!("3 of 3: the old root is trusted no more; the change is done");
                return Ok(ExitCode::SUCCESS);
            }
        };
        if !args.wait {
            println!("run the command again then, or with --wait; it may be stopped at any time");
            return Ok(ExitCode::SUCCESS);
        }
        // In steps, because the clock may be set meanwhile.
        while let Ok(left) = due.duration_since(SystemTime::now()) {
            std::thread::sleep(left.min(Duration::from_secs(30)));
        }
    }
}

fn tell(what: &str, due: SystemTime, now: SystemTime) {
    let left = due.duration_since(now).unwrap_or_default();
    let (hours, minutes, seconds) = (left.as_secs() / 3600, left.as_secs() / 60 % 60, left.as_secs() % 60);
    println!("        {what} in {hours:02}:{minutes:02}:{seconds:02}");
}
