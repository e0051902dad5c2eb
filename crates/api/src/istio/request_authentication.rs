//! RequestAuthentication: which tokens workloads accept in requests. Leaves out how tokens are verified. Source: Istio
//! `security.RequestAuthentication`.

use std::time::Duration;

use crate::check;
use crate::decode::wire;
use crate::istio::{PodSelector, PolicyTargetReference};
use crate::syntax;

wire! {
    /// Which tokens workloads accept.
    pub struct RequestAuthentication {
        /// Workloads it applies to; absent: all of the namespace, or of the mesh in the root namespace.
        selector: Option<PodSelector>, "selector";
        /// Older form of `targetRefs`.
        target_ref: Option<PolicyTargetReference>, "targetRef";
        /// What it is attached to instead.
        target_refs: Vec<PolicyTargetReference>, "targetRefs";
        /// Tokens; any one of the rules may accept a token.
        jwt_rules: Vec<JwtRule>, "jwtRules";
    }
    rule check::request_authentication;
}

wire! {
    /// Tokens of one issuer.
    pub struct JwtRule {
        /// The `iss` claim.
        issuer: Option<String>, "issuer";
        /// Values of the `aud` claim of which one must be there.
        audiences: Vec<String>, "audiences" => syntax::not_empty;
        /// Where the keys are fetched.
        jwks_uri: Option<String>, "jwksUri" => syntax::http_uri;
        /// Older spelling of `jwksUri`.
        jwks_uri_by_its_old_name: Option<String>, "jwks_uri" => syntax::http_uri;
        /// The keys themselves.
        jwks: Option<String>, "jwks";
        /// Headers that may hold the token.
        from_headers: Vec<JwtHeader>, "fromHeaders";
        /// Query parameters that may.
        from_params: Vec<String>, "fromParams" => syntax::not_empty;
        /// Cookies that may.
        from_cookies: Vec<String>, "fromCookies" => syntax::not_empty;
        /// Header that gets the payload of a token that was accepted.
        output_payload_to_header: Option<String>, "outputPayloadToHeader";
        /// Whether the token goes on to the workload.
        forward_original_token: Option<bool>, "forwardOriginalToken";
        /// Headers that get single claims.
        output_claim_to_headers: Vec<ClaimToHeader>, "outputClaimToHeaders";
        /// Longest time to fetch the keys; absent: 5s.
        timeout: Option<Duration>, "timeout" => syntax::duration;
        /// Claims that hold several values with spaces between them.
        space_delimited_claims: Vec<String>, "spaceDelimitedClaims" => syntax::not_empty;
    }
    rule check::jwt_rule;
}

wire! {
    /// A header that may hold a token.
    pub struct JwtHeader {
        /// Its name.
        name: String, "name", required => syntax::header_name;
        /// What stands before the token, `Bearer `.
        prefix: Option<String>, "prefix";
    }
}

wire! {
    /// A header that gets a claim.
    pub struct ClaimToHeader {
        /// The header.
        header: String, "header", required => syntax::strict_header_name;
        /// The claim.
        claim: String, "claim", required;
    }
}
