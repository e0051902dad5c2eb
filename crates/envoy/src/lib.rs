//! The messages of the Envoy API, and what every user of them needs.
//!
//! Owns: generated types (prost; ordered maps, [`bytes::Bytes`]), the gRPC stubs of ADS, SDS, Istio's certificate
//! service and the SPIFFE Workload API, [`Any`], the
//! [`type_url`]s, protobuf [`json`] with `@type`, and all of the API by [`reflect`]ion. Knows nothing of what a message
//! means.
//! The definitions come from a dependency, see `build.rs`; adding a file of them is one line there.

mod any;
pub mod json;
pub mod reflect;
mod resource;
pub mod type_url;

pub use any::{Any, DecodeError};
pub use resource::Resource;

/// The generated code, by protobuf package.
#[allow(missing_docs, unreachable_pub, rustdoc::all, clippy::all)]
mod messages {
    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}

pub use messages::envoy::{admin, config, data, extensions, service, r#type};
pub use messages::{google, istio, udpa, xds};

/// The SPIFFE Workload API, which has no protobuf package.
pub mod spiffe {
    pub use super::messages::{
        X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest, X509svidResponse,
        spiffe_workload_api_client, spiffe_workload_api_server,
    };
}
