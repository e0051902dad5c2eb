//! `CorsPolicy`: what browsers may do across origins. Source: Istio `networking.CorsPolicy`.

use std::time::Duration;

use crate::check;
use crate::decode::{wire, wire_enum};
use crate::istio::StringMatch;
use crate::syntax;

wire! {
    /// What browsers may do across origins.
    pub struct CorsPolicy {
        /// Origins that are let in, exactly (deprecated form).
        allow_origin: Vec<String>, "allowOrigin";
        /// Origins that are let in.
        allow_origins: Vec<StringMatch>, "allowOrigins";
        /// `access-control-allow-methods`.
        allow_methods: Vec<String>, "allowMethods" => syntax::cors_method;
        /// `access-control-allow-headers`.
        allow_headers: Vec<String>, "allowHeaders" => syntax::header_name;
        /// `access-control-expose-headers`.
        expose_headers: Vec<String>, "exposeHeaders" => syntax::header_name;
        /// `access-control-max-age`, in whole seconds.
        max_age: Option<Duration>, "maxAge" => syntax::whole_seconds;
        /// `access-control-allow-credentials`.
        allow_credentials: Option<bool>, "allowCredentials";
        /// What becomes of preflights of other origins; absent: they go on to the service.
        unmatched_preflights: Option<UnmatchedPreflights>, "unmatchedPreflights";
    }
    rule check::cors_policy;
}

wire_enum! {
    /// What becomes of preflights of origins that are not let in.
    pub enum UnmatchedPreflights {
        /// They go on.
        Unspecified = "UNSPECIFIED",
        /// They go on to the service.
        Forward = "FORWARD",
        /// They are answered here, without any grant.
        Ignore = "IGNORE",
    }
}
