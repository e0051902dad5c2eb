//! AuthorizationPolicy: who may call workloads, and how. Leaves out how several of them combine. Source: Istio
//! `security.AuthorizationPolicy`.

use crate::check;
use crate::decode::{wire, wire_enum};
use crate::istio::{PodSelector, PolicyTargetReference};
use crate::syntax;

wire! {
    /// Who may call workloads.
    pub struct AuthorizationPolicy {
        /// Workloads it applies to; absent: all of the namespace, or of the mesh in the root namespace.
        selector: Option<PodSelector>, "selector";
        /// Older form of `targetRefs`.
        target_ref: Option<PolicyTargetReference>, "targetRef";
        /// What it is attached to instead.
        target_refs: Vec<PolicyTargetReference>, "targetRefs";
        /// The rules; a request that one of them matches is subject to the action.
        rules: Vec<AuthorizationRule>, "rules";
        /// What happens to such a request; absent: ALLOW.
        action: Option<AuthorizationAction>, "action";
        /// Who decides, with action CUSTOM.
        provider: Option<ExtensionProviderRef>, "provider";
    }
    rule check::authorization_policy;
}

wire_enum! {
    /// What happens to a request that a rule matches.
    pub enum AuthorizationAction {
        /// It is let in; requests that no rule matches are not.
        Allow = "ALLOW",
        /// It is refused.
        Deny = "DENY",
        /// It is recorded.
        Audit = "AUDIT",
        /// An external authorizer decides.
        Custom = "CUSTOM",
    }
}

wire! {
    /// A reference to a provider of MeshConfig.
    pub struct ExtensionProviderRef {
        /// Its name.
        name: String, "name", required;
    }
}

wire! {
    /// One rule; all of its parts must hold.
    pub struct AuthorizationRule {
        /// Callers; any one suffices; empty: all.
        from: Vec<RuleFrom>, "from";
        /// Operations; any one suffices; empty: all.
        to: Vec<RuleTo>, "to";
        /// Further conditions; all must hold.
        when: Vec<Condition>, "when";
    }
}

wire! {
    /// One kind of caller.
    pub struct RuleFrom {
        /// Who.
        source: Source, "source", required;
    }
}

wire! {
    /// Who calls; all of its fields must hold, and of each list one entry.
    pub struct Source {
        /// Identities in the certificate, `TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
        principals: Vec<String>, "principals" => syntax::not_empty;
        /// Identities that are excluded.
        not_principals: Vec<String>, "notPrincipals" => syntax::not_empty;
        /// Identities in the token, `ISSUER/SUBJECT`.
        request_principals: Vec<String>, "requestPrincipals" => syntax::not_empty;
        /// Identities in the token that are excluded.
        not_request_principals: Vec<String>, "notRequestPrincipals" => syntax::not_empty;
        /// Namespaces.
        namespaces: Vec<String>, "namespaces" => syntax::not_empty;
        /// Namespaces that are excluded.
        not_namespaces: Vec<String>, "notNamespaces" => syntax::not_empty;
        /// Addresses of the connection.
        ip_blocks: Vec<String>, "ipBlocks" => syntax::ip_or_cidr;
        /// Addresses of the connection that are excluded.
        not_ip_blocks: Vec<String>, "notIpBlocks" => syntax::ip_or_cidr;
        /// Addresses of the client behind proxies.
        remote_ip_blocks: Vec<String>, "remoteIpBlocks" => syntax::ip_or_cidr;
        /// Addresses of the client behind proxies that are excluded.
        not_remote_ip_blocks: Vec<String>, "notRemoteIpBlocks" => syntax::ip_or_cidr;
        /// Service accounts, `ACCOUNT` or `NAMESPACE/ACCOUNT`.
        service_accounts: Vec<String>, "serviceAccounts" => syntax::service_account;
        /// Service accounts that are excluded.
        not_service_accounts: Vec<String>, "notServiceAccounts" => syntax::service_account;
        /// Trust domains.
        trust_domains: Vec<String>, "trustDomains" => syntax::trust_domain_pattern;
        /// Trust domains that are excluded.
        not_trust_domains: Vec<String>, "notTrustDomains" => syntax::trust_domain_pattern;
    }
    rule check::authorization_source;
}

wire! {
    /// One kind of operation.
    pub struct RuleTo {
        /// Which.
        operation: Operation, "operation", required;
    }
}

wire! {
    /// What is called; all of its fields must hold, and of each list one entry.
    pub struct Operation {
        /// Hosts of the request.
        hosts: Vec<String>, "hosts" => syntax::not_empty;
        /// Hosts that are excluded.
        not_hosts: Vec<String>, "notHosts" => syntax::not_empty;
        /// Ports of the connection.
        ports: Vec<String>, "ports" => syntax::port_text;
        /// Ports that are excluded.
        not_ports: Vec<String>, "notPorts" => syntax::port_text;
        /// Methods.
        methods: Vec<String>, "methods" => syntax::not_empty;
        /// Methods that are excluded.
        not_methods: Vec<String>, "notMethods" => syntax::not_empty;
        /// Paths, also as templates with `{*}` and `{**}`.
        paths: Vec<String>, "paths" => syntax::path_template;
        /// Paths that are excluded.
        not_paths: Vec<String>, "notPaths" => syntax::path_template;
    }
    rule check::authorization_operation;
}

wire! {
    /// A condition on an attribute.
    pub struct Condition {
        /// The attribute, `request.headers[x-user]`.
        key: String, "key", required;
        /// Values of which one must be there.
        values: Vec<String>, "values" => syntax::not_empty;
        /// Values of which none may be there.
        not_values: Vec<String>, "notValues" => syntax::not_empty;
    }
    rule check::authorization_condition;
}
