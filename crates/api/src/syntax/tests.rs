use std::time::Duration;

use super::*;

/// Checks a leaf with texts that it accepts and texts that it refuses.
fn check(leaf: fn(&str) -> Verdict, good: &[&str], bad: &[&str]) {
    for text in good {
        assert!(leaf(text).is_ok(), "{text} should be accepted: {:?}", leaf(text).err());
    }
    for text in bad {
        assert!(leaf(text).is_err(), "{text} should be refused");
    }
}

#[test]
fn durations_are_gos() {
    let parse = |text: &str| parse_duration(text).ok();
    assert_eq!(parse("1h30m"), Some(Duration::from_secs(5400)));
    assert_eq!(parse("1.5s"), Some(Duration::from_millis(1500)));
    assert_eq!(parse(".5s"), Some(Duration::from_millis(500)));
    assert_eq!(parse("250ms"), Some(Duration::from_millis(250)));
    assert_eq!(parse("3us2ns"), Some(Duration::from_nanos(3002)));
    assert_eq!(parse("0"), Some(Duration::ZERO));
    for bad in ["", "5", "1.2.3s", "s", "-1s", "1d", "99999999999999999999h", "1s 2s", "."] {
        assert_eq!(parse(bad), None, "{bad}");
    }
    check(duration, &["1ms", "2s"], &["0s", "999us"]);
    check(duration_or_zero, &["0s", "1ms"], &["1us"]);
}

#[test]
fn hosts() {
    let good =
        ["*", "*.example.com", "*-a.example.com", "reviews", "reviews.default.svc.cluster.local", "10.0.0.1"];
    let bad = ["", "a*.com", "*a.com", "-a", "a..b", "http://a", "a:80", "a b", "a_b"];
    check(host, &good, &bad);
    check(destination_host, &["reviews"], &["*"]);
    check(namespaced_host, &["*", "ns/*", "./a.com", "*/a.com"], &["~/a", "A/b", "/a"]);
    check(egress_host, &["*/*", "./*", "~/*", "ns/a.com"], &["a.com", "*", "ns/"]);
    check(
        default_endpoint,
        &["127.0.0.1:80", "[::1]:80", "0.0.0.0:80"],
        &["10.0.0.1:80", "127.0.0.1", "127.0.0.1:0"],
    );
    check(ip_or_cidr, &["10.0.0.1", "10.0.0.0/8", "::1"], &["10.0.0.0/33", "a"]);
}

#[test]
fn names() {
    check(label_key, &["app", "app.kubernetes.io/name"], &["", "-a", "a/b/c", "A.B./x y"]);
    check(label_value, &["", "v1", "a_b.c"], &["-", "a b"]);
    check(container_port_name, &["http", "a-1"], &["averyveryverylongname", "HTTP", "a--b"]);
    check(gateway_reference, &["mesh", "gw", "ns/gw", "./gw"], &["", "a/b/c", "Gw"]);
    check(header_name, &["x-user", ":authority"], &["", "a b", ":"]);
    check(retry_on, &["5xx", "connect-failure,refused-stream", "reset, 503"], &["", "5xxx", "777"]);
    check(protocol, &["http", "GRPC-Web", "grpc_web", "TCP"], &["htp", ""]);
    check(
        field_path,
        &["metadata.name", "metadata.labels['app']"],
        &["metadata.uid", "x", "metadata.labels['']"],
    );
    check(regex, &["a.*", "(?i)x"], &["(", "a(?=b)", "(a{1000}){1000}"]);
    check(base64, &["", "YQ==", "YWI="], &["YQ", "Y===", "Y Q="]);
}
