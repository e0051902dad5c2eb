//! Data that a message names instead of holding it.
//!
//! Source: `envoy.config.core.v3.DataSource`. Reading is not done here: whoever compiles hands in where to read.

use meltemi_envoy::config::core::v3::{DataSource, data_source};

use crate::ledger::{At, refuse};

/// Where files and variables are read.
pub trait DataSources {
    /// The contents of a file.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn file(&self, path: &str) -> Result<Vec<u8>, String>;

    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;
}

/// Nowhere: all data must be in the messages.
#[derive(Debug, Clone, Copy)]
pub struct NoSources;

impl DataSources for NoSources {
    fn file(&self, _path: &str) -> Result<Vec<u8>, String> {
        Err("no files are read here".to_owned())
    }

    fn variable(&self, _name: &str) -> Option<String> {
        None
    }
}

/// Where it is, in the words of Envoy's `/certs`.
pub(crate) fn path(source: &DataSource) -> Box<str> {
    match &source.specifier {
        Some(data_source::Specifier::Filename(path)) => path.as_str().into(),
        _ => "<inline>".into(),
    }
}

/// The data; empty counts as missing, as in Envoy.
pub(crate) fn data(at: &At<'_>, source: &DataSource) -> Option<Vec<u8>> {
    let DataSource { watched_directory, specifier } = source;
    refuse!(at; watched_directory);
    let data = match specifier {
        Some(data_source::Specifier::InlineString(text)) => text.clone().into_bytes(),
        Some(data_source::Specifier::InlineBytes(bytes)) => bytes.to_vec(),
        Some(data_source::Specifier::Filename(path)) => match at.sources().file(path) {
            Ok(data) => data,
            Err(error) => return at.field("filename").none(format_args!("{path}: {error}")),
        },
        Some(data_source::Specifier::EnvironmentVariable(name)) => match at.sources().variable(name) {
            Some(data) => data.into_bytes(),
            None => return at.field("environment_variable").none(format_args!("{name} is not set")),
        },
        None => return at.none("must be set"),
    };
    if data.is_empty() {
        return at.none("must not be empty");
    }
    Some(data)
}
