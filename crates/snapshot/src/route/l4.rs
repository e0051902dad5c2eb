//! Rules for connections.

use crate::route::{Callers, Destination, Written};

/// A rule for connections that nobody looks into.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpRule {
    /// Any one suffices; empty for all connections.
    pub conditions: Vec<L4Condition>,
    /// Where to, by weight. A single one gets everything.
    pub destinations: Vec<L4Destination>,
    /// Where it says so.
    pub written: Written,
}

/// A rule for connections by the server name that they ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsRule {
    /// Any one suffices.
    pub conditions: Vec<TlsCondition>,
    /// Where to, by weight. A single one gets everything.
    pub destinations: Vec<L4Destination>,
    /// Where it says so.
    pub written: Written,
}

/// One condition; all of its parts must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct L4Condition {
    /// Addresses that the connection is made to, as IP or CIDR; empty for all.
    pub destination_subnets: Vec<String>,
    /// For which callers.
    pub callers: Callers,
    /// Where it says so.
    pub written: Written,
}

/// One condition; all of its parts must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsCondition {
    /// Server names, wildcards among them.
    pub server_names: Vec<String>,
    /// Addresses that the connection is made to, as IP or CIDR; empty for all.
    pub destination_subnets: Vec<String>,
    /// For which callers.
    pub callers: Callers,
    /// Where it says so.
    pub written: Written,
}

/// A destination with its share.
#[derive(Debug, Clone, PartialEq)]
pub struct L4Destination {
    /// Where to.
    pub destination: Destination,
    /// Share, relative to the sum.
    pub weight: u32,
}
