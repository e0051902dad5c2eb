//! Rules of MeshConfig: which parameters of TLS there are, and what they have no use for.

use super::tls::{CIPHER_SUITES, WEAK_CIPHER_SUITES};
use crate::codes;
use crate::decode::Decoder;
use crate::istio::{AccessLogEncoding, MeshConfig, OutboundTrafficPolicyMode, TlsConfig};
use crate::syntax::did_you_mean;

/// Suites without forward secrecy in Istio's own list for the mesh. They are never chosen: whoever has them has the others.
const TOLERATED_SUITES: &[&str] = &["AES128-GCM-SHA256", "AES256-GCM-SHA384"];

/// Groups that the proxy offers.
const CURVES: &[&str] = &["X25519MLKEM768", "X25519", "P-256", "P-384"];

/// Groups that Envoy has besides.
const OTHER_CURVES: &[&str] = &["P-224", "P-521"];

pub(crate) fn mesh_config(mesh: &MeshConfig, decoder: &mut Decoder) {
    let is_json = mesh.access_log_encoding == Some(AccessLogEncoding::Json);
    let has_format = mesh.access_log_format.as_ref().is_some_and(|format| !format.is_empty());
    if is_json && has_format && mesh.access_log_fields().is_none() {
        let message = "the format of an access log in JSON is an object of texts".to_owned();
        let help = "write such as {\"path\": \"%REQ(:PATH)%\"}; until then Istio's own fields are logged";
        decoder.report_below("accessLogFormat", &codes::NO_USE, message, help);
    }
    if mesh.mesh_mtls.as_ref().is_some_and(|tls| !tls.ecdh_curves.is_empty()) {
        let message = "mutual TLS of the mesh does not look at `ecdhCurves`".to_owned();
        let help = "remove it; `tlsDefaults` has it for other TLS";
        decoder.report_below("meshMTLS.ecdhCurves", &codes::NO_USE, message, help);
    }
    let policy = mesh.outbound_traffic_policy.as_ref();
    if policy.and_then(|policy| policy.mode) == Some(OutboundTrafficPolicyMode::AllowAnyDynamicDns) {
        let message = "hosts are not resolved yet: requests go to the address that they came for".to_owned();
        decoder.report_below("outboundTrafficPolicy.mode", &codes::NO_EFFECT_YET, message, "write ALLOW_ANY");
    }
    if policy.is_some_and(|policy| policy.egress_proxy.is_some()) {
        let message = "only a Sidecar has an `egressProxy`".to_owned();
        decoder.report_below("outboundTrafficPolicy.egressProxy", &codes::UNKNOWN_FIELD, message, "");
    }
}

pub(crate) fn tls_config(tls: &TlsConfig, decoder: &mut Decoder) {
    let suites = List { field: "cipherSuites", noun: "cipher suite", offered: CIPHER_SUITES };
    let refused = |name: &str| WEAK_CIPHER_SUITES.contains(&name) && !TOLERATED_SUITES.contains(&name);
    suites.check(&tls.cipher_suites, &refused, TOLERATED_SUITES, decoder);
    let curves = List { field: "ecdhCurves", noun: "group", offered: CURVES };
    curves.check(&tls.ecdh_curves, &|name| OTHER_CURVES.contains(&name), &[], decoder);
}

/// A list of names of which the proxy offers some.
struct List {
    field: &'static str,
    noun: &'static str,
    offered: &'static [&'static str],
}

impl List {
    fn check(
        &self,
        names: &[String],
        is_refused: &dyn Fn(&str) -> bool,
        tolerated: &[&str],
        decoder: &mut Decoder,
    ) {
        let List { field, noun, offered } = self;
        for (index, name) in names.iter().enumerate() {
            let at = format!("{field}[{index}]");
            if is_refused(name) {
                let message = format!("the {noun} {name} is not offered");
                decoder.report_below(&at, &codes::UNSUPPORTED_VALUE, message, "remove it");
            } else if !offered.contains(&name.as_str()) && !tolerated.contains(&name.as_str()) {
                let help = did_you_mean(name, offered.iter().copied());
                decoder.report_below(&at, &codes::BAD_ENUM, format!("`{name}` is not a {noun}"), &help);
            }
        }
        if !names.is_empty() && names.iter().all(|name| tolerated.contains(&name.as_str())) {
            let message = format!("no {noun} of the list is offered");
            decoder.report_below(field, &codes::UNSUPPORTED_VALUE, message, "add one with forward secrecy");
        }
        super::unique(decoder, names.iter().enumerate(), |index| format!("{field}[{index}]"));
    }
}
