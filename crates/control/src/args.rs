//! The command line of `meltemi control-plane`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;
use meltemi_identity::{KeyKind, TrustDomain};

use crate::ca::JwtRule;
use crate::limits::{KEEP_GENERATIONS, MAX_KEEP_GENERATIONS};

/// Serve the mesh of a directory to its proxies, as Envoy xDS.
///
/// Reads Istio and Kubernetes objects from YAML, reads them again whenever a file changes, and pushes Envoy
/// configuration (LDS, RDS, CDS, EDS over ADS) to every proxy that connects. What is wrong with the files is
/// printed with an excerpt; the last good version of a broken object stays in force. `meltemi up` starts a
/// control plane itself.
#[derive(Debug, Clone, Args)]
pub struct ControlPlaneArgs {
    /// Directory (or file) of YAML or JSON objects, read recursively and watched. May be given several times.
    #[arg(long, value_name = "DIR", required = true)]
    pub config: Vec<PathBuf>,

    /// File of objects that another process maintains (`meltemi up` writes its replicas there); watched, and
    /// may appear later. May be given several times.
    #[arg(long, value_name = "FILE")]
    pub state: Vec<PathBuf>,

    /// Where proxies connect in plaintext: ADS over gRPC, state of the world and delta. Anybody who reaches it is served,
    /// so an address that is not loopback also needs --allow-plaintext.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:15010")]
    pub xds_address: SocketAddr,

    /// Serve plaintext xDS on an address that other machines reach.
    #[arg(long)]
    pub allow_plaintext: bool,

    /// Identity: the certificate authority and the TLS port.
    #[command(flatten)]
    pub identity: CaArgs,

    /// Where /ready, /metrics and /debug are served.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:15014")]
    pub admin_address: SocketAddr,

    /// Where proxies write their access log unless MeshConfig says it (`accessLogFile`); without either there is none.
    #[arg(long, value_name = "PATH")]
    pub access_log_file: Option<String>,

    /// Refuse a whole generation if anything in it is an error, instead of leaving out what is broken: the last good one
    /// stays in force.
    #[arg(long)]
    pub strict: bool,

    /// Keep the last generations in this directory, so that `meltemi rollback` can serve an earlier one. It is made for its
    /// owner alone; the data of Secrets is not in it. Without this none is kept.
    #[arg(long, value_name = "DIR")]
    pub generations_directory: Option<PathBuf>,

    /// How many generations are kept.
    #[arg(long, value_name = "N", default_value_t = KEEP_GENERATIONS, value_parser = kept)]
    pub keep_generations: usize,

    /// Log level: trace, debug, info, warning, error, critical or off.
    #[arg(short = 'l', long, value_name = "LEVEL", default_value = "info")]
    pub log_level: meltemi_runtime::logging::Level,

    /// Colour what is printed even when standard output is not a terminal.
    #[arg(long, env = "FORCE_COLOR", hide = true, default_value = "", hide_default_value = true)]
    pub force_color: String,
}

/// The certificate authority, and the port on which it and xDS are served over TLS.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Identity")]
pub struct CaArgs {
    /// Sign certificates for workloads with the authority in this directory: ca-cert.pem, ca-key.pem, root-cert.pem and
    /// cert-chain.pem, as Istio's `cacerts` holds them. An empty or missing directory gets a self-signed root. The files
    /// are read again when they change. Without this there is no authority and no TLS port.
    #[arg(long, value_name = "DIR")]
    pub ca_directory: Option<PathBuf>,

    /// Where certificates and xDS are served over TLS. A proxy gets its configuration only with the certificate of its
    /// own namespace and service account.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:15012")]
    pub secure_address: SocketAddr,

    /// The first part of every identity: spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT. Without it what MeshConfig
    /// says at the start (`trustDomain`), else cluster.local.
    #[arg(long, value_name = "NAME")]
    pub trust_domain: Option<TrustDomain>,

    /// A former trust domain, whose certificates are accepted as well; without it those of MeshConfig at the start
    /// (`trustDomainAliases`). May be given several times.
    #[arg(long, value_name = "NAME")]
    pub trust_domain_alias: Vec<TrustDomain>,

    /// The kind of key of a root that is made: ecdsa-p256, ecdsa-p384, rsa-2048 or rsa-4096.
    #[arg(long, value_name = "KIND", default_value = "ecdsa-p256")]
    pub ca_key_kind: KeyKind,

    /// How long certificates of workloads are good when they ask for no time: 30s, 10m, 24h, 90d.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub workload_cert_ttl: Duration,

    /// How long certificates of workloads are good at most.
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = duration)]
    pub max_workload_cert_ttl: Duration,

    /// File of 32 random bytes, shared with who starts workloads: they make one-time credentials with it.
    #[arg(long, value_name = "FILE")]
    pub credential_key: Option<PathBuf>,

    /// Believe the tokens of an OpenID provider: JSON as in Istio's JWT_RULE, with issuer, audiences, and jwksUri or jwks
    /// (else the issuer's discovery document says where its keys are). A token's subject must be
    /// system:serviceaccount:NAMESPACE:NAME.
    #[arg(long, value_name = "JSON", env = "JWT_RULE")]
    pub jwt_rule: Option<JwtRule>,

    /// Addresses whose x-forwarded-client-cert names the caller of the authority: a proxy of yours that ends TLS in front
    /// of it. May be given several times.
    #[arg(long, value_name = "CIDR")]
    pub trusted_xfcc_addresses: Vec<IpNet>,
}

/// `30s`, `10m`, `24h` or `90d`; at least a second.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: a number and s, m, h or d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number: u32 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    match Duration::from_secs(u64::from(number) * seconds) {
        Duration::ZERO => Err("it must be at least a second".to_owned()),
        time => Ok(time),
    }
}

/// A number of generations.
fn kept(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|error| format!("{error}"))?;
    match number <= MAX_KEEP_GENERATIONS {
        true => Ok(number),
        false => Err(format!("at most {MAX_KEEP_GENERATIONS}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("90d"), Ok(Duration::from_secs(90 * 24 * 3600)));
        for text in ["", "s", "10", "1.5h", "-1s", "0s", "10x", "é"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
