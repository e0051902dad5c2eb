//! Where a request goes: an `http://` URL taken apart.

use anyhow::{Context, bail, ensure};
use http::Uri;
use meltemi_http::Text;

/// An HTTP target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Host name or address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Host and port as the URL has them, for `host`.
    pub(crate) authority: Text,
    /// Path with query.
    pub(crate) path: Text,
}

impl Target {
    /// Parses a URL. Only `http`: neither end of test traffic speaks TLS.
    pub(crate) fn parse(url: &str) -> anyhow::Result<Target> {
        let uri: Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some(scheme) => bail!("{url:?}: scheme {scheme} is not supported, only http"),
            None => bail!("{url:?} has no scheme; write http://…"),
        }
        let authority = uri.authority().with_context(|| format!("{url:?} has no host"))?;
        ensure!(!authority.as_str().contains('@'), "{url:?}: credentials in URLs are not supported");
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        // The parser lets ports through that are none, such as 99999.
        let port = match authority.as_str()[authority.host().len()..].strip_prefix(':') {
            Some(port) => port.parse().with_context(|| format!("{url:?}: {port:?} is no port"))?,
            None => 80,
        };
        ensure!(port != 0, "{url:?}: port 0 cannot be connected to");
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Target { host, port, authority: Text::from(authority.as_str()), path: Text::from(path) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::parse("http://shop.example:8080/a?b=c").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("shop.example", 8080));
        assert_eq!((&*target.authority, &*target.path), ("shop.example:8080", "/a?b=c"));
        let bare = Target::parse("http://[::1]").unwrap();
        assert_eq!((bare.host.as_str(), bare.port, &*bare.path), ("::1", 80, "/"));
        for wrong in [
            "https://a/",
            "a/b",
            "http://",
            "http://user@a/",
            "ftp://a",
            "http://a:99999/",
            "http://a:/",
            "http://a:0/",
        ] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }
}
