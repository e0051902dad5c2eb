//! Rules across one WasmPlugin or TrafficExtension.

use super::{at_least_one, at_most_one, unique};
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{EnvValueSource, TrafficExtension, VmConfig, VmEnvVar, WasmPlugin};

pub(crate) fn wasm_plugin(plugin: &WasmPlugin, decoder: &mut Decoder) {
    let selector = plugin.selector.as_ref();
    super::policy::attachment(selector, plugin.target_ref.as_ref(), &plugin.target_refs, decoder);
}

pub(crate) fn traffic_extension(extension: &TrafficExtension, decoder: &mut Decoder) {
    super::policy::attachment(extension.selector.as_ref(), None, &extension.target_refs, decoder);
    let kinds = [("wasm", extension.wasm.is_some()), ("lua", extension.lua.is_some())];
    at_least_one(decoder, &kinds);
    at_most_one(decoder, &kinds);
}

pub(crate) fn vm_config(config: &VmConfig, decoder: &mut Decoder) {
    let names = config.env.iter().map(|variable| variable.name.as_str()).enumerate();
    unique(decoder, names.filter(|(_, name)| !name.is_empty()), |index| format!("env[{index}].name"));
}

pub(crate) fn vm_env_var(variable: &VmEnvVar, decoder: &mut Decoder) {
    let is_given = variable.value.as_deref().is_some_and(|value| !value.is_empty());
    if variable.value_from == Some(EnvValueSource::Host) && is_given {
        let message = "a variable from the proxy's environment has no `value`".to_owned();
        decoder.report_below("value", &codes::CONFLICTING_FIELDS, message, "keep one of them");
    }
}
