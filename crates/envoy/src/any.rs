//! `google.protobuf.Any` with shared bytes, so that one encoding serves many streams.

use bytes::Bytes;
use prost::{Message, Name};

/// A message of a named type, still encoded.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Any {
    /// `type.googleapis.com/` and the full name of the message.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

impl Name for Any {
    const NAME: &'static str = "Any";
    const PACKAGE: &'static str = "google.protobuf";

    fn type_url() -> String {
        "type.googleapis.com/google.protobuf.Any".to_owned()
    }
}

/// An [`Any`] is not the message that was asked for, or is not a message at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The type URL names another message.
    #[error("expected {expected}, got {got}")]
    OtherType {
        /// Full name of the message that the caller reads.
        expected: String,
        /// The type URL that is there.
        got: String,
    },
    /// The bytes are not an encoding of the message.
    #[error("{name}: {reason}")]
    Malformed {
        /// Full name of the message.
        name: String,
        /// What the decoder says.
        reason: String,
    },
}

impl Any {
    /// Encodes `message` under its own type URL.
    pub fn pack<M: Name>(message: &M) -> Any {
        Any { type_url: M::type_url(), value: message.encode_to_vec().into() }
    }

    /// The full message name in the type URL, the part behind the last slash.
    pub fn message_name(&self) -> &str {
        self.type_url.rsplit('/').next().unwrap_or_default()
    }

    /// Whether the type URL names `M`, whatever its domain.
    pub fn is<M: Name>(&self) -> bool {
        self.message_name() == M::full_name()
    }

    /// Decodes the message.
    ///
    /// # Errors
    /// If the type URL names another message, or the bytes are malformed. Unknown fields are ignored, as
    /// protobuf demands.
    pub fn unpack<M: Name + Default>(&self) -> Result<M, DecodeError> {
        if !self.is::<M>() {
            return Err(DecodeError::OtherType { expected: M::full_name(), got: self.type_url.clone() });
        }
        M::decode(self.value.clone())
            .map_err(|e| DecodeError::Malformed { name: M::full_name(), reason: e.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::core::v3::Locality;

    #[test]
    fn packs_and_unpacks() {
        let locality = Locality { region: "eu".into(), ..Default::default() };
        let any = Any::pack(&locality);
        assert_eq!(any.type_url, "type.googleapis.com/envoy.config.core.v3.Locality");
        assert_eq!(any.unpack::<Locality>(), Ok(locality));
    }

    #[test]
    fn refuses_another_type_and_malformed_bytes() {
        let any = Any { type_url: "type.googleapis.com/a.B".into(), value: Bytes::new() };
        assert!(matches!(any.unpack::<Locality>(), Err(DecodeError::OtherType { .. })));
        let broken = Any { type_url: Locality::type_url(), value: Bytes::from_static(b"\xff") };
        assert!(matches!(broken.unpack::<Locality>(), Err(DecodeError::Malformed { .. })));
    }
}
