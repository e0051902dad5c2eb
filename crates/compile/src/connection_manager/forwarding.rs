//! How a connection manager writes itself into requests, and whom it takes a request to come from.

use http::{HeaderValue, StatusCode};
use ipnet::IpNet;
use meltemi_envoy::Any;
use meltemi_envoy::config::core::v3::SchemeHeaderTransformation;
use meltemi_envoy::config::core::v3::scheme_header_transformation::Transformation;
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager as Message;
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, InternalAddressConfig, SetCurrentClientCertDetails,
};
use meltemi_envoy::extensions::http::original_ip_detection::custom_header::v3::CustomHeaderConfig;
use meltemi_envoy::extensions::http::original_ip_detection::xff::v3::{XffConfig, XffTrustedCidrs};

use crate::extension::{unknown, unpack};
use crate::ledger::{At, harmless, refuse};
use crate::program::{CertDetails, ForwardClientCert, Forwarding, IpDetection};
use crate::scalar::cidr;

pub(super) fn forwarding(at: &At<'_>, message: &Message) -> Forwarding {
    let use_remote_address = message.use_remote_address.unwrap_or(false);
    let ip_detections = ip_detections(at, message);
    if !ip_detections.is_empty() {
        let at = at.field("original_ip_detection_extensions");
        if use_remote_address {
            at.reject("must not be set beside use_remote_address");
        }
        if message.xff_num_trusted_hops > 0 {
            at.reject("must not be set beside xff_num_trusted_hops");
        }
    }
    let cert = at.choice::<ForwardClientCertDetails>(
        "forward_client_cert_details",
        message.forward_client_cert_details,
    );
    Forwarding {
        use_remote_address,
        xff_num_trusted_hops: message.xff_num_trusted_hops,
        skip_xff_append: message.skip_xff_append,
        append_x_forwarded_port: message.append_x_forwarded_port,
        internal_addresses: internal_addresses(at, message.internal_address_config.as_ref()),
        ip_detections,
        scheme: scheme(at, message.scheme_header_transformation.as_ref()),
        client_cert: match cert.unwrap_or_default() {
            ForwardClientCertDetails::Sanitize => ForwardClientCert::Sanitize,
            ForwardClientCertDetails::ForwardOnly => ForwardClientCert::ForwardOnly,
            ForwardClientCertDetails::AppendForward => ForwardClientCert::AppendForward,
            ForwardClientCertDetails::SanitizeSet => ForwardClientCert::SanitizeSet,
            ForwardClientCertDetails::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
        },
        cert_details: cert_details(at, message.set_current_client_cert_details.as_ref()),
        via: at.header_value("via", &message.via),
        generate_request_id: message.generate_request_id.unwrap_or(true),
        preserve_external_request_id: message.preserve_external_request_id,
        always_set_request_id_in_response: message.always_set_request_id_in_response,
    }
}

fn cert_details(at: &At<'_>, message: Option<&SetCurrentClientCertDetails>) -> CertDetails {
    let Some(message) = message else { return CertDetails::default() };
    let SetCurrentClientCertDetails { subject, cert, chain, dns, uri, issuer, format } = message;
    let at = &at.field("set_current_client_cert_details");
    refuse!(at; format);
    CertDetails {
        subject: subject.unwrap_or(false),
        issuer: *issuer,
        cert: *cert,
        chain: *chain,
        dns: *dns,
        uri: *uri,
    }
}

fn internal_addresses(at: &At<'_>, message: Option<&InternalAddressConfig>) -> Vec<IpNet> {
    let Some(InternalAddressConfig { unix_sockets, cidr_ranges }) = message else { return Vec::new() };
    harmless!(NoUnixListeners; unix_sockets);
    at.field("internal_address_config").each("cidr_ranges", cidr_ranges, cidr)
}

fn scheme(at: &At<'_>, message: Option<&SchemeHeaderTransformation>) -> Option<HeaderValue> {
    let SchemeHeaderTransformation { match_upstream, transformation } = message?;
    let at = at.field("scheme_header_transformation");
    at.refuse("match_upstream", match_upstream);
    let Transformation::SchemeToOverwrite(scheme) = transformation.as_ref()?;
    if scheme != "http" && scheme != "https" {
        return at.field("scheme_to_overwrite").none(format_args!("{scheme:?} is neither http nor https"));
    }
    at.header_value("scheme_to_overwrite", scheme)
}

fn ip_detections(at: &At<'_>, message: &Message) -> Vec<IpDetection> {
    let extensions = &message.original_ip_detection_extensions;
    at.each("original_ip_detection_extensions", extensions, |at, extension| {
        let at = at.field("typed_config");
        match &extension.typed_config {
            Some(any) if any.is::<XffConfig>() => forwarded(&at, any),
            Some(any) if any.is::<CustomHeaderConfig>() => custom_header(&at, any),
            Some(any) => unknown(&at, &extension.name, any),
            None => at.none("must be set"),
        }
    })
}

fn forwarded(at: &At<'_>, any: &Any) -> Option<IpDetection> {
    let XffConfig { xff_num_trusted_hops, xff_trusted_cidrs, skip_xff_append } = unpack(at, any)?;
    let skips_append = skip_xff_append.unwrap_or(true);
    let Some(XffTrustedCidrs { cidrs }) = xff_trusted_cidrs else {
        return Some(IpDetection::ForwardedHops { hops: xff_num_trusted_hops, skips_append });
    };
    if xff_num_trusted_hops > 0 {
        return at.field("xff_trusted_cidrs").none("must not be set beside xff_num_trusted_hops");
    }
    let trusted = at.field("xff_trusted_cidrs").each("cidrs", &cidrs, cidr);
    Some(IpDetection::ForwardedOutside { trusted, skips_append })
}

fn custom_header(at: &At<'_>, any: &Any) -> Option<IpDetection> {
    let CustomHeaderConfig { header_name, allow_extension_to_set_address_as_trusted, reject_with_status } =
        unpack(at, any)?;
    // As in Envoy: what is no error cannot refuse.
    let reject = reject_with_status.map(|status| {
        let code = u16::try_from(status.code).ok().and_then(|code| StatusCode::from_u16(code).ok());
        code.filter(|code| code.is_client_error() || code.is_server_error()).unwrap_or(StatusCode::FORBIDDEN)
    });
    let is_trusted = allow_extension_to_set_address_as_trusted;
    Some(IpDetection::Header { name: at.header_name("header_name", &header_name)?, is_trusted, reject })
}
