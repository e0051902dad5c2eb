//! Instruction counts of route matching; `scripts/bench-micro` runs these under callgrind.

use std::fmt::Write as _;
use std::hint::black_box;

use meltemi_envoy::config::route::v3::RouteConfiguration;
use meltemi_envoy::json::Codec;

use super::RouteTable;
use crate::matcher::tests::Request;

fn iterations() -> usize {
    std::env::var("MICRO_ITERATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// So many virtual hosts of ten routes, half of them with exact paths.
fn table(virtual_hosts: usize) -> RouteTable {
    let mut yaml = String::from("name: r\nvirtual_hosts:\n");
    for host in 0..virtual_hosts {
        write!(yaml, "- {{name: h{host}, domains: [h{host}.example], routes: [").unwrap();
        for route in 0..10 {
            let path = if route % 2 == 0 { "path: /exact/" } else { "prefix: /prefix/" };
            write!(yaml, "{{match: {{{path}{route}}}, route: {{cluster: c}}}}, ").unwrap();
        }
        yaml.push_str("]}\n");
    }
    crate::route_table(&Codec::new().parse::<RouteConfiguration>(&yaml).unwrap()).unwrap()
}

fn find(table: &RouteTable, authority: &str, path: &str) {
    let request = Request::get(authority, path);
    for _ in 0..iterations() {
        assert!(black_box(table.find(black_box(&request))).is_some());
    }
}

#[test]
#[ignore = "an instruction count"]
fn route_match_in_1_virtual_host() {
    find(&table(1), "h0.example", "/prefix/9/item");
}

#[test]
#[ignore = "an instruction count"]
fn route_match_in_1000_virtual_hosts() {
    find(&table(1000), "h999.example", "/prefix/9/item");
}
