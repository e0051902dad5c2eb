//! `overload_manager`: of its monitors, the one that limits the connections of the process.
//!
//! Source: `envoy.config.overload.v3.OverloadManager` and
//! `envoy.extensions.resource_monitors.downstream_connections.v3`. The limit is kept by [`crate::admission`]. Actions
//! need monitors of memory or CPU, which do not exist here.

use meltemi_envoy::config::overload::v3::resource_monitor::ConfigType;
use meltemi_envoy::config::overload::v3::{OverloadManager, ResourceMonitor};
use meltemi_envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig;

use super::Check;

impl Check {
    pub(super) fn overload_manager(&mut self, message: Option<&OverloadManager>) {
        let Some(message) = message else { return };
        let OverloadManager {
            refresh_interval,
            resource_monitors,
            actions,
            loadshed_points,
            buffer_factory_config,
        } = message;
        self.note_if(
            refresh_interval.is_some(),
            "overload_manager.refresh_interval",
            "there is no monitor that is asked at intervals",
        );
        self.note_if(!actions.is_empty(), "overload_manager.actions", "not read yet");
        self.note_if(!loadshed_points.is_empty(), "overload_manager.loadshed_points", "not read yet");
        self.note_if(
            buffer_factory_config.is_some(),
            "overload_manager.buffer_factory_config",
            "it tunes the buffers of Envoy",
        );
        resource_monitors.iter().enumerate().for_each(|(i, monitor)| self.resource_monitor(i, monitor));
    }

    fn resource_monitor(&mut self, index: usize, monitor: &ResourceMonitor) {
        let ResourceMonitor { name: _, config_type } = monitor;
        let Some(ConfigType::TypedConfig(any)) = config_type else { return };
        if !any.is::<DownstreamConnectionsConfig>() {
            let reason = "only the limit of downstream connections has an effect";
            return self.note_if(true, "overload_manager.resource_monitors", reason);
        }
        let path = format!("overload_manager.resource_monitors[{index}].typed_config");
        let DownstreamConnectionsConfig { max_active_downstream_connections: max } = match any.unpack() {
            Ok(message) => message,
            Err(error) => return self.refuse(&path, &error.to_string()),
        };
        let path = format!("{path}.max_active_downstream_connections");
        match u64::try_from(max) {
            Ok(0) | Err(_) => self.refuse(&path, "must be greater than 0"),
            Ok(_) if self.max_downstream_connections.is_some() => {
                self.refuse(&path, "another monitor limits downstream connections already");
            }
            Ok(max) => self.max_downstream_connections = Some(max),
        }
    }
}
