//! Reading, flaws and merging, on messages with and without code of their own.

use serde_json::{Value as Json, json};

use super::{Flaw, Lists, Reflection};
use crate::Any;
use crate::config::cluster::v3::Cluster;
use crate::config::listener::v3::{Filter, Listener};

const LUA: &str = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";

fn flaws(message: &str, json: Json) -> Vec<(String, bool)> {
    let line = |flaw: Flaw| (flaw.path.join("."), flaw.is_unknown_field);
    Reflection::shared().flaws(message, &json).into_iter().map(line).collect()
}

fn cluster(json: Json) -> Cluster {
    Reflection::shared().read(&json).expect("a cluster")
}

#[test]
fn every_flaw_has_its_place() {
    let filter = |config: Json| {
        flaws(
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
            json!({"name": "f", "typedConfig": config}),
        )
    };
    let lua = |code: Json| json!({"@type": LUA, "defaultSourceCode": {"inline_string": code}});
    assert_eq!(filter(lua(json!("x"))), []);
    assert_eq!(filter(lua(json!(1))), [("typedConfig.defaultSourceCode.inline_string".to_owned(), false)]);
    assert_eq!(
        filter(json!({"@type": "type.googleapis.com/no.Such"})),
        [("typedConfig.@type".to_owned(), false)]
    );
    assert_eq!(filter(json!({"code": "x"})), [("typedConfig".to_owned(), false)]);
    assert_eq!(filter(json!({"@type": LUA, "sauce": 1})), [("typedConfig.sauce".to_owned(), true)]);
    let cluster = |json| flaws("envoy.config.cluster.v3.Cluster", json);
    assert_eq!(
        cluster(
            json!({"connect_timeout": "1s", "lb_policy": "RANDOM", "metadata": {"filter_metadata": {"a": {"b": [1]}}}})
        ),
        []
    );
    assert_eq!(
        cluster(
            json!({"connect_timeout": "soon", "lb_policy": "CHANCE", "filters": [{}, {"nam": 1}], "load_assignment": []})
        ),
        [
            ("connect_timeout".to_owned(), false),
            ("filters.[1].nam".to_owned(), true),
            ("lb_policy".to_owned(), false),
            ("load_assignment".to_owned(), false),
        ]
    );
    let untyped = json!({"typed_extension_protocol_options": {"a.b": {"@type": LUA, "sauce": 1}}});
    assert_eq!(cluster(untyped), [("typed_extension_protocol_options.a.b.sauce".to_owned(), true)]);
}

#[test]
fn merging_is_deep_but_for_durations() {
    let base = cluster(json!({
        "name": "a", "connect_timeout": "1.5s", "circuit_breakers": {"thresholds": [{"max_retries": 1}]},
        "outlier_detection": {"interval": "10s", "max_ejection_percent": 5},
    }));
    let patch = cluster(json!({
        "connect_timeout": "7s", "circuit_breakers": {"thresholds": [{"max_requests": 2}]},
        "outlier_detection": {"max_ejection_percent": 50, "consecutive_5xx": 3},
    }));
    let merge = |lists| Reflection::shared().merge(&base, &patch, lists).expect("mergeable");
    let outlier = json!({"interval": "10s", "max_ejection_percent": 50, "consecutive_5xx": 3});
    let expected = |thresholds: Json| {
        cluster(json!({
            "name": "a", "connect_timeout": "7s", "circuit_breakers": {"thresholds": thresholds},
            "outlier_detection": outlier,
        }))
    };
    assert_eq!(merge(Lists::Append), expected(json!([{"max_retries": 1}, {"max_requests": 2}])));
    assert_eq!(merge(Lists::Replace), expected(json!([{"max_requests": 2}])));
}

/// The members of a oneof exclude each other, also when merged.
#[test]
fn a_choice_is_replaced() {
    let base = cluster(json!({"name": "a", "type": "EDS"}));
    let patch = cluster(json!({"cluster_type": {"name": "custom"}}));
    let merged = Reflection::shared().merge(&base, &patch, Lists::Append).expect("mergeable");
    assert_eq!(merged, cluster(json!({"name": "a", "cluster_type": {"name": "custom"}})));
}

#[test]
fn packed_messages_merge_with_their_own_kind() {
    let filter = |config: Json| -> Any {
        let filter: Filter = Reflection::shared().read(&json!({"typed_config": config})).expect("a filter");
        match filter.config_type {
            Some(crate::config::listener::v3::filter::ConfigType::TypedConfig(any)) => any,
            other => panic!("no typed config: {other:?}"),
        }
    };
    let lua = |config: Json| {
        let mut config = config;
        config["@type"] = json!(LUA);
        filter(config)
    };
    let base = lua(json!({"default_source_code": {"inline_string": "a"}, "stat_prefix": "p"}));
    let patch = lua(json!({"default_source_code": {"inline_string": "b"}}));
    let expected = lua(json!({"default_source_code": {"inline_string": "b"}, "stat_prefix": "p"}));
    assert_eq!(Reflection::shared().merge_any(&base, &patch), Ok(expected));
    assert!(Reflection::shared().merge_any(&base, &Any::pack(&Listener::default())).is_err());
}

/// Maps have no order of their own, but resources are told apart by their bytes.
#[test]
fn the_same_value_gives_the_same_bytes() {
    let keys = (0..20).map(|i| (format!("k{i}"), json!({"a": i, "b": [1, {"c": "d"}], "e": null})));
    let inner: serde_json::Map<String, Json> = keys.collect();
    let filter = json!({
        "name": "f",
        "typed_config": {"@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": "a/b", "value": inner},
    });
    let read = || -> Filter { Reflection::shared().read(&filter).expect("a filter") };
    let first = read();
    assert!((0..10).all(|_| read() == first));
    let json = crate::json::Codec::of_whole_api().to_json(&first).expect("known");
    assert_eq!(json["typed_config"]["value"]["k7"]["b"][1]["c"], "d");
    let merged = Reflection::shared().merge(&Listener::default(), &Listener::default(), Lists::Append);
    assert_eq!(merged, Ok(Listener::default()));
}
