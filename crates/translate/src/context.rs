//! What every builder of one translation shares.

use std::net::IpAddr;
use std::sync::Arc;

use meltemi_api::Object;
use meltemi_api::istio::Subset;
use meltemi_snapshot::route::Written;
use meltemi_snapshot::{Client, DestinationRule, Policy, Scope, Snapshot};

use crate::common::Common;
use crate::resources::Origin;
use crate::shape::Role;
use crate::{MeshIdentity, Options, ProxyShape};

/// One proxy shape in one mesh.
pub(crate) struct Context<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) shape: &'a ProxyShape,
    pub(crate) options: &'a Options,
    pub(crate) scope: Arc<Scope<'a>>,
    /// What other proxies of its class have already.
    pub(crate) common: &'a Common,
}

impl<'a> Context<'a> {
    /// What proxies of a shape see.
    pub(crate) fn scope<'s>(snapshot: &'s Snapshot, shape: &ProxyShape) -> Scope<'s> {
        let client = Client {
            namespace: &shape.namespace,
            labels: &shape.labels,
            is_gateway: matches!(shape.role, Role::Router(_)),
        };
        Scope::of(snapshot, client)
    }

    /// The identity of the mesh, if the proxy has one in it. Where a program without a proxy has its certificates is a
    /// matter of its bootstrap, which does not tell.
    pub(crate) fn identity(&self) -> Option<&'a MeshIdentity> {
        let has_one = self.shape.has_sds || self.shape.role == Role::Proxyless;
        self.options.identity.as_ref().filter(|_| has_one)
    }

    /// The policy in force for a port of a service, whole or of a subset.
    pub(crate) fn policy<'p>(
        &'p self,
        rule: Option<&'p DestinationRule>,
        subset: Option<&'p Subset>,
        port: u16,
    ) -> Policy<'p> {
        Policy::in_mesh(&self.snapshot.config.mesh, rule, subset, port)
    }

    /// Names of headers keep their case in HTTP/1.
    pub(crate) fn preserves_case(&self) -> bool {
        self.options.serving.preserves_case
    }

    /// The proxy has no IPv4 address of its own.
    pub(crate) fn is_ipv6_only(&self) -> bool {
        match &self.shape.role {
            Role::Sidecar(sidecar) => sidecar.addresses.iter().all(IpAddr::is_ipv6),
            Role::Router(edge) => !edge.addresses.is_empty() && edge.addresses.iter().all(IpAddr::is_ipv6),
            Role::Proxyless => false,
        }
    }

    pub(crate) fn is_gateway(&self) -> bool {
        matches!(self.shape.role, Role::Router(_))
    }
}

/// The origin of something that `field` of `object` asked for.
pub(crate) fn origin(object: &Object, field: impl Into<String>) -> Origin {
    let field = field.into();
    let line = object.spans.nearest(&field).map_or(object.origin.line, |span| span.line);
    Origin { object: object.id.clone(), field, file: Arc::clone(&object.origin.file), line }
}

/// The origin of something in the route model.
pub(crate) fn written_origin(written: &Written) -> Origin {
    origin(&written.object, written.field.as_str())
}
