//! `envoy.filters.network.set_filter_state`: objects of filter state for the whole connection.

use meltemi_envoy::extensions::filters::network::set_filter_state::v3::Config;

use crate::filter::set_filter_state::{ObjectValue, object_value};
use crate::ledger::{At, refuse};

/// The objects of `on_new_connection`, in order.
pub(super) fn compile(at: &At<'_>, message: &Config) -> Vec<ObjectValue> {
    let Config { on_new_connection, on_downstream_tls_handshake, on_downstream_data } = message;
    refuse!(at; on_downstream_tls_handshake, on_downstream_data);
    at.each("on_new_connection", on_new_connection, object_value)
}
