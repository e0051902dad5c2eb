//! Patches on the gateway of the shop, over real sockets: on our own proxy, and on a stock Envoy that has more extensions.

use std::time::Duration;

use meltemi_e2e::mesh::{Mesh, RECOMMENDATION};
use meltemi_e2e::process::until;
use meltemi_e2e::{client, peers};

/// How long a patch may take until it is in force.
const IN_FORCE: Duration = Duration::from_secs(20);

/// One header by the route configuration, one by a filter whose configuration comes by its name (ECDS), one by Lua.
const PATCHES: &str = r#"
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: headers, namespace: default}
spec:
  workloadSelector: {labels: {istio: ingressgateway}}
  configPatches:
  - applyTo: ROUTE_CONFIGURATION
    match: {context: GATEWAY}
    patch: {operation: MERGE, value: {response_headers_to_add: [{header: {key: x-merged, value: "yes"}}]}}
  - applyTo: HTTP_FILTER
    match: {context: GATEWAY, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}}
    patch:
      operation: INSERT_FIRST
      value:
        name: by.name
        config_discovery:
          config_source: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
          type_urls: [type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation]
  - applyTo: EXTENSION_CONFIG
    patch:
      operation: ADD
      value:
        name: by.name
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
          mutations: {response_mutations: [{append: {header: {key: x-by-name, value: "yes"}}}]}
  - applyTo: HTTP_FILTER
    match: {context: GATEWAY, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.router}}}}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: by.lua
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
          default_source_code: {inline_string: "function envoy_on_response(handle) handle:headers():add('x-by-lua', 'yes') end"}
"#;

/// The headers of the patches that a shop started with these options answers with.
async fn patched(options: &[&str]) -> Vec<&'static str> {
    let mesh = Mesh::shop_with(options, &[("patches.yaml", PATCHES)]).await.expect("the shop is up");
    let answered = until("the patches are in force", IN_FORCE, async || {
        let answer = client::get(mesh.gateway, "localhost", RECOMMENDATION).await.ok()?;
        let names = ["x-merged", "x-by-name", "x-by-lua"];
        let found: Vec<_> = names.into_iter().filter(|name| answer.headers().contains_key(*name)).collect();
        (answer.status() == 200 && found.len() >= 2).then_some(found)
    });
    answered.await.unwrap_or_else(|error| panic!("{error}\n{}", mesh.up.output()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_proxy_gets_the_patches_that_it_has_the_extensions_for() {
    assert_eq!(patched(&[]).await, ["x-merged", "x-by-name"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_envoy_gets_every_patch() {
    let Some(envoy) = peers::envoy() else { return peers::missing("no Envoy") };
    let envoy = envoy.display().to_string();
    assert_eq!(patched(&["--proxy", &envoy]).await, ["x-merged", "x-by-name", "x-by-lua"]);
}
