//! What was made for a proxy, not encoded yet.

use meltemi_envoy::config::core::v3::TypedExtensionConfig;
use meltemi_envoy::config::route::v3::RouteConfiguration;

use crate::cluster;
use crate::listener;
use crate::resources::Origin;

/// The messages of one translation, each with what asked for it.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) clusters: Vec<cluster::Built>,
    pub(crate) listeners: Vec<listener::Built>,
    /// Their origins are in the side table already.
    pub(crate) routes: Vec<RouteConfiguration>,
    pub(crate) extension_configs: Vec<(TypedExtensionConfig, Origin)>,
}
