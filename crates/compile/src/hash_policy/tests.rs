//! Hash policies, as Envoy computes them.

use meltemi_envoy::config::route::v3::RouteAction;
use meltemi_envoy::json::Codec;

use super::*;
use crate::Rejection;
use crate::ledger::Ledger;
use crate::matcher::tests::Request;

fn compile(yaml: &str) -> Result<HashPolicies, Vec<Rejection>> {
    let action = Codec::new().parse::<RouteAction>(&format!("hash_policy: [{yaml}]")).unwrap();
    Ledger::run("r", |at| Some(hash_policies(at, &action.hash_policy)))
}

fn hash(yaml: &str, request: &Request) -> Option<u64> {
    compile(yaml).unwrap().hash(request, None)
}

fn of(text: &str) -> u64 {
    xxh64(text.as_bytes(), 0)
}

const A: &str = "{header: {header_name: x-a}}";
const B: &str = "{header: {header_name: x-b}}";

#[test]
fn the_values_of_a_header_count_in_sorted_order() {
    let request = |values: &[&str]| values.iter().fold(Request::get("h", "/"), |r, v| r.with("x-a", v));
    assert_eq!(hash(A, &request(&["one"])), Some(of("one")));
    assert_eq!(hash(A, &request(&[])), None);
    assert_eq!(hash(A, &request(&["b", "a"])), Some(xxh64(b"b", of("a"))));
    let rewritten = r"{header: {header_name: x-a, regex_rewrite: {pattern: {regex: '^u/(\d+)/.*$'}, substitution: '\1'}}}";
    assert_eq!(hash(rewritten, &request(&["u/17/x"])), Some(of("17")));
    assert_eq!(hash("{header: {header_name: ':path'}}", &Request::get("h", "/p")), Some(of("/p")));
}

#[test]
fn policies_are_mixed_and_a_terminal_one_ends_them() {
    let both = Request::get("h", "/").with("x-a", "1").with("x-b", "2");
    assert_eq!(hash(&format!("{A}, {B}"), &both), Some(of("1").rotate_left(1) ^ of("2")));
    assert_eq!(hash(&format!("{A}, {A}"), &both), Some(of("1").rotate_left(1) ^ of("1")));
    let terminal = format!("{{header: {{header_name: x-a}}, terminal: true}}, {B}");
    assert_eq!(hash(&terminal, &both), Some(of("1")));
    assert_eq!(hash(&terminal, &Request::get("h", "/").with("x-b", "2")), Some(of("2")));
}

#[test]
fn the_address_and_a_query_parameter_count_as_text() {
    let request = Request::get("h", "/p?a=1&user=x%20y&user=z");
    assert_eq!(hash("{connection_properties: {source_ip: true}}", &request), Some(of("10.1.2.3")));
    assert_eq!(hash("{connection_properties: {}}", &request), None);
    assert_eq!(hash("{query_parameter: {name: user}}", &request), Some(of("x%20y")));
    assert_eq!(hash("{query_parameter: {name: u}}", &request), None);
}

#[test]
fn a_cookie_counts_or_is_made() {
    let with = |text| Request::get("h", "/").with("cookie", text);
    let session = "{cookie: {name: s, ttl: 0s}}";
    assert_eq!(hash(session, &with("a=b; s=\"v\"; s=w")), Some(of("v")));
    let policies = compile("{cookie: {name: s, ttl: 5.9s, path: /p, attributes: [{name: Secure}, {name: SameSite, value: Lax}]}}").unwrap();
    let mut made = Vec::new();
    let mut new = |policy: &CookiePolicy| {
        made.push(policy.set_cookie("v"));
        "v".to_owned()
    };
    assert_eq!(policies.hash(&with("s="), Some(&mut new)), Some(of("v")));
    assert_eq!(made, ["s=\"v\"; Max-Age=5; Path=/p; Secure; SameSite=Lax; HttpOnly"]);
    assert_eq!(hash("{cookie: {name: s}}", &Request::get("h", "/")), None);
}

#[test]
fn a_policy_must_say_what_it_hashes() {
    let paths = |yaml: &str| compile(yaml).unwrap_err()[0].path.clone();
    assert_eq!(paths("{terminal: true}"), "hash_policy[0]");
    assert_eq!(paths("{header: {header_name: ''}}"), "hash_policy[0].header.header_name");
    assert_eq!(paths("{cookie: {name: ''}}"), "hash_policy[0].cookie.name");
    assert_eq!(paths("{query_parameter: {}}"), "hash_policy[0].query_parameter.name");
}
