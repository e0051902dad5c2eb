//! As much of the messages as a simulated client reads: it answers, counts, and forgets.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use meltemi_envoy::Any;
use meltemi_envoy::config::listener::v3::Listener;
use meltemi_envoy::config::listener::v3::filter::ConfigType;
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use meltemi_envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use meltemi_envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
use meltemi_envoy::type_url;
use prost::Message;

/// A response of either variant without its resources.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Envelope {
    #[prost(string, tag = "1")]
    pub(crate) version: String,
    #[prost(string, tag = "4")]
    pub(crate) type_url: String,
    #[prost(string, tag = "5")]
    pub(crate) nonce: String,
}

/// Any resource that a name can be read of: it is the first field of all four.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// The five bytes before a message of gRPC.
pub(crate) const PREFIX: usize = 5;

/// A message with its prefix.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX + message.encoded_len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    bytes.put_slice(&message.encode_to_vec());
    bytes.freeze()
}

/// The names that a client subscribes to next: of clusters their own, of listeners those of their routes.
pub(crate) fn names(bytes: Bytes, is_delta: bool, kind: &str) -> anyhow::Result<BTreeSet<String>> {
    let bodies: Vec<Any> = if is_delta {
        let response = DeltaDiscoveryResponse::decode(bytes)?;
        response.resources.into_iter().filter_map(|wrapped| wrapped.resource).collect()
    } else {
        DiscoveryResponse::decode(bytes)?.resources
    };
    let mut names = BTreeSet::new();
    for body in bodies {
        match kind {
            type_url::LISTENER => routes(&body, &mut names)?,
            _ => _ = names.insert(Named::decode(body.value)?.name),
        }
    }
    Ok(names)
}

fn routes(body: &Any, names: &mut BTreeSet<String>) -> anyhow::Result<()> {
    let listener: Listener = body.unpack()?;
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    for filter in chains.flat_map(|chain| &chain.filters) {
        let Some(ConfigType::TypedConfig(config)) = &filter.config_type else { continue };
        let Ok(manager) = config.unpack::<HttpConnectionManager>() else { continue };
        if let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier {
            names.insert(rds.route_config_name);
        }
    }
    Ok(())
}
