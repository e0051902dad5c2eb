//! `/config_dump`: everything received, in the messages of `envoy.admin.v3`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::http::StatusCode;
use meltemi_compile::program::{Discovery, Name, NetworkFilter, RouteSource};
use meltemi_envoy::admin::v3 as dump;
use meltemi_envoy::config::listener::v3::{Filter, Listener as ListenerMessage, filter::ConfigType};
use meltemi_envoy::config::route::v3::RouteConfiguration;
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use meltemi_envoy::json::Codec;
use meltemi_envoy::{Any, type_url};
use serde_json::{Value, json};

use super::{Admin, Params, Reply, has, param, regex_param, secrets};
use crate::config::{Entry, Loaded, Refused, Store};

pub(super) const PARAMS: &[(&str, &str)] = &[
    ("resource", "The resource to dump, such as dynamic_listeners"),
    (
        "mask",
        "The mask to apply. When both resource and mask are specified, the mask is applied to every element in the desired repeated field so that only a subset of fields are returned",
    ),
    ("name_regex", "Dump only the configurations whose names match the regular expression"),
    ("include_eds", "Dump currently loaded configuration including EDS"),
];

pub(super) fn config_dump(admin: &Admin, params: &Params) -> Reply {
    let names = match regex_param(params, "name_regex") {
        Ok(names) => names,
        Err(reply) => return reply,
    };
    let configs = configs(admin, has(params, "include_eds"), names.as_ref());
    let json = Codec::new().to_json(&dump::ConfigDump { configs });
    let mut json = match json {
        Ok(json) => json,
        Err(error) => return Reply::error(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    };
    secrets::redact(&mut json);
    match param(params, "resource") {
        None | Some("") => Reply::json(&masked_all(json, param(params, "mask"))),
        Some(resource) => one_field(&json, resource, param(params, "mask")),
    }
}

/// Without a resource the mask names fields of the dumps.
fn masked_all(mut dump: Value, mask: Option<&str>) -> Value {
    let Some(mask) = mask else { return dump };
    if let Some(configs) = dump["configs"].as_array_mut() {
        configs.iter_mut().for_each(|config| *config = masked(config, mask));
    }
    dump
}

/// What paths name below a field.
fn under<'p>(paths: &[&'p [&'p str]], field: &str) -> Vec<&'p [&'p str]> {
    let below =
        |path: &&'p [&'p str]| path.split_first().filter(|(first, _)| **first == field).map(|(_, rest)| rest);
    paths.iter().filter_map(below).collect()
}

/// What a field mask keeps: `a.b,c`.
fn masked(value: &Value, mask: &str) -> Value {
    let paths: Vec<Vec<&str>> = mask.split(',').map(|path| path.split('.').collect()).collect();
    let paths: Vec<&[&str]> = paths.iter().map(Vec::as_slice).collect();
    kept(value, &paths)
}

fn kept(value: &Value, paths: &[&[&str]]) -> Value {
    if paths.iter().any(|path| path.is_empty()) {
        return value.clone();
    }
    match value {
        Value::Array(items) => items.iter().map(|item| kept(item, paths)).collect(),
        Value::Object(fields) => {
            let fields = fields.iter().filter_map(|(name, field)| match under(paths, name) {
                _ if name == "@type" => Some((name.clone(), field.clone())),
                below if below.is_empty() => None,
                below => Some((name.clone(), kept(field, &below))),
            });
            fields.collect()
        }
        plain => plain.clone(),
    }
}

/// The elements of one repeated field of all dumps, each with its type, as Envoy answers `?resource=`.
fn one_field(dump: &Value, resource: &str, mask: Option<&str>) -> Reply {
    let configs = dump["configs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let known = FIELDS.iter().find(|(field, _)| *field == resource);
    let Some((field, message)) = known else {
        let body = format!("{resource} not found in config dump");
        return Reply { status: StatusCode::NOT_FOUND, content_type: "text/plain", body };
    };
    let elements = configs.iter().filter_map(|config| config[*field].as_array()).flatten();
    let typed: Vec<Value> = elements
        .map(|element| {
            let mut typed = json!({"@type": format!("type.googleapis.com/envoy.admin.v3.{message}")});
            if let (Some(typed), Some(element)) = (typed.as_object_mut(), element.as_object()) {
                let element = mask.map_or_else(
                    || Value::Object(element.clone()),
                    |mask| masked(&Value::Object(element.clone()), mask),
                );
                typed.extend(element.as_object().cloned().unwrap_or_default());
            }
            typed
        })
        .collect();
    Reply::json(&if typed.is_empty() { json!({}) } else { json!({ "configs": typed }) })
}

/// The repeated fields that can be asked for, and the messages in them.
const FIELDS: &[(&str, &str)] = &[
    ("static_clusters", "ClustersConfigDump.StaticCluster"),
    ("dynamic_active_clusters", "ClustersConfigDump.DynamicCluster"),
    ("dynamic_warming_clusters", "ClustersConfigDump.DynamicCluster"),
    ("static_listeners", "ListenersConfigDump.StaticListener"),
    ("dynamic_listeners", "ListenersConfigDump.DynamicListener"),
    ("static_route_configs", "RoutesConfigDump.StaticRouteConfig"),
    ("dynamic_route_configs", "RoutesConfigDump.DynamicRouteConfig"),
    ("static_endpoint_configs", "EndpointsConfigDump.StaticEndpointConfig"),
    ("dynamic_endpoint_configs", "EndpointsConfigDump.DynamicEndpointConfig"),
    ("ecds_filters", "EcdsConfigDump.EcdsFilterConfig"),
    ("static_secrets", "SecretsConfigDump.StaticSecret"),
    ("dynamic_active_secrets", "SecretsConfigDump.DynamicSecret"),
    ("dynamic_warming_secrets", "SecretsConfigDump.DynamicSecret"),
];

fn configs(admin: &Admin, include_eds: bool, names: Option<&regex::Regex>) -> Vec<Any> {
    let wanted = |name: &str| names.is_none_or(|names| names.is_match(name));
    let bootstrap = dump::BootstrapConfigDump {
        bootstrap: Some(admin.bootstrap.clone()),
        last_updated: timestamp(admin.started),
    };
    let store = admin.store();
    let mut configs = vec![Any::pack(&bootstrap), Any::pack(&clusters(&store, &wanted))];
    if store.subscriptions(type_url::EXTENSION_CONFIG).next().is_some() {
        configs.push(Any::pack(&filters(&store, &wanted)));
    }
    if include_eds {
        configs.push(Any::pack(&endpoints(&store, &wanted)));
    }
    configs.push(Any::pack(&listeners(&store, &wanted)));
    configs.push(Any::pack(&dump::ScopedRoutesConfigDump::default()));
    configs.push(Any::pack(&routes(&store, &wanted)));
    configs.push(Any::pack(&secrets::dump(&store, &wanted)));
    configs
}

/// Entries of one kind, bootstrap or xDS, whose names are wanted.
fn chosen<'s, T>(
    entries: &'s BTreeMap<Name, Entry<T>>,
    is_static: bool,
    wanted: &'s dyn Fn(&str) -> bool,
) -> impl Iterator<Item = (&'s Name, &'s Entry<T>)> {
    entries.iter().filter(move |(name, entry)| entry.is_static == is_static && wanted(name))
}

fn clusters(store: &Store, wanted: &dyn Fn(&str) -> bool) -> dump::ClustersConfigDump {
    use dump::clusters_config_dump::{DynamicCluster, StaticCluster};
    let fixed = chosen(store.clusters(), true, wanted).filter_map(|(_, entry)| {
        let loaded = entry.latest()?;
        Some(StaticCluster { cluster: Some(loaded.message.clone()), last_updated: timestamp(loaded.updated) })
    });
    let dynamic = |loaded: &Loaded<_>, refused: Option<&Refused>| DynamicCluster {
        version_info: loaded.version.clone(),
        cluster: Some(loaded.message.clone()),
        last_updated: timestamp(loaded.updated),
        error_state: refused.map(failure),
        client_status: status(refused),
    };
    let active = chosen(store.clusters(), false, wanted).filter_map(|(_, entry)| {
        let refused = entry.refused.as_ref();
        match &entry.active {
            Some(loaded) => Some(dynamic(loaded, refused)),
            None => refused.filter(|_| entry.warming.is_none()).map(|refused| DynamicCluster {
                error_state: Some(failure(refused)),
                client_status: dump::ClientResourceStatus::Nacked as i32,
                ..DynamicCluster::default()
            }),
        }
    });
    let warming = chosen(store.clusters(), false, wanted)
        .filter_map(|(_, entry)| Some(dynamic(entry.warming.as_ref()?, entry.refused.as_ref())));
    dump::ClustersConfigDump {
        version_info: store.counts(type_url::CLUSTER).version,
        static_clusters: fixed.collect(),
        dynamic_active_clusters: active.collect(),
        dynamic_warming_clusters: warming.collect(),
    }
}

fn listeners(store: &Store, wanted: &dyn Fn(&str) -> bool) -> dump::ListenersConfigDump {
    use dump::listeners_config_dump::{DynamicListener, DynamicListenerState, StaticListener};
    let fixed = chosen(store.listeners(), true, wanted).filter_map(|(_, entry)| {
        let loaded = entry.latest()?;
        Some(StaticListener {
            listener: Some(loaded.message.clone()),
            last_updated: timestamp(loaded.updated),
        })
    });
    let state = |loaded: &Loaded<_>| DynamicListenerState {
        version_info: loaded.version.clone(),
        listener: Some(loaded.message.clone()),
        last_updated: timestamp(loaded.updated),
    };
    let dynamic = chosen(store.listeners(), false, wanted).map(|(name, entry)| DynamicListener {
        name: name.to_string(),
        active_state: entry.active.as_ref().map(state),
        warming_state: entry.warming.as_ref().map(state),
        draining_state: None,
        error_state: entry.refused.as_ref().map(failure),
        client_status: status(entry.refused.as_ref()),
    });
    dump::ListenersConfigDump {
        version_info: store.counts(type_url::LISTENER).version,
        static_listeners: fixed.collect(),
        dynamic_listeners: dynamic.collect(),
    }
}

fn routes(store: &Store, wanted: &dyn Fn(&str) -> bool) -> dump::RoutesConfigDump {
    use dump::routes_config_dump::{DynamicRouteConfig, StaticRouteConfig};
    let listeners = store.listeners().values().filter_map(|entry| entry.active.as_ref());
    let fixed = listeners.filter(|loaded| has_inline_routes(&loaded.value)).flat_map(|loaded| {
        let inline = inline_routes(&loaded.message).into_iter();
        inline.filter(|route| wanted(&route.name)).map(|route| StaticRouteConfig {
            route_config: Some(Any::pack(&route)),
            last_updated: timestamp(loaded.updated),
        })
    });
    let dynamic = chosen(store.routes(), false, wanted).map(|(_, entry)| DynamicRouteConfig {
        version_info: entry.latest().map(|loaded| loaded.version.clone()).unwrap_or_default(),
        route_config: entry.latest().map(|loaded| loaded.message.clone()),
        last_updated: entry.latest().and_then(|loaded| timestamp(loaded.updated)),
        error_state: entry.refused.as_ref().map(failure),
        client_status: status(entry.refused.as_ref()),
    });
    dump::RoutesConfigDump { static_route_configs: fixed.collect(), dynamic_route_configs: dynamic.collect() }
}

fn has_inline_routes(listener: &meltemi_compile::program::Listener) -> bool {
    listener.chains.iter().any(|chain| match &chain.filter {
        NetworkFilter::Http(manager) => matches!(manager.routes, RouteSource::Inline(_)),
        NetworkFilter::Tcp(_) | NetworkFilter::DirectResponse(_) => false,
    })
}

fn inline_routes(listener: &Any) -> Vec<RouteConfiguration> {
    let Ok(listener) = listener.unpack::<ListenerMessage>() else { return Vec::new() };
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    chains.flat_map(|chain| &chain.filters).filter_map(inline_route).collect()
}

fn inline_route(filter: &Filter) -> Option<RouteConfiguration> {
    let Some(ConfigType::TypedConfig(any)) = &filter.config_type else { return None };
    match any.unpack::<hcm::HttpConnectionManager>().ok()?.route_specifier? {
        hcm::http_connection_manager::RouteSpecifier::RouteConfig(route) => Some(route),
        _ => None,
    }
}

fn endpoints(store: &Store, wanted: &dyn Fn(&str) -> bool) -> dump::EndpointsConfigDump {
    use dump::endpoints_config_dump::{DynamicEndpointConfig, StaticEndpointConfig};
    let fixed = store.clusters().values().filter_map(|entry| {
        let loaded = entry.active.as_ref()?;
        let inline = !matches!(loaded.value.cluster.discovery, Discovery::Eds(_));
        let cluster: meltemi_envoy::config::cluster::v3::Cluster = loaded.message.unpack().ok()?;
        let assignment = cluster.load_assignment.filter(|a| inline && wanted(&a.cluster_name))?;
        let endpoint_config = Some(Any::pack(&assignment));
        Some(StaticEndpointConfig { endpoint_config, last_updated: timestamp(loaded.updated) })
    });
    let dynamic = chosen(store.endpoints(), false, wanted).map(|(_, entry)| DynamicEndpointConfig {
        version_info: entry.latest().map(|loaded| loaded.version.clone()).unwrap_or_default(),
        endpoint_config: entry.latest().map(|loaded| loaded.message.clone()),
        last_updated: entry.latest().and_then(|loaded| timestamp(loaded.updated)),
        error_state: entry.refused.as_ref().map(failure),
        client_status: status(entry.refused.as_ref()),
    });
    dump::EndpointsConfigDump {
        static_endpoint_configs: fixed.collect(),
        dynamic_endpoint_configs: dynamic.collect(),
    }
}

fn filters(store: &Store, wanted: &dyn Fn(&str) -> bool) -> dump::EcdsConfigDump {
    let filters = chosen(store.filters(), false, wanted).filter_map(|(_, entry)| {
        let loaded = entry.active.as_ref()?;
        Some(dump::ecds_config_dump::EcdsFilterConfig {
            version_info: loaded.version.clone(),
            ecds_filter: Some(loaded.message.clone()),
            last_updated: timestamp(loaded.updated),
            ..Default::default()
        })
    });
    dump::EcdsConfigDump { ecds_filters: filters.collect() }
}

fn failure(refused: &Refused) -> dump::UpdateFailureState {
    dump::UpdateFailureState {
        failed_configuration: Some(refused.message.clone()),
        last_update_attempt: timestamp(refused.at),
        details: refused.details.clone(),
        version_info: refused.version.clone(),
    }
}

/// Envoy leaves it unset for what is in force; only a refusal is marked.
fn status(refused: Option<&Refused>) -> i32 {
    match refused {
        Some(_) => dump::ClientResourceStatus::Nacked as i32,
        None => dump::ClientResourceStatus::Unknown as i32,
    }
}

/// Milliseconds, as Envoy writes times.
pub(super) fn timestamp(time: SystemTime) -> Option<prost_types::Timestamp> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let nanos = i32::try_from(since.subsec_millis()).ok()? * 1_000_000;
    Some(prost_types::Timestamp { seconds: i64::try_from(since.as_secs()).ok()?, nanos })
}
