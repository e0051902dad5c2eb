//! Rules of policies: what they are attached to, who is let in, which tokens are taken.

use super::{at_least_one, at_most_one};
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{
    AuthorizationAction, AuthorizationPolicy, AuthorizationRule, Condition, JwtRule, Operation, PodSelector,
    PolicyTargetReference, RequestAuthentication, Source,
};

/// Kinds that a policy can be attached to, with their groups.
const TARGETS: &[(&str, &str)] = &[
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
    ("", "Service"),
    ("networking.istio.io", "ServiceEntry"),
];

pub(crate) fn policy_target(target: &PolicyTargetReference, decoder: &mut Decoder) {
    let group = match target.group.as_deref().unwrap_or_default() {
        "core" => "",
        group => group,
    };
    if !target.kind.is_empty() && !TARGETS.contains(&(group, target.kind.as_str())) {
        let message = format!("policies are not attached to `{}` of group `{group}`", target.kind);
        let help = "use a Service, a ServiceEntry, or a Gateway of the Gateway API, with its group";
        decoder.report_below("kind", &codes::BAD_ENUM, message, help);
    }
    if target.namespace.as_deref().is_some_and(|namespace| !namespace.is_empty()) {
        let message = "a policy is attached to targets of its own namespace only".to_owned();
        decoder.report_below("namespace", &codes::UNSUPPORTED_VALUE, message, "remove it");
    }
}

/// What a policy is attached to: workloads by label, or targets.
pub(super) fn attachment(
    selector: Option<&PodSelector>,
    target: Option<&PolicyTargetReference>,
    targets: &[PolicyTargetReference],
    decoder: &mut Decoder,
) {
    at_most_one(
        decoder,
        &[
            ("selector", selector.is_some()),
            ("targetRef", target.is_some()),
            ("targetRefs", !targets.is_empty()),
        ],
    );
}

pub(crate) fn authorization_policy(policy: &AuthorizationPolicy, decoder: &mut Decoder) {
    attachment(policy.selector.as_ref(), policy.target_ref.as_ref(), &policy.target_refs, decoder);
    let action = policy.action.unwrap_or_default();
    let is_custom = action == AuthorizationAction::Custom;
    if policy.rules.is_empty() && matches!(action, AuthorizationAction::Custom | AuthorizationAction::Deny) {
        let message = format!("action {} without `rules` never applies", action.as_str());
        let help = "add an empty rule, `- {}`, for every request";
        decoder.report_below("rules", &codes::MISSING_FIELD, message, help);
    }
    if is_custom && !policy.rules.is_empty() && policy.provider.is_none() {
        decoder.report_below(
            "provider",
            &codes::MISSING_FIELD,
            "action CUSTOM needs `provider`".to_owned(),
            "",
        );
    }
    if !is_custom && policy.provider.is_some() {
        let message = format!("action {} has no `provider`", action.as_str());
        decoder.report_below(
            "provider",
            &codes::CONFLICTING_FIELDS,
            message,
            "use action CUSTOM, or remove it",
        );
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        if is_custom {
            not_for_custom(rule, index, decoder);
        }
        if action == AuthorizationAction::Deny && denies_all_tcp(rule) {
            let message = "a DENY rule about HTTP alone denies every TCP connection of its ports".to_owned();
            let help = "name `ports` of the operation";
            decoder.report_below(&format!("rules[{index}]"), &codes::DOUBTFUL, message, help);
        }
    }
}

/// A connection that is not HTTP has none of the attributes of HTTP, and a DENY rule then takes them to match.
fn denies_all_tcp(rule: &AuthorizationRule) -> bool {
    let of_tcp = |source: &Source| {
        let lists = [
            &source.principals,
            &source.not_principals,
            &source.namespaces,
            &source.not_namespaces,
            &source.ip_blocks,
            &source.not_ip_blocks,
            &source.remote_ip_blocks,
            &source.not_remote_ip_blocks,
            &source.service_accounts,
            &source.not_service_accounts,
        ];
        lists.iter().any(|list| !list.is_empty())
    };
    let from_tcp = rule.from.iter().any(|from| of_tcp(&from.source));
    let to_tcp =
        rule.to.iter().any(|to| !to.operation.ports.is_empty() || !to.operation.not_ports.is_empty());
    (!rule.from.is_empty() && rule.to.is_empty() && !from_tcp) || (!rule.to.is_empty() && !to_tcp)
}

/// An external authorizer is asked before identities are known.
fn not_for_custom(rule: &AuthorizationRule, index: usize, decoder: &mut Decoder) {
    let mut refuse = |field: String, what: &str| {
        let message = format!("action CUSTOM does not know `{what}`");
        decoder.report_below(&field, &codes::CONFLICTING_FIELDS, message, "remove it");
    };
    for (position, from) in rule.from.iter().enumerate() {
        for (name, _) in identities(&from.source).into_iter().filter(|(_, list)| !list.is_empty()) {
            refuse(format!("rules[{index}].from[{position}].source.{name}"), name);
        }
    }
    for (position, condition) in rule.when.iter().enumerate() {
        let key = condition.key.as_str();
        let is_identity = matches!(
            key,
            "source.namespace" | "source.serviceAccount" | "source.trustDomain" | "source.principal"
        );
        if is_identity || key.starts_with("request.auth.") {
            refuse(format!("rules[{index}].when[{position}].key"), key);
        }
    }
}

type Lists<'a, const N: usize> = [(&'static str, &'a Vec<String>); N];

fn identities(source: &Source) -> Lists<'_, 10> {
    [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ]
}

/// Service accounts that one list may have.
const MAX_SERVICE_ACCOUNTS: usize = 16;

pub(crate) fn authorization_source(source: &Source, decoder: &mut Decoder) {
    let addresses = [
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ];
    let all: Vec<(&str, bool)> =
        identities(source).iter().chain(&addresses).map(|(name, list)| (*name, !list.is_empty())).collect();
    at_least_one(decoder, &all);
    let accounts =
        [("serviceAccounts", &source.service_accounts), ("notServiceAccounts", &source.not_service_accounts)];
    let by_name = [&source.principals, &source.not_principals, &source.namespaces, &source.not_namespaces];
    for (field, list) in accounts {
        if list.len() > MAX_SERVICE_ACCOUNTS {
            let message = format!("{} service accounts, {MAX_SERVICE_ACCOUNTS} are allowed", list.len());
            decoder.report_below(field, &codes::OUT_OF_RANGE, message, "");
        }
        if !list.is_empty() && by_name.iter().any(|list| !list.is_empty()) {
            let message = format!("`{field}` excludes principals and namespaces");
            decoder.report_below(field, &codes::CONFLICTING_FIELDS, message, "keep one of them");
        }
    }
}

pub(crate) fn authorization_operation(operation: &Operation, decoder: &mut Decoder) {
    at_least_one(
        decoder,
        &[
            ("hosts", !operation.hosts.is_empty()),
            ("notHosts", !operation.not_hosts.is_empty()),
            ("ports", !operation.ports.is_empty()),
            ("notPorts", !operation.not_ports.is_empty()),
            ("methods", !operation.methods.is_empty()),
            ("notMethods", !operation.not_methods.is_empty()),
            ("paths", !operation.paths.is_empty()),
            ("notPaths", !operation.not_paths.is_empty()),
        ],
    );
}

pub(crate) fn authorization_condition(condition: &Condition, decoder: &mut Decoder) {
    if condition.key.is_empty() {
        return;
    }
    at_least_one(
        decoder,
        &[("values", !condition.values.is_empty()), ("notValues", !condition.not_values.is_empty())],
    );
    for (field, values) in [("values", &condition.values), ("notValues", &condition.not_values)] {
        for (index, value) in values.iter().enumerate().filter(|(_, value)| !value.is_empty()) {
            let verdict = match condition.key.as_str() {
                "source.ip" | "remote.ip" | "destination.ip" => crate::syntax::ip_or_cidr(value),
                "destination.port" => crate::syntax::port_text(value),
                "source.serviceAccount" => crate::syntax::service_account(value),
                "source.trustDomain" => crate::syntax::trust_domain_pattern(value),
                _ => Ok(()),
            };
            if let Err(flaw) = verdict {
                decoder.report_below(&format!("{field}[{index}]"), flaw.code, flaw.message, &flaw.help);
            }
        }
    }
    attribute(&condition.key, decoder);
}

/// Attributes that a condition can look at.
const ATTRIBUTES: &[&str] = &[
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.serviceAccount",
    "source.principal",
    "source.trustDomain",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "destination.ip",
    "destination.port",
    "connection.sni",
    "request.headers[NAME]",
    "request.auth.claims[NAME]",
];

/// Attributes with a name in brackets behind them.
const KEYED: &[&str] = &["request.headers", "request.auth.claims", "experimental.envoy.filters."];

fn attribute(key: &str, decoder: &mut Decoder) {
    if ATTRIBUTES.iter().any(|known| *known == key && !known.ends_with(']')) {
        return;
    }
    let has_name = key.ends_with(']') && key.find('[').is_some_and(|at| at > 0 && at < key.len() - 2);
    if KEYED.iter().any(|prefix| key.starts_with(prefix)) {
        if !has_name {
            let message = format!("`{key}` names no entry");
            decoder.report_below(
                "key",
                &codes::BAD_NAME,
                message,
                "write the name in brackets: `request.headers[x-user]`",
            );
        }
        return;
    }
    let help = crate::syntax::did_you_mean(key, ATTRIBUTES.iter().copied());
    decoder.report_below("key", &codes::BAD_ENUM, format!("there is no attribute `{key}`"), &help);
}

pub(crate) fn request_authentication(policy: &RequestAuthentication, decoder: &mut Decoder) {
    attachment(policy.selector.as_ref(), policy.target_ref.as_ref(), &policy.target_refs, decoder);
}

pub(crate) fn jwt_rule(rule: &JwtRule, decoder: &mut Decoder) {
    let uris = [
        ("jwksUri", rule.jwks_uri.is_some()),
        ("jwks_uri", rule.jwks_uri_by_its_old_name.is_some()),
        ("jwks", rule.jwks.as_deref().is_some_and(|keys| !keys.is_empty())),
    ];
    at_most_one(decoder, &uris);
    let issuer = rule.issuer.as_deref().is_some_and(|issuer| !issuer.is_empty());
    at_least_one(decoder, &[("issuer", issuer), uris[0], uris[1]]);
    if let Some(keys) = rule.jwks.as_deref().filter(|keys| !keys.is_empty()) {
        key_set(keys, decoder);
    }
}

/// A set of keys (RFC 7517), of which only public ones are of use.
fn key_set(text: &str, decoder: &mut Decoder) {
    let set: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let keys = set.as_ref().and_then(|set| match set.get("keys") {
        Some(keys) => keys.as_array().map(|keys| keys.iter().collect::<Vec<_>>()),
        None => Some(vec![set]),
    });
    let is_key = |key: &&serde_json::Value| key.get("kty").is_some_and(serde_json::Value::is_string);
    let Some(keys) = keys.filter(|keys| keys.iter().all(is_key)) else {
        let message = "the text is not a set of keys (JWKS)".to_owned();
        decoder.report_below("jwks", &codes::SYNTAX, message, "write `{\"keys\": [{\"kty\": …}]}`");
        return;
    };
    let is_private = |key: &serde_json::Value| key.get("d").is_some() || key.get("k").is_some();
    if let Some(index) = keys.iter().position(|key| is_private(key)) {
        let message = format!("key {index} of the set is private; only its public part is of use");
        decoder.report_below("jwks", &codes::DOUBTFUL, message, "remove the private part");
    }
}
