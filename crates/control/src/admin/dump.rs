//! What a proxy is served, in the shape of Envoy's `/config_dump`.
//! Source: `envoy.admin.v3.ConfigDump`; istiod's `/debug/config_dump` has the same shape.

use meltemi_envoy::admin::v3::clusters_config_dump::DynamicCluster;
use meltemi_envoy::admin::v3::endpoints_config_dump::DynamicEndpointConfig;
use meltemi_envoy::admin::v3::listeners_config_dump::{DynamicListener, DynamicListenerState};
use meltemi_envoy::admin::v3::routes_config_dump::DynamicRouteConfig;
use meltemi_envoy::admin::v3::{
    ClustersConfigDump, ConfigDump, EndpointsConfigDump, ListenersConfigDump, RoutesConfigDump,
};
use meltemi_envoy::json::{Codec, Error};
use meltemi_envoy::{Any, type_url};
use meltemi_xds::{Config, Resource};
use serde_json::Value;

/// The dump as protobuf JSON. Holds the descriptor pool while it works.
pub(super) fn json(config: &Config) -> Result<Value, Error> {
    let configs = vec![
        Any::pack(&clusters(config)),
        Any::pack(&endpoints(config)),
        Any::pack(&listeners(config)),
        Any::pack(&routes(config)),
    ];
    Codec::new().to_json(&ConfigDump { configs })
}

fn of_type<'a>(config: &'a Config, type_url: &str) -> impl Iterator<Item = &'a Resource> {
    config.of_type(type_url).into_iter().flat_map(|set| set.iter()).map(|resource| &**resource)
}

fn version(config: &Config, type_url: &str) -> String {
    config.of_type(type_url).map(|set| set.version().to_owned()).unwrap_or_default()
}

fn clusters(config: &Config) -> ClustersConfigDump {
    let dynamic = of_type(config, type_url::CLUSTER).map(|resource| DynamicCluster {
        version_info: resource.version.clone(),
        cluster: Some(resource.body.clone()),
        ..Default::default()
    });
    ClustersConfigDump {
        version_info: version(config, type_url::CLUSTER),
        dynamic_active_clusters: dynamic.collect(),
        ..Default::default()
    }
}

fn endpoints(config: &Config) -> EndpointsConfigDump {
    let dynamic = of_type(config, type_url::ENDPOINT).map(|resource| DynamicEndpointConfig {
        version_info: resource.version.clone(),
        endpoint_config: Some(resource.body.clone()),
        ..Default::default()
    });
    EndpointsConfigDump { dynamic_endpoint_configs: dynamic.collect(), ..Default::default() }
}

fn listeners(config: &Config) -> ListenersConfigDump {
    let dynamic = of_type(config, type_url::LISTENER).map(|resource| DynamicListener {
        name: resource.name.to_string(),
        active_state: Some(DynamicListenerState {
            version_info: resource.version.clone(),
            listener: Some(resource.body.clone()),
            ..Default::default()
        }),
        ..Default::default()
    });
    ListenersConfigDump {
        version_info: version(config, type_url::LISTENER),
        dynamic_listeners: dynamic.collect(),
        ..Default::default()
    }
}

fn routes(config: &Config) -> RoutesConfigDump {
    let dynamic = of_type(config, type_url::ROUTE).map(|resource| DynamicRouteConfig {
        version_info: resource.version.clone(),
        route_config: Some(resource.body.clone()),
        ..Default::default()
    });
    RoutesConfigDump { dynamic_route_configs: dynamic.collect(), ..Default::default() }
}
