//! Whom a cluster asks for names: `typed_dns_resolver_config`, and the fields that came before it.
//!
//! The settings of c-ares that have a meaning for any resolver are used; the others tune c-ares itself.

use std::net::SocketAddr;
use std::time::Duration;

use meltemi_envoy::config::cluster::v3 as proto;
use meltemi_envoy::config::core::v3::{
    Address, DnsResolutionConfig, DnsResolverOptions, TypedExtensionConfig,
};
use meltemi_envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use meltemi_envoy::extensions::network::dns_resolver::getaddrinfo::v3::GetAddrInfoDnsResolverConfig;

use crate::extension::unpack;
use crate::ledger::{At, harmless, refuse};
use crate::program::DnsResolver;
use crate::scalar::socket_addr;

/// The port of a name server that is given without one.
const DNS_PORT: u16 = 53;

/// Compiles what is set; the typed form wins, as in Envoy.
#[expect(deprecated, reason = "the old fields still work")]
pub(super) fn compile(at: &At<'_>, message: &proto::Cluster) -> Option<DnsResolver> {
    if let Some(typed) = &message.typed_dns_resolver_config {
        return typed_config(&at.field("typed_dns_resolver_config"), typed);
    }
    if let Some(config) = &message.dns_resolution_config {
        return resolution_config(&at.field("dns_resolution_config"), config);
    }
    Some(DnsResolver {
        servers: servers(at, "dns_resolvers", &message.dns_resolvers),
        tcp: message.use_tcp_for_dns_lookups,
        ..DnsResolver::default()
    })
}

fn resolution_config(at: &At<'_>, message: &DnsResolutionConfig) -> Option<DnsResolver> {
    let DnsResolutionConfig { resolvers, dns_resolver_options } = message;
    let resolver = DnsResolver { servers: servers(at, "resolvers", resolvers), ..DnsResolver::default() };
    Some(options(resolver, dns_resolver_options.as_ref()))
}

fn typed_config(at: &At<'_>, message: &TypedExtensionConfig) -> Option<DnsResolver> {
    let at = at.field("typed_config");
    let Some(any) = &message.typed_config else { return at.none("must be set") };
    if any.is::<CaresDnsResolverConfig>() {
        return cares(&at, &unpack(&at, any)?);
    }
    if any.is::<GetAddrInfoDnsResolverConfig>() {
        // The resolver of the system: the one that is used when nothing is set.
        let message: GetAddrInfoDnsResolverConfig = unpack(&at, any)?;
        let GetAddrInfoDnsResolverConfig { num_retries, num_resolver_threads } = &message;
        refuse!(at; num_retries);
        harmless!(ResolverTuning; num_resolver_threads);
        return Some(DnsResolver::default());
    }
    at.none(format_args!("not supported yet: {}", any.message_name()))
}

fn cares(at: &At<'_>, message: &CaresDnsResolverConfig) -> Option<DnsResolver> {
    let CaresDnsResolverConfig {
        resolvers,
        use_resolvers_as_fallback,
        filter_unroutable_families,
        dns_resolver_options,
        udp_max_queries,
        query_timeout_seconds,
        query_tries,
        rotate_nameservers,
        edns0_max_payload_size,
        max_udp_channel_duration,
        reinit_channel_on_timeout,
        qcache_max_ttl,
    } = message;
    at.refuse("filter_unroutable_families", filter_unroutable_families);
    harmless!(ResolverTuning; udp_max_queries, rotate_nameservers, edns0_max_payload_size);
    harmless!(ResolverTuning; max_udp_channel_duration, reinit_channel_on_timeout, qcache_max_ttl);
    let resolver = DnsResolver {
        servers: servers(at, "resolvers", resolvers),
        servers_are_fallback: *use_resolvers_as_fallback,
        timeout: query_timeout_seconds.map(Duration::from_secs),
        tries: *query_tries,
        ..DnsResolver::default()
    };
    Some(options(resolver, dns_resolver_options.as_ref()))
}

fn options(resolver: DnsResolver, message: Option<&DnsResolverOptions>) -> DnsResolver {
    let Some(DnsResolverOptions { use_tcp_for_dns_lookups, no_default_search_domain }) = message else {
        return resolver;
    };
    DnsResolver { tcp: *use_tcp_for_dns_lookups, no_search_domain: *no_default_search_domain, ..resolver }
}

fn servers(at: &At<'_>, field: &'static str, messages: &[Address]) -> Vec<SocketAddr> {
    at.each(field, messages, |at, address| {
        let server = socket_addr(at, &Some(address.clone()))?;
        let port = if server.port() == 0 { DNS_PORT } else { server.port() };
        Some(SocketAddr::new(server.ip(), port))
    })
}
