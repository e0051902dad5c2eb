//! `HTTPFaultInjection`: what goes wrong on purpose. Source: Istio `networking.HTTPFaultInjection`.

use std::time::Duration;

use crate::check;
use crate::decode::{wire, wire_enum};
use crate::istio::Percent;
use crate::syntax;

wire! {
    /// Requests that wait or fail on purpose.
    pub struct HttpFaultInjection {
        /// Requests that wait before they go on.
        delay: Option<HttpFaultDelay>, "delay";
        /// Requests that fail here.
        abort: Option<HttpFaultAbort>, "abort";
    }
    rule check::http_fault;
}

wire! {
    /// Requests that wait.
    pub struct HttpFaultDelay {
        /// How long.
        fixed_delay: Option<Duration>, "fixedDelay" => syntax::duration;
        /// Share of the requests; absent: none.
        percentage: Option<Percent>, "percentage";
        /// Share in whole percent (deprecated form).
        percent: Option<i32>, "percent" => syntax::whole_percent;
    }
    later UNSUPPORTED_FIELD "exponentialDelay";
    rule check::http_fault_delay;
}

wire! {
    /// Requests that fail.
    pub struct HttpFaultAbort {
        /// With this status code.
        http_status: Option<i32>, "httpStatus" => syntax::response_status;
        /// With this status of gRPC.
        grpc_status: Option<GrpcStatus>, "grpcStatus";
        /// Share of the requests; absent: none.
        percentage: Option<Percent>, "percentage";
    }
    later UNSUPPORTED_FIELD "http2Error";
    rule check::http_fault_abort;
}

wire_enum! {
    /// The status codes of gRPC, in the order of their numbers.
    pub enum GrpcStatus {
        /// 0.
        Ok = "OK",
        /// 1.
        Cancelled = "CANCELLED",
        /// 2.
        Unknown = "UNKNOWN",
        /// 3.
        InvalidArgument = "INVALID_ARGUMENT",
        /// 4.
        DeadlineExceeded = "DEADLINE_EXCEEDED",
        /// 5.
        NotFound = "NOT_FOUND",
        /// 6.
        AlreadyExists = "ALREADY_EXISTS",
        /// 7.
        PermissionDenied = "PERMISSION_DENIED",
        /// 8.
        ResourceExhausted = "RESOURCE_EXHAUSTED",
        /// 9.
        FailedPrecondition = "FAILED_PRECONDITION",
        /// 10.
        Aborted = "ABORTED",
        /// 11.
        OutOfRange = "OUT_OF_RANGE",
        /// 12.
        Unimplemented = "UNIMPLEMENTED",
        /// 13.
        Internal = "INTERNAL",
        /// 14.
        Unavailable = "UNAVAILABLE",
        /// 15.
        DataLoss = "DATA_LOSS",
        /// 16.
        Unauthenticated = "UNAUTHENTICATED",
    }
}

impl GrpcStatus {
    /// Its number on the wire.
    pub fn number(self) -> u32 {
        self as u32
    }
}
