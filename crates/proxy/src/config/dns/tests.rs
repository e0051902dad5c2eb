use std::net::Ipv4Addr;

use meltemi_compile::program::{DnsFamily, DnsResolver};

use super::*;

fn targets(names: &[&str]) -> Arc<DnsTargets> {
    let host = |index: usize| Host { address: (Ipv4Addr::from(index as u32), 80).into(), ..Host::default() };
    Arc::new(DnsTargets {
        template: Endpoints {
            priorities: vec![(0..names.len()).map(host).collect()],
            ..Endpoints::default()
        },
        names: names.iter().map(|name| Box::from(*name)).collect(),
        refresh: Duration::from_secs(5),
        respect_ttl: true,
        failure_refresh: Some((Duration::from_secs(1), Duration::from_secs(3))),
        jitter: Duration::ZERO,
        family: DnsFamily::V4Only,
        resolver: DnsResolver::default(),
    })
}

fn found(addresses: &[&str], ttl: u64) -> Outcome {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Outcome::Found { addresses, valid_for: Duration::from_secs(ttl) }
}

fn addresses(names: &Names) -> Vec<String> {
    let endpoints = names.endpoints();
    endpoints.priorities.iter().flatten().map(|host| host.address.to_string()).collect()
}

#[tokio::test]
async fn addresses_and_names_of_the_hosts_file_resolve() {
    let (mut resolvers, mut answers) = Resolvers::new();
    let key: DnsKey = ("c".into(), 0);
    resolvers.follow([(key.clone(), (targets(&["127.0.0.2", "localhost"]), false))].into());
    let mut last = Vec::new();
    while last != ["127.0.0.2:80", "127.0.0.1:80"] {
        let (of, endpoints) = answers.recv().await.expect("the task goes on");
        assert_eq!(of, key);
        last = endpoints.priorities[0].iter().map(|host| host.address.to_string()).collect();
    }
}

#[test]
fn no_such_name_empties_a_strict_cluster_and_leaves_a_logical_host() {
    for (is_logical, left) in [(false, vec![]), (true, vec!["10.0.0.1:80"])] {
        let mut names = Names::new(targets(&["shop"]), is_logical);
        names.take(0, found(&["10.0.0.1", "10.0.0.2"], 0));
        names.take(0, Outcome::Failed("SERVFAIL".to_owned()));
        assert_eq!(addresses(&names).len(), if is_logical { 1 } else { 2 });
        names.take(0, Outcome::None);
        assert_eq!(addresses(&names), left);
    }
}

#[test]
fn an_answer_in_another_order_is_news_only_for_a_logical_host() {
    for (is_logical, after) in [(false, vec!["10.0.0.1:80", "10.0.0.2:80"]), (true, vec!["10.0.0.2:80"])] {
        let mut names = Names::new(targets(&["shop"]), is_logical);
        names.take(0, found(&["10.0.0.1", "10.0.0.2"], 0));
        let before = names.endpoints();
        names.take(0, found(&["10.0.0.2", "10.0.0.1"], 0));
        assert_eq!(addresses(&names), after);
        assert_eq!(before == names.endpoints(), !is_logical);
    }
}

#[test]
fn the_other_addresses_of_a_logical_host_are_for_happy_eyeballs() {
    let mut names = Names::new(targets(&["shop"]), true);
    names.take(0, found(&["10.0.0.1", "10.0.0.2"], 0));
    let endpoints = names.endpoints();
    assert_eq!(endpoints.priorities[0][0].additional_addresses, ["10.0.0.2:80".parse().unwrap()]);
}

#[test]
fn the_pause_follows_ttl_refresh_rate_and_failures() {
    let mut names = Names::new(targets(&["shop"]), false);
    assert_eq!(names.take(0, found(&["10.0.0.1"], 30)), Duration::from_secs(30));
    assert_eq!(names.take(0, found(&["10.0.0.1"], 0)), Duration::from_secs(5));
    assert_eq!(names.take(0, Outcome::None), Duration::from_secs(5));
    for limit in [1, 2, 3, 3] {
        let pause = names.take(0, Outcome::Failed(String::new()));
        assert!(pause < Duration::from_secs(limit), "{pause:?} of {limit}");
    }
    Arc::get_mut(&mut names.targets).expect("not shared").respect_ttl = false;
    assert_eq!(names.take(0, found(&["10.0.0.1"], 30)), Duration::from_secs(5));
    assert_eq!(names.failures, [0]);
}

#[test]
fn an_address_of_two_names_is_one_host() {
    let mut names = Names::new(targets(&["a", "b"]), false);
    names.take(0, found(&["10.0.0.1"], 0));
    names.take(1, found(&["10.0.0.1", "10.0.0.2"], 0));
    assert_eq!(addresses(&names), ["10.0.0.1:80", "10.0.0.2:80"]);
}
