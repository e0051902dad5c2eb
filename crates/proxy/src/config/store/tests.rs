//! Warming, refusal and assembly.

use std::time::Duration;

use meltemi_compile::program::Program;
use meltemi_envoy::json::Codec;
use meltemi_envoy::{Any, type_url};
use meltemi_xds::Resource;
use meltemi_xds::client::Update;
use tokio::time::Instant;

use super::Store;

const EDS_CLUSTER: &str =
    "{name: c, type: EDS, eds_cluster_config: {service_name: s, eds_config: {ads: {}}}}";
const STATIC_CLUSTER: &str = "{name: c, type: STATIC, load_assignment: {cluster_name: c}}";
const ENDPOINTS: &str = "{cluster_name: s, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: \
                         {address: 127.0.0.1, port_value: 80}}}}]}]}";
const ROUTES: &str = "{name: r, virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, \
                      route: {cluster: c}}]}]}";

fn listener(name: &str, port: u16, rds: &str) -> String {
    format!(
        "{{name: {name}, address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}, \
         filter_chains: [{{filters: [{{name: h, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: p, rds: {{route_config_name: r, config_source: {{ads: {{}}, {rds}}}}}, \
         http_filters: [{{name: router, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}]}}]}}"
    )
}

fn resource<M: prost::Name + Default>(name: &str, yaml: &str) -> Resource {
    let message: M = Codec::new().parse(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    Resource::new(name, Any::pack(&message))
}

fn cluster(yaml: &str) -> Resource {
    resource::<meltemi_envoy::config::cluster::v3::Cluster>("c", yaml)
}

fn endpoints(yaml: &str) -> Resource {
    resource::<meltemi_envoy::config::endpoint::v3::ClusterLoadAssignment>("s", yaml)
}

fn routes(yaml: &str) -> Resource {
    resource::<meltemi_envoy::config::route::v3::RouteConfiguration>("r", yaml)
}

fn lds(name: &str, yaml: &str) -> Resource {
    resource::<meltemi_envoy::config::listener::v3::Listener>(name, yaml)
}

/// A store and a clock.
struct World {
    store: Store,
    now: Instant,
}

impl World {
    fn new() -> World {
        World { store: Store::default(), now: Instant::now() }
    }

    /// An update; what was refused, as text.
    fn update(&mut self, type_url: &str, changed: Vec<Resource>, removed: &[&str]) -> Vec<String> {
        let update = Update {
            type_url: type_url.to_owned(),
            changed,
            removed: removed.iter().map(|name| (*name).to_owned()).collect(),
            full: false,
            version: "1".to_owned(),
            mode: meltemi_xds::Mode::Sotw,
            control_plane: String::new(),
            nonce: "n".to_owned(),
        };
        let refused = self.store.apply(&update, &meltemi_compile::Origin::Ads, self.now, &mut |listener| {
            if listener.address.port() != 1 {
                return Ok(());
            }
            Err(meltemi_compile::Rejection::new(&*listener.name, "address", "cannot bind"))
        });
        self.store.settle(self.now);
        refused.iter().map(ToString::to_string).collect()
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.store.settle(self.now);
    }

    fn program(&self) -> Program {
        self.store.program()
    }
}

fn wanted(world: &World, kind: &'static str) -> Vec<String> {
    world.store.wanted_names(kind).into_iter().map(|name| name.to_string()).collect()
}

#[test]
fn a_cluster_is_used_once_its_endpoints_came() {
    let mut world = World::new();
    assert_eq!(world.update(type_url::CLUSTER, vec![cluster(EDS_CLUSTER)], &[]), Vec::<String>::new());
    assert!(world.program().clusters.is_empty());
    assert_eq!(wanted(&world, type_url::ENDPOINT), ["s"]);
    world.update(type_url::ENDPOINT, vec![endpoints(ENDPOINTS)], &[]);
    let program = world.program();
    assert_eq!(program.endpoints["c"].priorities[0][0].address.to_string(), "127.0.0.1:80");
    assert!(program.clusters.contains_key("c"));
}

#[test]
fn a_cluster_is_used_without_endpoints_after_the_timeout() {
    let mut world = World::new();
    world.update(type_url::CLUSTER, vec![cluster(EDS_CLUSTER)], &[]);
    assert_eq!(world.store.next_deadline(world.now), Some(world.now + Duration::from_secs(15)));
    world.pass(15);
    assert!(world.program().clusters.contains_key("c"));
    assert!(world.program().endpoints.is_empty());
}

#[test]
fn a_timeout_of_zero_waits_for_ever() {
    let mut world = World::new();
    let eds = EDS_CLUSTER.replace("ads: {}", "ads: {}, initial_fetch_timeout: 0s");
    world.update(type_url::CLUSTER, vec![cluster(&eds)], &[]);
    world.update(type_url::LISTENER, vec![lds("l", &listener("l", 8080, "initial_fetch_timeout: 0s"))], &[]);
    world.pass(1_000_000);
    assert!(world.program().clusters.is_empty());
    assert!(world.program().listeners.is_empty());
    assert_eq!(world.store.next_deadline(world.now), None);
}

#[test]
fn a_listener_is_used_once_its_routes_came() {
    let mut world = World::new();
    world.update(type_url::LISTENER, vec![lds("l", &listener("l", 8080, ""))], &[]);
    assert!(world.program().listeners.is_empty());
    assert_eq!(wanted(&world, type_url::ROUTE), ["r"]);
    world.update(type_url::ROUTE, vec![routes(ROUTES)], &[]);
    assert!(world.program().listeners.contains_key("l"));
    assert!(world.program().routes.contains_key("r"));
}

#[test]
fn the_old_version_serves_until_the_new_one_is_warm() {
    let mut world = World::new();
    world.update(type_url::CLUSTER, vec![cluster(STATIC_CLUSTER)], &[]);
    let old = world.program().clusters["c"].digest;
    world.update(type_url::CLUSTER, vec![cluster(EDS_CLUSTER)], &[]);
    assert_eq!(world.program().clusters["c"].digest, old);
    world.update(type_url::ENDPOINT, vec![endpoints(ENDPOINTS)], &[]);
    assert_ne!(world.program().clusters["c"].digest, old);
}

#[test]
fn a_refused_resource_keeps_its_last_good_version_and_the_others_apply() {
    let mut world = World::new();
    world.update(type_url::CLUSTER, vec![cluster(STATIC_CLUSTER)], &[]);
    let good = world.program().clusters["c"].digest;
    let bad =
        cluster("{name: c, type: STATIC, lb_policy: CLUSTER_PROVIDED, load_assignment: {cluster_name: c}}");
    let other =
        resource::<meltemi_envoy::config::cluster::v3::Cluster>("d", &STATIC_CLUSTER.replace("c,", "d,"));
    let refused = world.update(type_url::CLUSTER, vec![bad, other], &[]);
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].contains("c: lb_policy"), "{refused:?}");
    let program = world.program();
    assert_eq!(program.clusters["c"].digest, good);
    assert!(program.clusters.contains_key("d"));
    let entry = &world.store.clusters()["c"];
    assert!(entry.refused.as_ref().is_some_and(|refused| refused.details.contains("lb_policy")));
    let counts = world.store.counts(type_url::CLUSTER);
    assert_eq!((counts.attempts, counts.successes, counts.rejections), (2, 1, 1));
}

#[test]
fn a_good_version_clears_the_refusal() {
    let mut world = World::new();
    world.update(type_url::CLUSTER, vec![cluster(STATIC_CLUSTER)], &[]);
    let bad =
        cluster("{name: c, type: STATIC, lb_policy: CLUSTER_PROVIDED, load_assignment: {cluster_name: c}}");
    world.update(type_url::CLUSTER, vec![bad], &[]);
    world.update(type_url::CLUSTER, vec![cluster(STATIC_CLUSTER)], &[]);
    assert!(world.store.clusters()["c"].refused.is_none());
}

#[test]
fn an_address_that_cannot_be_bound_refuses_that_listener_alone() {
    let mut world = World::new();
    world.update(type_url::LISTENER, vec![lds("x", &listener("x", 8080, ""))], &[]);
    world.update(type_url::ROUTE, vec![routes(ROUTES)], &[]);
    let changed = vec![lds("l", &listener("l", 1, "")), lds("m", &listener("m", 8081, ""))];
    let refused = world.update(type_url::LISTENER, changed, &[]);
    assert_eq!(refused, ["l: address: cannot bind"]);
    assert_eq!(world.program().listeners.keys().map(|name| &**name).collect::<Vec<_>>(), ["m", "x"]);
}

#[test]
fn two_listeners_do_not_share_an_address_unless_one_goes() {
    let mut world = World::new();
    world.update(type_url::LISTENER, vec![lds("l", &listener("l", 8080, ""))], &[]);
    let refused = world.update(type_url::LISTENER, vec![lds("m", &listener("m", 8080, ""))], &[]);
    assert_eq!(refused, ["m: address: has duplicate address '127.0.0.1:8080' as existing listener 'l'"]);
    let refused = world.update(type_url::LISTENER, vec![lds("m", &listener("m", 8080, ""))], &["l"]);
    assert_eq!(refused, Vec::<String>::new());
}

#[test]
fn what_nothing_refers_to_is_forgotten() {
    let mut world = World::new();
    world.update(type_url::CLUSTER, vec![cluster(EDS_CLUSTER)], &[]);
    world.update(type_url::ENDPOINT, vec![endpoints(ENDPOINTS)], &[]);
    world.update(type_url::CLUSTER, vec![], &["c"]);
    assert!(world.store.endpoints().is_empty());
    assert!(world.program().clusters.is_empty());
}

#[test]
fn endpoints_that_the_server_takes_away_stay_while_the_cluster_does() {
    let mut world = World::new();
    world.update(type_url::CLUSTER, vec![cluster(EDS_CLUSTER)], &[]);
    world.update(type_url::ENDPOINT, vec![endpoints(ENDPOINTS)], &[]);
    world.update(type_url::ENDPOINT, vec![], &["s"]);
    assert!(world.program().endpoints.contains_key("c"));
}

#[test]
fn a_static_resource_cannot_be_changed_by_the_server() {
    let mut world = World::new();
    let message = Codec::new().parse(STATIC_CLUSTER).expect("cluster");
    let resources = meltemi_envoy::config::bootstrap::v3::bootstrap::StaticResources {
        clusters: vec![message],
        ..Default::default()
    };
    world.store.load_static(&resources).expect("taken");
    world.store.settle(world.now);
    let refused = world.update(type_url::CLUSTER, vec![cluster(EDS_CLUSTER)], &["c"]);
    assert_eq!(refused, ["c: name: the bootstrap has a static cluster of this name"]);
    assert!(world.program().clusters.contains_key("c"));
}

#[test]
fn a_program_is_made_only_when_something_changed() {
    let mut world = World::new();
    world.update(type_url::CLUSTER, vec![cluster(STATIC_CLUSTER)], &[]);
    let first = world.store.take_program().expect("changed");
    assert!(world.store.take_program().is_none());
    world.update(type_url::CLUSTER, vec![cluster(STATIC_CLUSTER)], &[]);
    assert!(world.store.take_program().is_none());
    let other =
        resource::<meltemi_envoy::config::cluster::v3::Cluster>("d", &STATIC_CLUSTER.replace("c,", "d,"));
    world.update(type_url::CLUSTER, vec![other], &[]);
    let second = world.store.take_program().expect("changed");
    assert!(
        std::sync::Arc::ptr_eq(&first.clusters["c"], &second.clusters["c"]),
        "unchanged parts are shared"
    );
}

#[test]
fn the_first_answer_warms_a_cluster_even_when_it_is_none() {
    let mut world = World::new();
    let dns = "{name: c, type: STRICT_DNS, load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: \
               [{endpoint: {address: {socket_address: {address: some.host, port_value: 80}}}}]}]}}";
    world.update(type_url::CLUSTER, vec![cluster(dns)], &[]);
    world.store.settle(world.now);
    let key = world.store.dns_targets().into_keys().next().expect("one DNS cluster");
    assert!(world.program().clusters.is_empty());
    world.store.resolve(key.clone(), meltemi_compile::program::Endpoints::default());
    world.store.settle(world.now);
    assert_eq!(world.program().endpoints["c"].priorities.len(), 0);
    let found =
        meltemi_compile::endpoints(&Codec::new().parse(ENDPOINTS).expect("endpoints")).expect("taken");
    world.store.resolve(key, found.clone());
    assert_eq!(*world.program().endpoints["c"], found);
}
