//! Instruction counts of header edits; `scripts/bench-micro` runs these under callgrind.

use std::borrow::Cow;
use std::hint::black_box;
use std::rc::Rc;

use http::{HeaderName, Method};
use meltemi_compile::matcher::RequestView;
use meltemi_envoy::config::route::v3::RouteConfiguration;
use meltemi_envoy::json::Codec;
use meltemi_http::RequestHead;

use super::{Levels, request};
use crate::random::micro_iterations;
use crate::record::{ConnectionInfo, RequestRecord};

/// Any GET.
struct Anything;

impl RequestView for Anything {
    fn method(&self) -> &str {
        "GET"
    }
    fn scheme(&self) -> &str {
        "http"
    }
    fn authority(&self) -> &str {
        "a"
    }
    fn path(&self) -> &str {
        "/"
    }
    fn header(&self, _name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        None
    }
    fn random(&self) -> u64 {
        0
    }
}

const TABLE: &str = r#"
name: r
request_headers_to_remove: [x-secret]
request_headers_to_add: [{header: {key: x-mesh, value: one}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]
virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: c}}]}]
"#;

#[test]
#[ignore = "an instruction count"]
fn header_edit_one_removed_one_set() {
    let iterations = micro_iterations();
    let table =
        meltemi_compile::route_table(&Codec::new().parse::<RouteConfiguration>(TABLE).unwrap()).unwrap();
    let found = table.find(&Anything).unwrap();
    let address = "127.0.0.1:80".parse().unwrap();
    let connection = Rc::new(ConnectionInfo::new(1, address, address, "l".into()));
    let record = RequestRecord::new(connection, 1, None);
    let mut head = RequestHead::new(Method::GET, "/");
    for _ in 0..iterations {
        request(black_box(&mut head), &Levels { found, entry: None }, &record);
    }
    assert_eq!(head.headers.len(), 1);
}
