//! One patch with its value as a message.

use meltemi_api::Object;
use meltemi_api::istio::{
    ClusterMatch, EnvoyConfigObjectMatch, EnvoyConfigObjectPatch, FilterMatch, ListenerMatch, PatchContext,
    PatchOperation, RouteConfigurationMatch, RouteMatch, VirtualHostMatch,
};
use meltemi_envoy::Any;
use meltemi_envoy::reflect::{Lists, Reflection};
use prost::Name;

use super::value;
use crate::context::origin;
use crate::resources::Origin;

/// A patch on messages of the type `M`.
pub(super) struct Patch<'a, M> {
    pub(super) operation: PatchOperation,
    /// The value; of a removal, an empty message.
    pub(super) value: M,
    matches: Option<&'a EnvoyConfigObjectMatch>,
    object: &'a Object,
    index: usize,
}

impl<'a, M: Name + Default + Clone> Patch<'a, M> {
    /// `None` if the value is no such message, which [`super::check`] tells of.
    pub(super) fn new(
        object: &'a Object,
        index: usize,
        wire: &'a EnvoyConfigObjectPatch,
    ) -> Option<Patch<'a, M>> {
        let operation = wire.patch.as_ref()?.operation?;
        let value = match value::json(wire) {
            Some(json) => {
                let flaws = Reflection::shared().flaws(&M::full_name(), &json);
                if flaws.iter().any(|flaw| !flaw.is_unknown_field) {
                    return None;
                }
                Reflection::shared().read(&json).ok()?
            }
            None => M::default(),
        };
        Some(Patch { operation, value, matches: wire.matches.as_ref(), object, index })
    }

    /// Where the patch was written.
    pub(super) fn origin(&self) -> Origin {
        origin(self.object, format!("spec.configPatches[{}]", self.index))
    }

    /// Whether the patch is for objects that stand there.
    pub(super) fn is_for(&self, place: PatchContext) -> bool {
        let wanted = self.context();
        wanted == place || wanted == PatchContext::Any
    }

    /// Where the patch is for; anywhere, if nothing is said.
    pub(super) fn context(&self) -> PatchContext {
        self.matches.and_then(|m| m.context).unwrap_or_default()
    }

    /// Whether the value becomes an object of its own, there. What is for anywhere is added where traffic goes out.
    pub(super) fn adds_to(&self, place: PatchContext) -> bool {
        let is_inbound = place == PatchContext::SidecarInbound;
        self.adds() && self.is_for(place) && !(is_inbound && self.context() == PatchContext::Any)
    }

    /// Whether the value is added. Inserting where there is no order is adding.
    pub(super) fn adds(&self) -> bool {
        use PatchOperation as Is;
        matches!(self.operation, Is::Add | Is::InsertBefore | Is::InsertAfter | Is::InsertFirst)
    }

    pub(super) fn merges(&self) -> bool {
        self.lists().is_some()
    }

    fn lists(&self) -> Option<Lists> {
        match self.operation {
            PatchOperation::Merge => Some(Lists::Append),
            PatchOperation::MergeAndReplaceList => Some(Lists::Replace),
            _ => None,
        }
    }

    /// `base` with the value merged into it, if the patch merges.
    pub(super) fn merge_into(&self, base: &mut M) {
        let merged = self.lists().map(|lists| Reflection::shared().merge(base, &self.value, lists));
        if let Some(Ok(merged)) = merged {
            *base = merged;
        }
    }
}

/// The conditions, as far as the patch has them.
impl<'a, M> Patch<'a, M> {
    pub(super) fn listener(&self) -> Option<&'a ListenerMatch> {
        self.matches?.listener.as_ref()
    }

    pub(super) fn listener_filter(&self) -> Option<&'a str> {
        self.listener()?.listener_filter.as_deref().filter(|name| !name.is_empty())
    }

    pub(super) fn network_filter(&self) -> Option<&'a FilterMatch> {
        self.listener()?.filter_chain.as_ref()?.filter.as_ref()
    }

    pub(super) fn http_filter(&self) -> Option<&'a str> {
        Some(self.network_filter()?.sub_filter.as_ref()?.name.as_str())
    }

    pub(super) fn route_configuration(&self) -> Option<&'a RouteConfigurationMatch> {
        self.matches?.route_configuration.as_ref()
    }

    pub(super) fn virtual_host(&self) -> Option<&'a VirtualHostMatch> {
        self.route_configuration()?.vhost.as_ref()
    }

    pub(super) fn route(&self) -> Option<&'a RouteMatch> {
        self.virtual_host()?.route.as_ref()
    }

    pub(super) fn cluster(&self) -> Option<&'a ClusterMatch> {
        self.matches?.cluster.as_ref()
    }
}

/// A configuration with another one of its kind merged into it; of another kind it stays as it is.
pub(super) fn merge_config(base: &mut Any, patch: &Any) {
    if let Ok(merged) = Reflection::shared().merge_any(base, patch) {
        *base = merged;
    }
}
