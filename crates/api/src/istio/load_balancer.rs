//! How an endpoint of a service is chosen: algorithms, consistent hashing, localities, warm-up. Leaves out which of several
//! settings counts. Source: Istio `networking.LoadBalancerSettings`, `networking.LocalityLoadBalancerSetting`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::check;
use crate::decode::{wire, wire_enum};
use crate::syntax;

wire! {
    /// How an endpoint is chosen.
    pub struct LoadBalancerSettings {
        /// One of the standard algorithms; excludes `consistentHash`.
        simple: Option<SimpleLb>, "simple";
        /// Requests of one key go to one endpoint.
        consistent_hash: Option<ConsistentHashLb>, "consistentHash";
        /// Which localities get how much; excludes `zoneAwareLbSetting`.
        locality_lb_setting: Option<LocalityLbSetting>, "localityLbSetting";
        /// The caller's zone before others, as far as it can take it.
        zone_aware_lb_setting: Option<ZoneAwareLbSetting>, "zoneAwareLbSetting";
        /// Old form of `warmup` with its defaults.
        warmup_duration_secs: Option<Duration>, "warmupDurationSecs" => syntax::duration;
        /// How the share of a new endpoint grows.
        warmup: Option<Warmup>, "warmup";
    }
    rule check::load_balancer;
}

wire_enum! {
    /// The standard algorithms.
    pub enum SimpleLb {
        /// The mesh decides: least request.
        Unspecified = "UNSPECIFIED",
        /// Old name of least request.
        LeastConn = "LEAST_CONN",
        /// Any healthy endpoint.
        Random = "RANDOM",
        /// The address the caller asked for.
        Passthrough = "PASSTHROUGH",
        /// One after the other.
        RoundRobin = "ROUND_ROBIN",
        /// The less busy of two.
        LeastRequest = "LEAST_REQUEST",
    }
}

wire! {
    /// Requests of one key go to one endpoint. The key is one of the first four.
    pub struct ConsistentHashLb {
        /// The value of this header.
        http_header_name: Option<String>, "httpHeaderName" => syntax::header_name;
        /// The value of a cookie.
        http_cookie: Option<HashCookie>, "httpCookie";
        /// The address of the caller.
        use_source_ip: Option<bool>, "useSourceIp";
        /// The value of this query parameter.
        http_query_parameter_name: Option<String>, "httpQueryParameterName" => syntax::not_empty;
        /// By a ring; the default. Excludes `maglev`.
        ring_hash: Option<RingHash>, "ringHash";
        /// By Maglev's table.
        maglev: Option<Maglev>, "maglev";
        /// Old form of `ringHash.minimumRingSize`.
        minimum_ring_size: Option<i64>, "minimumRingSize" => syntax::ring_size;
    }
    rule check::consistent_hash;
}

wire! {
    /// A cookie that a request is known by.
    pub struct HashCookie {
        /// Name.
        name: String, "name", required;
        /// Path of the cookie that the proxy makes.
        path: Option<String>, "path";
        /// Life of the cookie that the proxy makes where the request has none; 0: a session's; absent: none is made.
        ttl: Option<Duration>, "ttl" => syntax::duration_or_zero;
        /// Further attributes of the cookie that the proxy makes.
        attributes: Vec<CookieAttribute>, "attributes";
    }
    rule check::hash_cookie;
}

wire! {
    /// An attribute of a cookie.
    pub struct CookieAttribute {
        /// Name, such as `SameSite`.
        name: String, "name", required;
        /// Value; absent for an attribute without one.
        value: Option<String>, "value";
    }
}

wire! {
    /// A ring of hashes.
    pub struct RingHash {
        /// Entries it has at least; absent or 0: 1024.
        minimum_ring_size: Option<i64>, "minimumRingSize" => syntax::ring_size;
    }
}

wire! {
    /// A table of hashes.
    pub struct Maglev {
        /// Its size, a prime.
        table_size: Option<i64>, "tableSize" => syntax::maglev_size;
    }
    rule check::maglev;
}

wire! {
    /// How the share of a new endpoint grows.
    pub struct Warmup {
        /// For how long.
        duration: Option<Duration>, "duration", required => syntax::duration;
        /// Share of its weight that it starts with, in percent; absent: 10.
        minimum_percent: Option<f64>, "minimumPercent" => syntax::percent;
        /// Shape of the growth; absent: 1, which is a straight line.
        aggression: Option<f64>, "aggression" => syntax::positive;
    }
}

wire! {
    /// Which localities (`region/zone/subzone`) get how much.
    pub struct LocalityLbSetting {
        /// Whether it is in force; absent: yes.
        enabled: Option<bool>, "enabled";
        /// Weights by the locality of the caller; excludes `failover`.
        distribute: Vec<Distribute>, "distribute";
        /// Which region stands in for which.
        failover: Vec<Failover>, "failover";
        /// Labels that an endpoint shares with the caller, the most important first; `label=value` instead of the caller's own.
        failover_priority: Vec<String>, "failoverPriority" => syntax::failover_label;
    }
    rule check::locality_lb_setting;
}

wire! {
    /// Weights for callers of a locality.
    pub struct Distribute {
        /// The callers, as `region/zone/subzone`; the last part may be `*`.
        from: String, "from", required => syntax::locality;
        /// Localities of endpoints with their percentages, 100 together.
        to: BTreeMap<String, u32>, "to" => syntax::locality_weight;
    }
    rule check::distribute;
}

wire! {
    /// A region that stands in for another.
    pub struct Failover {
        /// The region of the caller.
        from: String, "from" => syntax::region;
        /// The region that is next.
        to: String, "to" => syntax::region;
    }
    rule check::failover;
}

wire! {
    /// The caller's zone before others, as far as it can take it; within the caller's region.
    pub struct ZoneAwareLbSetting {
        /// Whether it is in force; absent: yes.
        enabled: Option<bool>, "enabled";
        /// Which region stands in for which.
        failover: Vec<Failover>, "failover";
        /// Labels that an endpoint shares with the caller, the most important first.
        failover_priority: Vec<String>, "failoverPriority" => syntax::failover_label;
        /// Endpoints below which zones are not looked at; absent: 6.
        min_cluster_size: Option<u32>, "minClusterSize" => syntax::at_least_one;
    }
    rule check::zone_aware_lb_setting;
}
