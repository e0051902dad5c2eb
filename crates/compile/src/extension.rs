//! Extensions by their type: the one place that knows which are understood.
//!
//! An extension is its message, or a `TypedStruct` that names a type; the name of the extension is only a
//! label. A type that is not known is rejected by its name.

use meltemi_envoy::{Any, udpa, xds};
use prost::Name;

use crate::ledger::At;

/// The configuration of an extension whose messages exist here only as text.
pub(crate) struct Struct {
    /// Full name of the message, the part of the type URL behind the last slash.
    pub(crate) type_name: String,
    /// Its fields.
    pub(crate) value: prost_types::Struct,
}

/// Reads a `TypedStruct` of either package; `None` when it is something else.
pub(crate) fn typed_struct(at: &At<'_>, any: &Any) -> Option<Struct> {
    let (type_url, value) = if any.is::<udpa::r#type::v1::TypedStruct>() {
        let message: udpa::r#type::v1::TypedStruct = unpack(at, any)?;
        (message.type_url, message.value)
    } else if any.is::<xds::r#type::v3::TypedStruct>() {
        let message: xds::r#type::v3::TypedStruct = unpack(at, any)?;
        (message.type_url, message.value)
    } else {
        return None;
    };
    let type_name = type_url.rsplit('/').next().unwrap_or_default().to_owned();
    Some(Struct { type_name, value: value.unwrap_or_default() })
}

/// Decodes the message that the caller knows it is.
pub(crate) fn unpack<M: Name + Default>(at: &At<'_>, any: &Any) -> Option<M> {
    any.unpack().map_err(|error| at.reject(error)).ok()
}

/// Rejects an extension of a type that is not known.
pub(crate) fn unknown<T>(at: &At<'_>, name: &str, any: &Any) -> Option<T> {
    let type_name = type_name(at, any);
    at.none(format_args!("extension {name:?} of type {type_name:?} is not supported"))
}

/// Full name of the message, or of the one that a `TypedStruct` stands for.
pub(crate) fn type_name(at: &At<'_>, any: &Any) -> Box<str> {
    match typed_struct(at, any) {
        Some(inner) => inner.type_name.into(),
        None => any.message_name().into(),
    }
}
