//! The log of health checks: a line of JSON for each event.
//!
//! Source: `envoy.data.core.v3.HealthCheckEvent`, with Envoy's order of fields. Leaves out the metadata of endpoints.

use std::net::SocketAddr;
use std::sync::Arc;

use meltemi_compile::program::{HealthCheckKind, Locality};
use serde_json::{Value, json};

use super::judge::{Failure, FailureKind};
use crate::upstream::shared::{EventLog, timestamp};

/// Writes the events of one host.
#[derive(Debug, Clone)]
pub(super) struct Events {
    logs: Arc<[EventLog]>,
    /// Type, host and cluster: what every event begins with.
    begin: String,
    locality: String,
}

impl Events {
    pub(super) fn new(
        logs: &Arc<[EventLog]>,
        kind: &HealthCheckKind,
        cluster: &str,
        address: SocketAddr,
        locality: &Locality,
    ) -> Events {
        let kind = match kind {
            HealthCheckKind::Http(_) => "HTTP",
            HealthCheckKind::Tcp(_) => "TCP",
            HealthCheckKind::Grpc(_) => "GRPC",
        };
        let (ip, port) = (address.ip(), address.port());
        let cluster = Value::from(cluster);
        let host = format!(
            r#"{{"socket_address":{{"protocol":"TCP","address":"{ip}","port_value":{port},"resolver_name":"","ipv4_compat":false,"network_namespace_filepath":""}}}}"#
        );
        let Locality { region, zone, sub_zone } = locality;
        let [region, zone, sub_zone] = [region, zone, sub_zone].map(|part| Value::from(&**part));
        Events {
            logs: Arc::clone(logs),
            begin: format!(r#""health_checker_type":"{kind}","host":{host},"cluster_name":{cluster}"#),
            locality: format!(r#"{{"region":{region},"zone":{zone},"sub_zone":{sub_zone}}}"#),
        }
    }

    pub(super) fn eject_unhealthy(&self, failure: &Failure) {
        let event = json!({"failure_type": failure_type(failure), "http_status_code": failure.status});
        self.log(&[("eject_unhealthy_event", &event)], &[], &[]);
    }

    pub(super) fn add_healthy(&self, first_check: bool) {
        self.log(&[("add_healthy_event", &json!({"first_check": first_check}))], &[], &[]);
    }

    pub(super) fn failure(&self, failure: &Failure, first_check: bool) {
        let event = json!({
            "failure_type": failure_type(failure),
            "first_check": first_check,
            "http_status_code": failure.status,
        });
        self.log(&[], &[("health_check_failure_event", &event)], &[]);
    }

    pub(super) fn success(&self) {
        self.log(&[], &[], &[("successful_health_check_event", &json!({}))]);
    }

    pub(super) fn degraded(&self, degraded: bool) {
        let name = if degraded { "degraded_healthy_host" } else { "no_longer_degraded_host" };
        self.log(&[], &[(name, &json!({}))], &[]);
    }

    /// Fields stand in the order of their numbers: before the time, between it and the locality, and after that.
    fn log(&self, before: &[(&str, &Value)], between: &[(&str, &Value)], after: &[(&str, &Value)]) {
        if self.logs.is_empty() {
            return;
        }
        let fields = |list: &[(&str, &Value)]| -> String {
            list.iter().map(|(name, value)| format!(r#","{name}":{value}"#)).collect()
        };
        let line = format!(
            r#"{{{}{},"timestamp":"{}"{},"locality":{}{}}}"#,
            self.begin,
            fields(before),
            timestamp(),
            fields(between),
            self.locality,
            fields(after)
        );
        self.logs.iter().for_each(|log| log.line(line.clone()));
    }
}

fn failure_type(failure: &Failure) -> &'static str {
    match failure.kind {
        FailureKind::Active => "ACTIVE",
        FailureKind::Passive => "PASSIVE",
        FailureKind::Network => "NETWORK",
        FailureKind::NetworkTimeout => "NETWORK_TIMEOUT",
    }
}
