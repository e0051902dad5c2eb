//! Response flags: a set of bits with Envoy's short and long names.
//!
//! Source: `CoreResponseFlag` and its strings in Envoy's `stream_info`, which prints flags in the order in which they
//! were set.

/// Why a request did not simply succeed; several can hold at once. Equal when the same flags are set in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ResponseFlags {
    bits: u32,
    /// One more than the bit of each flag, five bits a flag, the first one lowest.
    order: u32,
}

/// How many flags remember their order; a request gets two or three at most, further ones are printed last.
const MAX_ORDERED: u32 = 6;

macro_rules! flags {
    ($($bit:literal $name:ident $short:literal $long:literal $doc:literal;)*) => {
        impl ResponseFlags {
            $(#[doc = $doc] pub const $name: ResponseFlags = ResponseFlags { bits: 1 << $bit, order: $bit + 1 };)*
            const NAMES: &'static [(u32, &'static str, &'static str)] = &[$((1 << $bit, $short, $long),)*];
        }
    };
}

flags! {
    0 FAILED_LOCAL_HEALTH_CHECK "LH" "FailedLocalHealthCheck" "Local service failed its health check.";
    1 NO_HEALTHY_UPSTREAM "UH" "NoHealthyUpstream" "No healthy host in the cluster.";
    2 UPSTREAM_REQUEST_TIMEOUT "UT" "UpstreamRequestTimeout" "The upstream took too long.";
    3 LOCAL_RESET "LR" "LocalReset" "We reset the upstream stream.";
    4 UPSTREAM_REMOTE_RESET "UR" "UpstreamRemoteReset" "The upstream reset the stream.";
    5 UPSTREAM_CONNECTION_FAILURE "UF" "UpstreamConnectionFailure" "The upstream connection could not be made.";
    6 UPSTREAM_CONNECTION_TERMINATION "UC" "UpstreamConnectionTermination" "The upstream closed the connection.";
    7 UPSTREAM_OVERFLOW "UO" "UpstreamOverflow" "A circuit breaker refused.";
    8 NO_ROUTE_FOUND "NR" "NoRouteFound" "No route, or no filter chain.";
    9 DELAY_INJECTED "DI" "DelayInjected" "A fault delayed the request.";
    10 FAULT_INJECTED "FI" "FaultInjected" "A fault aborted the request.";
    11 RATE_LIMITED "RL" "RateLimited" "Rate limited.";
    12 UNAUTHORIZED_EXTERNAL_SERVICE "UAEX" "UnauthorizedExternalService" "External authorisation denied.";
    13 RATE_LIMIT_SERVICE_ERROR "RLSE" "RateLimitServiceError" "The rate limit service failed.";
    14 DOWNSTREAM_CONNECTION_TERMINATION "DC" "DownstreamConnectionTermination" "The client went away.";
    15 UPSTREAM_RETRY_LIMIT_EXCEEDED "URX" "UpstreamRetryLimitExceeded" "All retries (or connect attempts) were used.";
    16 STREAM_IDLE_TIMEOUT "SI" "StreamIdleTimeout" "The stream was idle for too long.";
    17 INVALID_ENVOY_REQUEST_HEADERS "IH" "InvalidEnvoyRequestHeaders" "An `x-envoy-*` header is not valid.";
    18 DOWNSTREAM_PROTOCOL_ERROR "DPE" "DownstreamProtocolError" "The client broke the protocol.";
    19 UPSTREAM_MAX_STREAM_DURATION_REACHED "UMSDR" "UpstreamMaxStreamDurationReached" "The stream lived too long.";
    20 RESPONSE_FROM_CACHE_FILTER "RFCF" "ResponseFromCacheFilter" "A cache answered.";
    21 NO_FILTER_CONFIG_FOUND "NFCF" "NoFilterConfigFound" "A filter's configuration did not come in time.";
    22 DURATION_TIMEOUT "DT" "DurationTimeout" "`max_connection_duration` or the like was reached.";
    23 UPSTREAM_PROTOCOL_ERROR "UPE" "UpstreamProtocolError" "The upstream broke the protocol.";
    24 NO_CLUSTER_FOUND "NC" "NoClusterFound" "The cluster of the route does not exist.";
    25 OVERLOAD_MANAGER_TERMINATED "OM" "OverloadManagerTerminated" "Overload protection ended the request.";
    26 DNS_RESOLUTION_FAILED "DF" "DnsResolutionFailed" "The name did not resolve.";
    27 DROP_OVERLOAD "DO" "DropOverload" "`drop_overload` of the endpoints dropped the request.";
    28 DOWNSTREAM_REMOTE_RESET "DR" "DownstreamRemoteReset" "The client reset the stream.";
    29 UNCONDITIONAL_DROP_OVERLOAD "UDO" "UnconditionalDropOverload" "`drop_overload` at 100 %.";
}

impl ResponseFlags {
    /// No flag.
    pub const NONE: ResponseFlags = ResponseFlags { bits: 0, order: 0 };

    /// Whether no flag is set.
    pub fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// Whether all flags of `other` are set.
    pub fn contains(self, other: ResponseFlags) -> bool {
        self.bits & other.bits == other.bits
    }

    /// Whether the flag of this short name is set.
    pub fn has_short(self, name: &str) -> bool {
        Self::NAMES.iter().any(|(bit, short, _)| *short == name && self.bits & bit != 0)
    }

    /// Sets the flags of `other` too.
    pub fn insert(&mut self, other: ResponseFlags) {
        for bit in other.in_order() {
            let count = self.bits.count_ones();
            if self.bits & 1 << bit == 0 && count < MAX_ORDERED {
                self.order |= (bit + 1) << (5 * count);
            }
            self.bits |= 1 << bit;
        }
    }

    /// The bits that are set, in the order in which they were.
    fn in_order(self) -> impl Iterator<Item = u32> {
        let ordered = (0..MAX_ORDERED).map_while(move |i| (self.order >> (5 * i) & 31).checked_sub(1));
        let known = ordered.clone().fold(0, |known, bit| known | 1_u32 << bit);
        let rest = (0..32).filter(move |bit| self.bits & !known & 1 << bit != 0);
        ordered.chain(rest)
    }

    /// The set as bits, for keys of maps.
    pub fn bits(self) -> u32 {
        self.bits
    }

    /// Writes the short names with commas between them, `-` for none.
    pub fn write_short(self, out: &mut Vec<u8>) {
        self.write(out, |names| names.1);
    }

    /// Writes the long names with commas between them, `-` for none.
    pub fn write_long(self, out: &mut Vec<u8>) {
        self.write(out, |names| names.2);
    }

    fn write(self, out: &mut Vec<u8>, name: impl Fn(&(u32, &'static str, &'static str)) -> &'static str) {
        if self.is_empty() {
            out.push(b'-');
            return;
        }
        let mut first = true;
        for names in self.in_order().filter_map(|bit| Self::NAMES.iter().find(|names| names.0 == 1 << bit)) {
            if !first {
                out.push(b',');
            }
            first = false;
            out.extend_from_slice(name(names).as_bytes());
        }
    }
}

impl std::ops::BitOr for ResponseFlags {
    type Output = ResponseFlags;

    fn bitor(mut self, other: ResponseFlags) -> ResponseFlags {
        self.insert(other);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::ResponseFlags;

    #[test]
    fn prints_as_envoy_does() {
        let mut out = Vec::new();
        ResponseFlags::NONE.write_short(&mut out);
        out.push(b' ');
        let both = ResponseFlags::UPSTREAM_CONNECTION_FAILURE | ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED;
        both.write_short(&mut out);
        out.push(b' ');
        both.write_long(&mut out);
        assert_eq!(out, b"- UF,URX UpstreamConnectionFailure,UpstreamRetryLimitExceeded");
    }

    #[test]
    fn the_order_is_that_of_setting() {
        let mut flags = ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED;
        flags.insert(ResponseFlags::UPSTREAM_REQUEST_TIMEOUT | ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        let mut out = Vec::new();
        flags.write_short(&mut out);
        assert_eq!(out, b"URX,UT");
    }
}
