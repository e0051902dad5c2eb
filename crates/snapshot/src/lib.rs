//! The immutable mesh: what all objects together mean.
//!
//! Owns: services and their endpoints, the selection and merge rules of the Istio API (host lookup, exports,
//! Sidecar scope, DestinationRule merging, PeerAuthentication precedence), the route model that routing objects lower
//! into, and the diagnostics that need more than one object to see.
//! Must not know: Envoy, sockets, time. Entry points: [`Snapshot::build`], the specification;
//! [`Snapshot::apply`], which must equal it; [`Scope::of`], the mesh as one proxy sees it.
//! Read next: `service.rs`, then `route.rs`, then `scope.rs`.

mod check;
mod client_tls;
mod config;
mod destination_rule;
mod discovery;
mod endpoint;
mod envoy_filter;
mod gateway;
mod host;
mod mesh;
mod mesh_config;
mod name_table;
mod peer_authentication;
mod policy;
mod protocol;
pub mod route;
mod scope;
mod secret;
mod service;
mod service_target;
mod visibility;

pub use client_tls::{Call, ClientTls, Spoken, endpoint_has_mtls};
pub use config::{
    Config, Gateway, GatewayName, ServerHost, ServerKind, Sidecar, VirtualService, labels_match, oldest_first,
};
pub use destination_rule::{DestinationRule, DestinationRules};
pub use endpoint::{Endpoint, EndpointAddress, Endpoints, has_mtls};
pub use envoy_filter::EnvoyFilters;
pub use gateway::{
    GatewayServer, GatewayTopology, GatewayWorkload, MergedGateway, MergedPort, Rejected, Rejection,
};
pub use host::{CLUSTER_DOMAIN, Host};
pub use mesh::{Inputs, Snapshot};
pub use mesh_config::{MeshConfig, MinVersion, TlsParameters};
pub use name_table::{NameInfo, Resolver};
pub use peer_authentication::{MtlsMode, PeerAuthentications, WorkloadMtls};
pub use policy::Policy;
pub use protocol::Protocol;
pub use scope::{Client, Scope, View};
pub use secret::{CA_SUFFIX, CaCertificates, CredentialName, KeyPair, SCHEME as SECRET_SCHEME, Secrets};
pub use service::{
    AddressUse, AutoAddresses, Registry, Resolution, Service, ServicePort, Services, TargetPort,
    TrafficDistribution,
};
pub use service_target::{ServiceTarget, Workload};
pub use visibility::Visibility;
