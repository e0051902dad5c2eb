//! EnvoyFilter: patches on the Envoy configuration of proxies. What a patch's value means to Envoy is not known here.
//! Source: Istio `networking.EnvoyFilter`.

use std::collections::BTreeMap;

use crate::check;
use crate::decode::{wire, wire_enum};
use crate::istio::{PolicyTargetReference, Struct, WorkloadSelector};
use crate::syntax;

wire! {
    /// Patches for the proxies of a namespace, or of the mesh.
    pub struct EnvoyFilter {
        /// Labels of the workloads; absent: all.
        workload_selector: Option<WorkloadSelector>, "workloadSelector";
        /// What the patches are for instead of workloads by label.
        target_refs: Vec<PolicyTargetReference>, "targetRefs";
        /// The patches.
        config_patches: Vec<EnvoyConfigObjectPatch>, "configPatches";
        /// Objects of lower priority are applied first; absent: 0.
        priority: Option<i32>, "priority";
    }
    rule check::envoy_filter;
}

wire! {
    /// One patch.
    pub struct EnvoyConfigObjectPatch {
        /// What is patched.
        apply_to: Option<ApplyTo>, "applyTo";
        /// Which of them; absent: all.
        matches: Option<EnvoyConfigObjectMatch>, "match";
        /// What becomes of it.
        patch: Option<Patch>, "patch";
    }
    rule check::envoy_config_object_patch;
}

wire! {
    /// Which objects of which proxies a patch is for.
    pub struct EnvoyConfigObjectMatch {
        /// Where the object stands; absent: anywhere.
        context: Option<PatchContext>, "context";
        /// The proxies.
        proxy: Option<ProxyMatch>, "proxy";
        /// For what is in a listener.
        listener: Option<ListenerMatch>, "listener";
        /// For what is in a route configuration.
        route_configuration: Option<RouteConfigurationMatch>, "routeConfiguration";
        /// For clusters.
        cluster: Option<ClusterMatch>, "cluster";
    }
    later NO_EFFECT_YET "waypoint";
}

wire! {
    /// Which proxies.
    pub struct ProxyMatch {
        /// Regular expression that matches a part of the proxy's Istio version.
        proxy_version: Option<String>, "proxyVersion" => syntax::regex;
        /// Text that the node's metadata has under these keys.
        metadata: BTreeMap<String, String>, "metadata";
    }
}

wire! {
    /// Which listeners, and what in them.
    pub struct ListenerMatch {
        /// The port of the listener; in the virtual listeners, that of a filter chain.
        port_number: Option<u32>, "portNumber";
        /// The filter chain.
        filter_chain: Option<FilterChainMatch>, "filterChain";
        /// The listener filter.
        listener_filter: Option<String>, "listenerFilter";
        /// The name.
        name: Option<String>, "name";
    }
    later NO_EFFECT_YET "portName";
}

wire! {
    /// Which filter chains, and what in them.
    pub struct FilterChainMatch {
        /// The name.
        name: Option<String>, "name";
        /// One of its server names.
        sni: Option<String>, "sni";
        /// `raw_buffer` or `tls`.
        transport_protocol: Option<String>, "transportProtocol";
        /// ALPN values that it all has, comma-separated.
        application_protocols: Option<String>, "applicationProtocols";
        /// The network filter.
        filter: Option<FilterMatch>, "filter";
        /// Its destination port.
        destination_port: Option<u32>, "destinationPort";
    }
}

wire! {
    /// Which network filter, and what in it.
    pub struct FilterMatch {
        /// The name.
        name: String, "name", required;
        /// The HTTP filter.
        sub_filter: Option<SubFilterMatch>, "subFilter";
    }
}

wire! {
    /// Which HTTP filter.
    pub struct SubFilterMatch {
        /// The name.
        name: String, "name", required;
    }
}

wire! {
    /// Which route configurations, and what in them.
    pub struct RouteConfigurationMatch {
        /// The port: of the service, or of the Gateway's server.
        port_number: Option<u32>, "portNumber";
        /// On gateways: the name of the server's port.
        port_name: Option<String>, "portName";
        /// On gateways: `namespace/name` of the Gateway.
        gateway: Option<String>, "gateway";
        /// The virtual host.
        vhost: Option<VirtualHostMatch>, "vhost";
        /// The name.
        name: Option<String>, "name";
    }
}

wire! {
    /// Which virtual host, and what in it.
    pub struct VirtualHostMatch {
        /// The name.
        name: Option<String>, "name";
        /// One of its domains.
        domain_name: Option<String>, "domainName";
        /// The route.
        route: Option<RouteMatch>, "route";
    }
}

wire! {
    /// Which route.
    pub struct RouteMatch {
        /// The name.
        name: Option<String>, "name";
        /// What it does; absent: anything.
        action: Option<RouteMatchAction>, "action";
    }
}

wire! {
    /// Which clusters.
    pub struct ClusterMatch {
        /// The port of the service.
        port_number: Option<u32>, "portNumber";
        /// The host of the service.
        service: Option<String>, "service";
        /// The subset.
        subset: Option<String>, "subset";
        /// The name; nothing else counts when it is there.
        name: Option<String>, "name";
    }
}

wire! {
    /// What becomes of the objects that match.
    pub struct Patch {
        /// How the value is used.
        operation: Option<PatchOperation>, "operation";
        /// A message of the Envoy API.
        value: Option<Struct>, "value";
    }
    later NO_EFFECT_YET "filterClass";
}

wire_enum! {
    /// What is patched.
    pub enum ApplyTo {
        /// Nothing.
        Invalid = "INVALID",
        /// A listener.
        Listener = "LISTENER",
        /// A filter chain.
        FilterChain = "FILTER_CHAIN",
        /// A network filter.
        NetworkFilter = "NETWORK_FILTER",
        /// A filter of the HTTP connection manager.
        HttpFilter = "HTTP_FILTER",
        /// A route configuration.
        RouteConfiguration = "ROUTE_CONFIGURATION",
        /// A virtual host.
        VirtualHost = "VIRTUAL_HOST",
        /// A route.
        HttpRoute = "HTTP_ROUTE",
        /// A cluster.
        Cluster = "CLUSTER",
        /// A filter's configuration, by its name.
        ExtensionConfig = "EXTENSION_CONFIG",
        /// The bootstrap.
        Bootstrap = "BOOTSTRAP",
        /// A listener filter.
        ListenerFilter = "LISTENER_FILTER",
    }
}

wire_enum! {
    /// Where an object stands.
    pub enum PatchContext {
        /// Anywhere.
        Any = "ANY",
        /// Towards the workload of a sidecar.
        SidecarInbound = "SIDECAR_INBOUND",
        /// From the workload of a sidecar.
        SidecarOutbound = "SIDECAR_OUTBOUND",
        /// On a gateway.
        Gateway = "GATEWAY",
        /// On a waypoint.
        Waypoint = "WAYPOINT",
    }
}

wire_enum! {
    /// What a route does.
    pub enum RouteMatchAction {
        /// Anything.
        Any = "ANY",
        /// It forwards.
        Route = "ROUTE",
        /// It redirects.
        Redirect = "REDIRECT",
        /// It answers itself.
        DirectResponse = "DIRECT_RESPONSE",
    }
}

wire_enum! {
    /// How a patch's value is used.
    pub enum PatchOperation {
        /// Not at all.
        Invalid = "INVALID",
        /// Merged into what is there; lists grow.
        Merge = "MERGE",
        /// Added to the list, or as an object of its own.
        Add = "ADD",
        /// What is there goes away.
        Remove = "REMOVE",
        /// Inserted before what matches, or first.
        InsertBefore = "INSERT_BEFORE",
        /// Inserted behind what matches, or last.
        InsertAfter = "INSERT_AFTER",
        /// Inserted first.
        InsertFirst = "INSERT_FIRST",
        /// In place of what is there.
        Replace = "REPLACE",
        /// Merged into what is there; lists are replaced.
        MergeAndReplaceList = "MERGE_AND_REPLACE_LIST",
    }
}

impl EnvoyFilter {
    /// The labels of its workloads; empty for all.
    pub fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.workload_selector.as_ref().map(|selector| &selector.labels)
    }
}
