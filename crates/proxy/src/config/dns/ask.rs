//! Asking for a name: the resolver of a cluster.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use meltemi_compile::program::{DnsFamily, DnsResolver, DnsTargets};

/// What came of a question.
#[derive(Debug)]
pub(super) enum Outcome {
    /// There are addresses, and for how long they hold.
    Found { addresses: Vec<IpAddr>, valid_for: Duration },
    /// The name has no address of the kind that is wanted, or does not exist.
    None,
    /// Nobody knows.
    Failed(String),
}

/// Asks for the names of a cluster.
pub(super) struct Asker {
    resolver: Option<TokioResolver>,
    family: DnsFamily,
    no_search_domain: bool,
}

impl Asker {
    pub(super) fn new(targets: &DnsTargets, cluster: &str) -> Asker {
        let resolver = match resolver(targets.family, &targets.resolver) {
            Ok(resolver) => Some(resolver),
            Err(error) => {
                tracing::warn!(%cluster, %error, "no DNS: cannot read the system's resolver configuration");
                None
            }
        };
        Asker { resolver, family: targets.family, no_search_domain: targets.resolver.no_search_domain }
    }

    /// Asks for a name after a pause; gives the index back.
    pub(super) async fn ask(&self, index: usize, name: Box<str>, pause: Duration) -> (usize, Outcome) {
        tokio::time::sleep(pause).await;
        (index, self.outcome(&name).await)
    }

    async fn outcome(&self, name: &str) -> Outcome {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Outcome::Found { addresses: vec![address], valid_for: Duration::ZERO };
        }
        let Some(resolver) = &self.resolver else { return Outcome::Failed("no resolver".to_owned()) };
        // A final dot keeps search domains away.
        let absolute = self.no_search_domain && !name.ends_with('.');
        let question = if absolute { format!("{name}.") } else { name.to_owned() };
        match resolver.lookup_ip(question).await {
            Ok(answer) => {
                let valid_for = answer.valid_until().saturating_duration_since(Instant::now());
                let mut addresses: Vec<IpAddr> = answer.iter().collect();
                if self.family == DnsFamily::All {
                    addresses.sort_by_key(IpAddr::is_ipv6);
                }
                match addresses.is_empty() {
                    true => Outcome::None,
                    false => Outcome::Found { addresses, valid_for },
                }
            }
            Err(error) if error.is_no_records_found() || error.is_nx_domain() => Outcome::None,
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }
}

fn resolver(family: DnsFamily, settings: &DnsResolver) -> Result<TokioResolver, NetError> {
    let own = || settings.servers.iter().map(|server| name_server(*server, settings.tcp)).collect();
    let (config, system_options) = match settings.servers.is_empty() {
        false if !settings.servers_are_fallback => (ResolverConfig::from_name_servers(own()), None),
        is_empty => match hickory_resolver::system_conf::read_system_conf() {
            Ok((config, options)) if !config.name_servers().is_empty() => (config, Some(options)),
            _ if !is_empty => (ResolverConfig::from_name_servers(own()), None),
            Ok((config, options)) => (config, Some(options)),
            Err(error) => return Err(error),
        },
    };
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    if let Some(system) = system_options {
        *options = system;
    }
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Always;
    options.ip_strategy = match family {
        DnsFamily::Auto => LookupIpStrategy::Ipv6thenIpv4,
        DnsFamily::V4Only => LookupIpStrategy::Ipv4Only,
        DnsFamily::V6Only => LookupIpStrategy::Ipv6Only,
        DnsFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
        DnsFamily::All => LookupIpStrategy::Ipv4AndIpv6,
    };
    if let Some(timeout) = settings.timeout {
        options.timeout = timeout;
    }
    if let Some(tries) = settings.tries {
        options.attempts = usize::try_from(tries).unwrap_or(usize::MAX);
    }
    builder.build()
}

fn name_server(address: std::net::SocketAddr, tcp: bool) -> NameServerConfig {
    let udp = (!tcp).then(ConnectionConfig::udp);
    let connections = udp.into_iter().chain([ConnectionConfig::tcp()]).map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.collect())
}
