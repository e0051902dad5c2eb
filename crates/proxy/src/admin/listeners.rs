//! `/listeners`: where the listeners in force listen.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Admin, Params, Reply, param};

pub(super) const PARAMS: &[(&str, &str)] = &[("format", "File format to use; One of (text, json)")];

pub(super) fn listeners(admin: &Admin, params: &Params) -> Reply {
    let listening: Vec<(String, SocketAddr)> = {
        let store = admin.store();
        let active = store.listeners().values().filter_map(|entry| entry.active.as_ref());
        active.map(|l| (l.value.name.to_string(), admin.address(&l.value.name, l.value.address))).collect()
    };
    if param(params, "format") == Some("json") {
        let statuses: Vec<Value> = listening
            .iter()
            .map(|(name, address)| json!({"name": name, "local_address": socket_address(*address)}))
            .collect();
        return Reply::json(&json!({ "listener_statuses": statuses }));
    }
    Reply::text(listening.iter().map(|(name, address)| format!("{name}::{address}\n")).collect::<String>())
}

/// `envoy.config.core.v3.Address` as JSON.
pub(super) fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}
