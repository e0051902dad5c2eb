use proptest::prelude::*;

use super::*;
use crate::program::{ChainMatch, NetworkFilter};

/// Every criterion in order, one by one: what the index must agree with.
const ALL: [Criterion; 3] = [
    |chain, facts| by_equal(chain.destination_port.as_slice(), &facts.destination.port()),
    |chain, facts| by_prefix(&chain.prefix_ranges, facts.destination.ip()),
    |chain, facts| by_server_name(&chain.server_names, facts.server_name),
];

fn scanned(chains: &[Arc<FilterChain>], facts: &ConnectionFacts<'_>) -> Option<usize> {
    let mut left: Vec<usize> = (0..chains.len()).collect();
    for rank in ALL.into_iter().chain(CRITERIA) {
        let best = left.iter().filter_map(|i| rank(&chains[*i].matches, facts)).max()?;
        left.retain(|i| rank(&chains[*i].matches, facts) == Some(best));
    }
    left.first().copied()
}

fn by_server_name(names: &[Box<str>], actual: &str) -> Rank {
    if names.is_empty() {
        return Some(0);
    }
    let rank = |name: &str| match name.strip_prefix('*') {
        None => (name == actual).then_some(usize::MAX),
        Some(suffix) => (actual.len() > suffix.len() && actual.ends_with(suffix)).then_some(suffix.len()),
    };
    names.iter().filter_map(|name| rank(name)).max()
}

fn chain(matches: ChainMatch) -> Arc<FilterChain> {
    Arc::new(FilterChain {
        tls: None,
        name: "".into(),
        matches,
        before: vec![],
        filter: NetworkFilter::DirectResponse(bytes::Bytes::new()),
        digest: 0,
        transport_socket_connect_timeout: None,
    })
}

fn some<T: std::fmt::Debug + Clone>(values: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![Just(vec![]), proptest::collection::vec(values, 1..3)]
}

fn ranges() -> impl Strategy<Value = IpNet> {
    let texts = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.1.1/32", "::/0", "fd00::/8"];
    proptest::sample::select(texts.to_vec()).prop_map(|text| text.parse().expect("a range"))
}

fn matches() -> impl Strategy<Value = ChainMatch> {
    let name = proptest::sample::select(vec!["a.b", "x.a.b", "*.b", "*.a.b", "*.x.a.b"]).prop_map(Box::from);
    let protocol = proptest::sample::select(vec!["h2c", "http/1.1", "http/1.0"]).prop_map(Box::from);
    let transport =
        proptest::option::of(proptest::sample::select(vec!["tls", "raw_buffer"]).prop_map(Box::from));
    let port = proptest::option::of(80_u16..82);
    (port, some(ranges()), some(name), transport, some(protocol), some(ranges())).prop_map(
        |(
            destination_port,
            prefix_ranges,
            server_names,
            transport_protocol,
            application_protocols,
            source,
        )| {
            ChainMatch {
                destination_port,
                prefix_ranges,
                server_names,
                transport_protocol,
                application_protocols,
                source_prefix_ranges: source,
                ..ChainMatch::default()
            }
        },
    )
}

proptest! {
    #[test]
    fn the_index_chooses_as_a_scan_does(
        all in proptest::collection::vec(matches(), 1..12),
        port in 79_u16..83,
        address in proptest::sample::select(vec!["10.1.1.1", "10.1.2.3", "10.9.9.9", "11.0.0.1", "fd00::1", "::1"]),
        server_name in proptest::sample::select(vec!["", "a.b", "x.a.b", "y.x.a.b", "b", ".b", "c"]),
        transport_protocol in proptest::sample::select(vec!["tls", "raw_buffer"]),
        protocol in proptest::sample::select(vec!["h2c", "http/1.1"]),
    ) {
        let chains: Vec<_> = all.into_iter().map(chain).collect();
        let address: IpAddr = address.parse().expect("an address");
        let facts = ConnectionFacts {
            destination: (address, port).into(),
            source: (address, 1).into(),
            direct_source: address,
            server_name,
            transport_protocol,
            application_protocols: &[protocol],
        };
        let index = ChainIndex::new(&chains);
        let found = most_specific(&chains, index.candidates(&facts), &facts);
        prop_assert_eq!(found, scanned(&chains, &facts));
    }
}

#[test]
fn thousands_of_names_leave_one_chain_to_compare() {
    let named = |i: usize| ChainMatch {
        server_names: vec![format!("s{i}.example").into(), format!("*.s{i}.example").into()],
        ..ChainMatch::default()
    };
    let chains: Vec<_> = (0..5000).map(named).map(chain).collect();
    let index = ChainIndex::new(&chains);
    assert!(overlaps(&chains, &index).is_empty());
    for (name, expected) in [("s7.example", Some(7)), ("a.b.s4999.example", Some(4999)), ("example", None)] {
        let facts = ConnectionFacts {
            destination: ([10, 0, 0, 1], 443).into(),
            source: ([10, 0, 0, 2], 1).into(),
            direct_source: [10, 0, 0, 2].into(),
            server_name: name,
            transport_protocol: "tls",
            application_protocols: &[],
        };
        let candidates = index.candidates(&facts);
        assert_eq!(candidates.first().copied(), expected, "{name}");
        assert!(candidates.len() <= 1, "{name}");
    }
}
