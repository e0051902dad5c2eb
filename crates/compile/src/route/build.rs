//! Route tables from `RouteConfiguration`.

use std::sync::Arc;

use http::StatusCode;
use meltemi_envoy::config::route::v3 as proto;
use meltemi_envoy::config::route::v3::virtual_host::TlsRequirementType;

use super::conditions::Conditions;
use super::domains::Domains;
use super::index::RouteIndex;
use super::mirror::mirrors;
use super::retry_policy::retry_policy;
use super::{
    Mirror, Redirect, RedirectPath, RequireTls, RetryPolicy, Route, RouteAction, RouteEdits, RouteTable,
    VirtualHost, entry,
};
use crate::filter::{PerFilterConfigs, per_filter_configs};
use crate::header_edit::{Fields, header_edits};
use crate::ledger::{At, harmless, refuse};
use crate::matcher::PathMatcher;
use crate::scalar::digest;

/// `max_direct_response_body_size_bytes` when it is not set.
const MAX_DIRECT_RESPONSE_BODY_BYTES: u32 = 4096;

/// What routes take over from the levels above them when they do not say otherwise.
#[derive(Clone)]
pub(super) struct Inherited {
    pub(super) max_direct_response_body_bytes: usize,
    pub(super) mirrors: Vec<Mirror>,
    pub(super) retry: Option<Arc<RetryPolicy>>,
    pub(super) buffer_limit: Option<u64>,
}

/// Compiles a route configuration.
pub(crate) fn compile(at: &At<'_>, message: &proto::RouteConfiguration) -> Option<RouteTable> {
    let proto::RouteConfiguration {
        name,
        virtual_hosts,
        vhds,
        internal_only_headers,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_add,
        request_headers_to_remove,
        most_specific_header_mutations_wins,
        validate_clusters,
        max_direct_response_body_size_bytes,
        cluster_specifier_plugins,
        request_mirror_policies,
        ignore_port_in_host_matching,
        vhost_header,
        ignore_path_parameters_in_path_matching,
        typed_per_filter_config,
        metadata,
        route_specifiers,
    } = message;
    refuse!(at; vhds, internal_only_headers, cluster_specifier_plugins, vhost_header, route_specifiers);
    at.refuse_true("validate_clusters", *validate_clusters);
    harmless!(Metadata; metadata);
    let inherited = Inherited {
        max_direct_response_body_bytes: max_direct_response_body_size_bytes
            .unwrap_or(MAX_DIRECT_RESPONSE_BODY_BYTES) as usize,
        mirrors: mirrors(at, request_mirror_policies),
        retry: None,
        buffer_limit: None,
    };
    let edits = RouteEdits {
        request: header_edits(at, &Fields::REQUEST, request_headers_to_add, request_headers_to_remove),
        response: header_edits(at, &Fields::RESPONSE, response_headers_to_add, response_headers_to_remove),
    };
    Some(RouteTable {
        name: name.as_str().into(),
        domains: domains(at, virtual_hosts, *ignore_port_in_host_matching),
        ignore_path_parameters: *ignore_path_parameters_in_path_matching,
        virtual_hosts: at.each("virtual_hosts", virtual_hosts, |at, host| virtual_host(at, host, &inherited)),
        edits,
        most_specific_wins: *most_specific_header_mutations_wins,
        filters: per_filter_configs(at, typed_per_filter_config),
        digest: digest(message),
    })
}

/// Indexes the domains. A virtual host has the same index here as in the table, unless one was rejected.
fn domains(at: &At<'_>, virtual_hosts: &[proto::VirtualHost], ignore_port: bool) -> Domains {
    let mut index = Domains::new(ignore_port);
    for (i, host) in virtual_hosts.iter().enumerate() {
        let at = at.item("virtual_hosts", i);
        for (j, domain) in host.domains.iter().enumerate() {
            let at = at.item("domains", j);
            if let Err(reason) = index.insert(domain, i) {
                at.reject(format_args!("{reason}: {domain}"));
            }
        }
    }
    index
}

fn virtual_host(at: &At<'_>, message: &proto::VirtualHost, above: &Inherited) -> Option<VirtualHost> {
    let proto::VirtualHost {
        name,
        domains,
        routes,
        matcher,
        require_tls,
        virtual_clusters,
        rate_limits,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        cors,
        typed_per_filter_config,
        include_request_attempt_count,
        include_attempt_count_in_response,
        retry_policy: retry,
        retry_policy_typed_config,
        hedge_policy,
        include_is_timeout_retry_header,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        request_mirror_policies,
        metadata,
        route_specifiers,
    } = message;
    refuse!(at; matcher, rate_limits, cors, retry_policy_typed_config, hedge_policy, route_specifiers);
    refuse!(at; include_is_timeout_retry_header);
    harmless!(StatsOnly; virtual_clusters);
    harmless!(Metadata; metadata);
    at.required("name", name);
    if domains.is_empty() {
        at.field("domains").reject("must have at least one");
    }
    let own_mirrors = mirrors(at, request_mirror_policies);
    let inherited = Inherited {
        max_direct_response_body_bytes: above.max_direct_response_body_bytes,
        mirrors: if own_mirrors.is_empty() { above.mirrors.clone() } else { own_mirrors },
        retry: retry
            .as_ref()
            .and_then(|policy| retry_policy(&at.field("retry_policy"), policy))
            .map(Arc::new),
        buffer_limit: request_body_buffer_limit.or(per_request_buffer_limit_bytes.map(u64::from)),
    };
    let require_tls = match at.choice("require_tls", *require_tls)? {
        TlsRequirementType::None => RequireTls::None,
        TlsRequirementType::ExternalOnly => RequireTls::ExternalOnly,
        TlsRequirementType::All => RequireTls::All,
    };
    let routes = at.each("routes", routes, |at, route| entry::route(at, route, &inherited));
    Some(VirtualHost {
        name: name.as_str().into(),
        index: RouteIndex::new(&routes),
        routes,
        require_tls,
        tls_redirect: (require_tls != RequireTls::None).then(|| Box::new(tls_redirect())),
        edits: RouteEdits {
            request: header_edits(at, &Fields::REQUEST, request_headers_to_add, request_headers_to_remove),
            response: header_edits(
                at,
                &Fields::RESPONSE,
                response_headers_to_add,
                response_headers_to_remove,
            ),
        },
        retry: inherited.retry,
        include_request_attempt_count: *include_request_attempt_count,
        include_attempt_count_in_response: *include_attempt_count_in_response,
        filters: per_filter_configs(at, typed_per_filter_config),
    })
}

/// The route that `require_tls` answers with.
fn tls_redirect() -> Route {
    let redirect = Redirect {
        status: StatusCode::MOVED_PERMANENTLY,
        scheme: Some("https".into()),
        host: None,
        port: None,
        path: RedirectPath::Keep,
        strip_query: false,
        keep_port: true,
    };
    Route {
        name: "".into(),
        path: PathMatcher::Prefix("".into(), true),
        conditions: Conditions::default(),
        action: RouteAction::Redirect(Box::new(redirect)),
        edits: RouteEdits::default(),
        operation: None,
        filters: PerFilterConfigs::default(),
    }
}
