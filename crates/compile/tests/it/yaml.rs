//! Fixtures: protobuf JSON as YAML.

use std::cell::OnceCell;

use meltemi_compile::Rejection;
use meltemi_envoy::json::Codec;
use prost::Name;

/// Reads a message.
pub(crate) fn message<M: Name + Default>(yaml: &str) -> M {
    thread_local!(static CODEC: OnceCell<Codec> = const { OnceCell::new() });
    CODEC.with(|codec| codec.get_or_init(Codec::new).parse(yaml)).unwrap_or_else(|e| panic!("{e}\n{yaml}"))
}

/// The rejections as `path: reason`.
pub(crate) fn reasons<T: std::fmt::Debug>(result: Result<T, Vec<Rejection>>) -> Vec<String> {
    let rejections = result.expect_err("rejected");
    rejections.iter().map(|r| format!("{}: {}", r.path, r.reason)).collect()
}

/// The only rejection, as `path: reason`.
pub(crate) fn reason<T: std::fmt::Debug>(result: Result<T, Vec<Rejection>>) -> String {
    let mut all = reasons(result);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}
