//! VirtualService: how requests for a set of hosts are routed. Leaves out which VirtualService wins for a host and
//! the defaults of a route. Source: Istio `networking.VirtualService`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::check;
use crate::decode::{wire, wire_enum};
use crate::istio::{CorsPolicy, HttpFaultInjection, StringMatch};
use crate::syntax;

wire! {
    /// Routing for a set of hosts.
    pub struct VirtualService {
        /// Hosts: DNS names, `*.` wildcards, `*`, or short names resolved in the object's namespace. Without any the
        /// object is a delegate.
        hosts: Vec<String>, "hosts" => syntax::host;
        /// Gateways this applies to (`name`, `namespace/name`, `mesh`); empty means `mesh`, every sidecar.
        gateways: Vec<String>, "gateways" => syntax::gateway_reference;
        /// HTTP routes; the first that matches counts.
        http: Vec<HttpRoute>, "http";
        /// Routes of TLS connections that are not terminated here, by SNI.
        tls: Vec<TlsRoute>, "tls";
        /// Routes of opaque TCP connections.
        tcp: Vec<TcpRoute>, "tcp";
        /// Namespaces that may see it (`.`, `*`, or names); empty means the mesh default.
        export_to: Vec<String>, "exportTo" => syntax::export_to;
    }
    rule check::virtual_service;
}

wire! {
    /// One HTTP route.
    pub struct HttpRoute {
        /// Name, for access logs and diagnostics.
        name: Option<String>, "name";
        /// Conditions; any one suffices; empty matches all requests.
        matches: Vec<HttpMatchRequest>, "match";
        /// Weighted destinations.
        route: Vec<HttpRouteDestination>, "route";
        /// Leave the rest to a VirtualService without hosts.
        delegate: Option<Delegate>, "delegate";
        /// Answer with a redirect instead.
        redirect: Option<HttpRedirect>, "redirect";
        /// Answer with a fixed response instead.
        direct_response: Option<HttpDirectResponse>, "directResponse";
        /// Rewrite path or authority before forwarding.
        rewrite: Option<HttpRewrite>, "rewrite";
        /// Longest time for the whole request; absent or zero: none.
        timeout: Option<Duration>, "timeout" => syntax::duration_or_zero;
        /// Retry policy; absent: the mesh default.
        retries: Option<HttpRetry>, "retries";
        /// Destination that gets a copy (older form of `mirrors`).
        mirror: Option<Destination>, "mirror";
        /// Destinations that get a copy.
        mirrors: Vec<HttpMirrorPolicy>, "mirrors";
        /// Share of requests that is mirrored, in whole percent (deprecated form).
        mirror_percent: Option<u32>, "mirrorPercent" => syntax::whole_percent;
        /// The same by its older name.
        old_mirror_percent: Option<u32>, "mirror_percent" => syntax::whole_percent;
        /// Share of requests that is mirrored by `mirror`.
        mirror_percentage: Option<Percent>, "mirrorPercentage";
        /// What goes wrong on purpose.
        fault: Option<HttpFaultInjection>, "fault";
        /// What browsers may do across origins.
        cors_policy: Option<CorsPolicy>, "corsPolicy";
        /// Header changes for all destinations.
        headers: Option<Headers>, "headers";
    }
    rule check::http_route;
}

wire! {
    /// A VirtualService without hosts.
    pub struct Delegate {
        /// Its name.
        name: String, "name", required => syntax::dns_name;
        /// Its namespace; absent: that of the object.
        namespace: Option<String>, "namespace" => syntax::dns_label;
    }
}

wire! {
    /// One condition of an HTTP route; all of its parts must hold.
    pub struct HttpMatchRequest {
        /// Name, appended to the route's name.
        name: Option<String>, "name";
        /// Path without query.
        uri: Option<StringMatch>, "uri";
        /// URI scheme.
        scheme: Option<StringMatch>, "scheme";
        /// HTTP method.
        method: Option<StringMatch>, "method";
        /// Authority (HTTP/1 `Host`).
        authority: Option<StringMatch>, "authority";
        /// Headers that must match, by name in any case.
        headers: BTreeMap<String, StringMatch>, "headers";
        /// Headers that must not match.
        without_headers: BTreeMap<String, StringMatch>, "withoutHeaders";
        /// Port on which the request was addressed.
        port: Option<u32>, "port" => syntax::port;
        /// Labels of the calling workload.
        source_labels: BTreeMap<String, String>, "sourceLabels" => syntax::label_value;
        /// Namespace of the calling workload.
        source_namespace: Option<String>, "sourceNamespace" => syntax::dns_label;
        /// Gateways on which the condition holds; overrides the object's.
        gateways: Vec<String>, "gateways" => syntax::gateway_reference;
        /// Query parameters that must match.
        query_params: BTreeMap<String, StringMatch>, "queryParams";
        /// Compare `uri` (exact and prefix) without regard to case.
        ignore_uri_case: Option<bool>, "ignoreUriCase";
        /// Prefix of the statistics of requests that take the route.
        stat_prefix: Option<String>, "statPrefix";
    }
    rule check::http_match;
}

wire! {
    /// A destination with its share of the requests.
    pub struct HttpRouteDestination {
        /// Where to.
        destination: Destination, "destination", required;
        /// Share, relative to the sum of the route's weights; absent: 0, or everything when it is alone.
        weight: Option<i32>, "weight" => syntax::weight;
        /// Header changes for this destination only.
        headers: Option<Headers>, "headers";
    }
}

wire! {
    /// A service, a subset of it, a port of it.
    pub struct Destination {
        /// Host of the service; short names resolve in the namespace of the rule.
        host: String, "host", required => syntax::destination_host;
        /// Subset, as a DestinationRule names it.
        subset: Option<String>, "subset" => syntax::subset_name;
        /// Port; may be absent when the service has a single one.
        port: Option<PortSelector>, "port";
    }
}

wire! {
    /// A port by number.
    pub struct PortSelector {
        /// The number.
        number: u32, "number", required => syntax::port;
    }
}

wire! {
    /// Changes to request and response headers.
    pub struct Headers {
        /// Before forwarding.
        request: Option<HeaderOperations>, "request";
        /// Before answering.
        response: Option<HeaderOperations>, "response";
    }
    rule check::headers;
}

wire! {
    /// Changes to one set of headers. Applied in the order remove, set, add of Envoy.
    pub struct HeaderOperations {
        /// Overwrite.
        set: BTreeMap<String, String>, "set" => syntax::header_value;
        /// Append.
        add: BTreeMap<String, String>, "add" => syntax::header_value;
        /// Remove by name.
        remove: Vec<String>, "remove" => syntax::header_name;
    }
    rule check::header_operations;
}

wire! {
    /// A redirect as the answer.
    pub struct HttpRedirect {
        /// New path.
        uri: Option<String>, "uri" => syntax::header_text;
        /// Replaces the matched prefix of the path.
        prefix_rewrite: Option<String>, "prefixRewrite" => syntax::header_text;
        /// New authority.
        authority: Option<String>, "authority" => syntax::header_text;
        /// New port.
        port: Option<u32>, "port" => syntax::port;
        /// Where to take the port from.
        derive_port: Option<DerivePort>, "derivePort";
        /// New scheme: `http` or `https`.
        scheme: Option<String>, "scheme";
        /// Status code; absent: 301.
        redirect_code: Option<u32>, "redirectCode" => syntax::redirect_code;
    }
    rule check::http_redirect;
}

wire_enum! {
    /// Where a redirect takes its port from.
    pub enum DerivePort {
        /// 80 for http, 443 for https.
        FromProtocolDefault = "FROM_PROTOCOL_DEFAULT",
        /// The port of the request.
        FromRequestPort = "FROM_REQUEST_PORT",
    }
}

wire! {
    /// A fixed answer.
    pub struct HttpDirectResponse {
        /// Status code.
        status: u32, "status", required => syntax::response_status;
        /// Body.
        body: Option<HttpBody>, "body";
    }
}

wire! {
    /// A body, as text or as bytes.
    pub struct HttpBody {
        /// As text.
        string: Option<String>, "string";
        /// As base64.
        bytes: Option<String>, "bytes" => syntax::base64;
    }
    rule check::http_body;
}

wire! {
    /// Changes to the request line before forwarding.
    pub struct HttpRewrite {
        /// Replaces the path, or the matched prefix of it.
        uri: Option<String>, "uri" => syntax::header_text;
        /// Replaces the authority.
        authority: Option<String>, "authority" => syntax::header_text;
        /// Replaces what a regular expression finds in the path.
        uri_regex_rewrite: Option<RegexRewrite>, "uriRegexRewrite";
    }
    rule check::http_rewrite;
}

wire! {
    /// Regular-expression substitution.
    pub struct RegexRewrite {
        /// RE2 expression.
        pattern: String, "match", required => syntax::regex;
        /// Replacement; `\1` refers to the first group.
        rewrite: String, "rewrite" => syntax::header_text;
    }
    rule check::regex_rewrite;
}

wire! {
    /// When and how often to try again.
    pub struct HttpRetry {
        /// Most retries; 0 switches retries off.
        attempts: Option<i32>, "attempts" => syntax::not_negative;
        /// Longest time of one try, the first included.
        per_try_timeout: Option<Duration>, "perTryTimeout" => syntax::duration_or_zero;
        /// Comma-separated conditions, Envoy's names, and status codes.
        retry_on: Option<String>, "retryOn" => syntax::retry_on;
        /// Whether a retry avoids hosts already tried; absent: yes.
        retry_ignore_previous_hosts: Option<bool>, "retryIgnorePreviousHosts";
        /// Base interval of the exponential back-off.
        backoff: Option<Duration>, "backoff" => syntax::duration;
        /// Whether a retry may go to another locality than the first try.
        retry_remote_localities: Option<bool>, "retryRemoteLocalities";
    }
    rule check::http_retry;
}

wire! {
    /// A mirror and its share.
    pub struct HttpMirrorPolicy {
        /// Where the copies go.
        destination: Destination, "destination", required;
        /// Share; absent: all.
        percentage: Option<Percent>, "percentage";
    }
}

wire! {
    /// A percentage, 0.0 to 100.0.
    pub struct Percent {
        /// The value.
        value: f64, "value" => syntax::percent;
    }
}

wire! {
    /// One TCP route.
    pub struct TcpRoute {
        /// Conditions; any one suffices; empty matches all connections.
        matches: Vec<L4MatchAttributes>, "match";
        /// Weighted destinations.
        route: Vec<RouteDestination>, "route";
    }
    rule check::tcp_route;
}

wire! {
    /// One TLS route.
    pub struct TlsRoute {
        /// Conditions; any one suffices.
        matches: Vec<TlsMatchAttributes>, "match", required;
        /// Weighted destinations.
        route: Vec<RouteDestination>, "route";
    }
    rule check::tls_route;
}

wire! {
    /// One condition of a TCP route; all of its parts must hold.
    pub struct L4MatchAttributes {
        /// Port addressed.
        port: Option<u32>, "port" => syntax::port;
        /// Labels of the calling workload.
        source_labels: BTreeMap<String, String>, "sourceLabels" => syntax::label_value;
        /// Gateways on which the condition holds; overrides the object's.
        gateways: Vec<String>, "gateways" => syntax::gateway_reference;
        /// Namespace of the calling workload.
        source_namespace: Option<String>, "sourceNamespace" => syntax::dns_label;
        /// Addresses that the connection is made to, as IP or CIDR.
        destination_subnets: Vec<String>, "destinationSubnets" => syntax::ip_or_cidr;
    }
    // Istio takes it and does nothing with it either.
    later NO_EFFECT_YET "sourceSubnet";
}

wire! {
    /// One condition of a TLS route; all of its parts must hold.
    pub struct TlsMatchAttributes {
        /// Server names, wildcards allowed; each must be covered by a host of the object.
        sni_hosts: Vec<String>, "sniHosts", required => syntax::host;
        /// Port addressed.
        port: Option<u32>, "port" => syntax::port;
        /// Labels of the calling workload.
        source_labels: BTreeMap<String, String>, "sourceLabels" => syntax::label_value;
        /// Gateways on which the condition holds; overrides the object's.
        gateways: Vec<String>, "gateways" => syntax::gateway_reference;
        /// Namespace of the calling workload.
        source_namespace: Option<String>, "sourceNamespace" => syntax::dns_label;
        /// Addresses that the connection is made to, as IP or CIDR.
        destination_subnets: Vec<String>, "destinationSubnets" => syntax::ip_or_cidr;
    }
}

wire! {
    /// A destination with its share of the connections.
    pub struct RouteDestination {
        /// Where to.
        destination: Destination, "destination", required;
        /// Share, relative to the sum of the route's weights.
        weight: Option<i32>, "weight" => syntax::weight;
    }
}
