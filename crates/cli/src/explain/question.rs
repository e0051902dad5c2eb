//! From the words of a command line to a request.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use meltemi_explain::{HeaderValues, Request};

/// Reads `[METHOD] URL` and the headers.
///
/// # Errors
/// If the text is no such thing.
pub(crate) fn request(text: &str, headers: &[String], is_http2: bool) -> anyhow::Result<Request> {
    let (method, url) = text.trim().split_once(' ').unwrap_or(("GET", text.trim()));
    let (scheme, rest) = url.trim().split_once("://").unwrap_or(("http", url.trim()));
    let default_port = match scheme {
        "http" | "grpc" => 80,
        "https" => 443,
        "tcp" => 0,
        other => bail!("the scheme `{other}` is not one of http, https, grpc and tcp"),
    };
    let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(path_at);
    let (host, port) = authority_parts(authority)?;
    let port = port.unwrap_or(default_port);
    ensure!(port != 0, "`{url}` names no port; write tcp://HOST:PORT");
    Ok(Request {
        method: method.to_ascii_uppercase(),
        scheme: if scheme == "grpc" { "http" } else { scheme }.to_owned(),
        host,
        port,
        path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
        is_http2: is_http2 || scheme == "grpc",
        headers: fields(headers)?,
    })
}

/// `HOST`, `HOST:PORT` or `[IPV6]:PORT`.
fn authority_parts(authority: &str) -> anyhow::Result<(String, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    ensure!(!host.is_empty(), "the request names no host");
    let port = port.map(|text| text.parse().with_context(|| format!("`{text}` is no port"))).transpose()?;
    Ok((host.to_owned(), port))
}

fn fields(headers: &[String]) -> anyhow::Result<BTreeMap<String, HeaderValues>> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for header in headers {
        let (name, value) =
            header.split_once(':').with_context(|| format!("`{header}` is no `NAME: VALUE`"))?;
        values.entry(name.trim().to_ascii_lowercase()).or_default().push(value.trim().to_owned());
    }
    Ok(values.into_iter().map(|(name, values)| (name, HeaderValues::Several(values))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let parts = |text: &str| {
            let r = request(text, &[], false).expect("a request");
            (r.method, r.scheme, r.host, r.port, r.path)
        };
        let expect =
            |m: &str, s: &str, h: &str, port, p: &str| (m.into(), s.into(), h.into(), port, p.into());
        assert_eq!(parts("GET http://reviews:9080/a?b=c"), expect("GET", "http", "reviews", 9080, "/a?b=c"));
        assert_eq!(parts("post https://a.example"), expect("POST", "https", "a.example", 443, "/"));
        assert_eq!(parts("reviews"), expect("GET", "http", "reviews", 80, "/"));
        assert_eq!(parts("tcp://[::1]:5432"), expect("GET", "tcp", "::1", 5432, "/"));
        assert_eq!(parts("http://h?x"), expect("GET", "http", "h", 80, "/?x"));
    }

    #[test]
    fn what_is_no_request_is_said_to_be_none() {
        let wrong = |text: &str| request(text, &[], false).expect_err("no request").to_string();
        assert_eq!(wrong("tcp://db"), "`tcp://db` names no port; write tcp://HOST:PORT");
        assert_eq!(wrong("ftp://x/"), "the scheme `ftp` is not one of http, https, grpc and tcp");
        assert_eq!(wrong("http://:80/"), "the request names no host");
        assert_eq!(wrong("http://a:b/"), "`b` is no port");
        let headers = request("http://a", &["nonsense".to_owned()], false).expect_err("no header");
        assert_eq!(headers.to_string(), "`nonsense` is no `NAME: VALUE`");
    }
}
