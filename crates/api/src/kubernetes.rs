//! The Kubernetes kinds a mesh on one machine needs, field for field as far as they matter here. Leaves out running
//! anything. Source: the Kubernetes API reference (core/v1, apps/v1).

mod deployment;
mod plain;
mod secret;
mod service;
mod status;

pub use deployment::{
    Container, ContainerPort, Deployment, EnvVar, EnvVarSource, ExecAction, HttpGetAction, HttpHeader,
    LabelSelector, ObjectFieldSelector, PodSpec, PodTemplate, PodTemplateMeta, Probe, TcpSocketAction,
};
pub use plain::{ConfigMap, Namespace, ServiceAccount};
pub use secret::Secret;
pub use service::{PortRef, Service, ServicePort, ServiceType};
pub use status::{Condition, Status};
