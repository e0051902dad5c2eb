//! Names of header fields that the proxy reads or writes and that `http` has no constant for.

use http::HeaderName;

macro_rules! names {
    ($($constant:ident $name:literal)*) => {
        $(pub(crate) static $constant: HeaderName = HeaderName::from_static($name);)*
    };
}

names! {
    GRPC_MESSAGE "grpc-message"
    IMMEDIATE_HEALTH_CHECK_FAIL "x-envoy-immediate-health-check-fail"
    GRPC_STATUS "grpc-status"
    GRPC_TIMEOUT "grpc-timeout"
    X_ENVOY_ATTEMPT_COUNT "x-envoy-attempt-count"
    X_ENVOY_DROP_OVERLOAD "x-envoy-drop-overload"
    X_ENVOY_EXPECTED_RQ_TIMEOUT_MS "x-envoy-expected-rq-timeout-ms"
    X_ENVOY_EXTERNAL_ADDRESS "x-envoy-external-address"
    X_ENVOY_FORCE_TRACE "x-envoy-force-trace"
    X_ENVOY_INTERNAL "x-envoy-internal"
    X_ENVOY_ORIGINAL_HOST "x-envoy-original-host"
    X_ENVOY_ORIGINAL_PATH "x-envoy-original-path"
    X_ENVOY_ORIGINAL_URL "x-envoy-original-url"
    X_ENVOY_OVERLOADED "x-envoy-overloaded"
    X_ENVOY_RATELIMITED "x-envoy-ratelimited"
    X_ENVOY_UNCONDITIONAL_DROP_OVERLOAD "x-envoy-unconditional-drop-overload"
    X_ENVOY_UPSTREAM_SERVICE_TIME "x-envoy-upstream-service-time"
    X_FORWARDED_CLIENT_CERT "x-forwarded-client-cert"
    X_FORWARDED_FOR "x-forwarded-for"
    X_FORWARDED_HOST "x-forwarded-host"
    X_FORWARDED_PORT "x-forwarded-port"
    X_FORWARDED_PROTO "x-forwarded-proto"
    X_REQUEST_ID "x-request-id"
}
