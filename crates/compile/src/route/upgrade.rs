//! Upgrades that a route allows, forbids or terminates.
//!
//! Source: `envoy.config.route.v3.RouteAction.UpgradeConfig`.

use std::collections::BTreeMap;

use meltemi_envoy::config::route::v3::route_action;
use meltemi_envoy::config::route::v3::route_action::upgrade_config::ConnectConfig as ConnectMessage;

use crate::ledger::{At, refuse};

/// `upgrade_configs` of a route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Upgrades {
    /// Whether an upgrade is on, by its lower-case name.
    by_name: BTreeMap<Box<str>, bool>,
    /// `connect_config`: CONNECT ends here, and only the bytes in it go upstream.
    pub connect: Option<ConnectConfig>,
}

/// `RouteAction.UpgradeConfig.ConnectConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectConfig {
    /// `allow_post`: a POST is treated like a CONNECT.
    pub allow_post: bool,
}

impl Upgrades {
    /// What the route says about an upgrade; `None` leaves it to the connection manager.
    pub fn allows(&self, name: &str) -> Option<bool> {
        self.by_name.get(name).copied()
    }
}

/// Compiles the upgrades of a route.
pub(super) fn upgrades(at: &At<'_>, messages: &[route_action::UpgradeConfig]) -> Upgrades {
    let mut upgrades = Upgrades::default();
    at.each("upgrade_configs", messages, |at, message| {
        let route_action::UpgradeConfig { upgrade_type, enabled, connect_config } = message;
        at.required("upgrade_type", upgrade_type);
        let name = upgrade_type.to_ascii_lowercase();
        if let Some(config) = connect_config {
            let at_config = at.field("connect_config");
            if name != "connect" {
                at_config.reject("must not be set unless upgrade_type is CONNECT");
            }
            let ConnectMessage { proxy_protocol_config, allow_post } = config;
            refuse!(&at_config; proxy_protocol_config);
            upgrades.connect = Some(ConnectConfig { allow_post: *allow_post });
        }
        let before = upgrades.by_name.insert(name.as_str().into(), enabled.unwrap_or(true));
        if before.is_some() {
            at.field("upgrade_type").reject(format_args!("duplicate upgrade {upgrade_type}"));
        }
        Some(())
    });
    upgrades
}
