//! Static Envoy bootstraps for tests: one listener named `main`, one route.

/// A bootstrap whose only route has this action, with clusters as [`cluster`] writes them. Ports are the kernel's choice.
pub fn one_route(action: &str, clusters: &str) -> String {
    routes(&format!("{{match: {{prefix: /}}, route: {action}}}"), "", clusters)
}

/// A bootstrap with these routes, further fields of the connection manager (a line of YAML at its depth, or nothing) and
/// clusters.
pub fn routes(routes: &str, manager: &str, clusters: &str) -> String {
    format!(
        r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: main
{manager}
          route_config: {{virtual_hosts: [{{name: all, domains: ["*"], routes: [{routes}]}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
{clusters}
"#
    )
}

/// A STATIC cluster of loopback ports, as a list item of `clusters`.
pub fn cluster(name: &str, lb_policy: &str, ports: &[u16]) -> String {
    let endpoint = |port: &u16| {
        format!("{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}")
    };
    let endpoints: Vec<String> = ports.iter().map(endpoint).collect();
    format!(
        "  - {{name: {name}, type: STATIC, lb_policy: {lb_policy}, connect_timeout: 1s, load_assignment: \
         {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{}]}}]}}}}\n",
        endpoints.join(", ")
    )
}
