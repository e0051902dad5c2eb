//! The Kubernetes kinds a mesh on one machine needs, field for field as far as they matter here. Leaves out running
//! anything. Source: the Kubernetes API reference (core/v1, apps/v1).

mod controller;
mod deployment;
mod endpoint_slice;
mod plain;
mod pod;
mod secret;
mod service;
mod status;

pub use controller::{DaemonSet, Job, LabelledTemplate, ReplicaSet, StatefulSet};
pub use deployment::{
    Container, ContainerPort, Deployment, EnvVar, EnvVarSource, ExecAction, HttpGetAction, HttpHeader,
    LabelSelector, ObjectFieldSelector, PodSpec, PodTemplate, PodTemplateMeta, Probe, TcpSocketAction,
};
pub use endpoint_slice::{
    AddressType, EndpointAddress, EndpointConditions, EndpointSlice, EndpointSubset, Endpoints,
    ObjectReference, SliceEndpoint, SlicePort,
};
pub use plain::{ConfigMap, Namespace, ServiceAccount};
pub use pod::{Node, Pod, PodContainer};
pub use secret::Secret;
pub use service::{
    InternalTrafficPolicy, PortRef, Service, ServicePort, ServiceType, SessionAffinity, TrafficDistribution,
};
pub use status::{Condition, LoadBalancerIngress, LoadBalancerStatus, PodIp, ServiceEntryAddress, Status};
