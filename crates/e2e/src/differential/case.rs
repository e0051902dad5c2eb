//! A case on disk, and the bootstrap that it stands for.
//!
//! A case is a folder with `case.yaml` and `expected.yaml`. `case.yaml` holds what is particular about it; the rest of
//! the bootstrap is [`default_bootstrap`]. Its keys, all optional but `backends` and `calls`:
//!
//! - `routes`: the routes of the one virtual host; or `route_config`: the whole configuration. Default: everything to
//!   the first backend's cluster.
//! - `connection_manager`: fields merged over those of the connection manager; `filters`: HTTP filters before the router.
//! - `clusters`: each merged over a STATIC cluster of the backend of the same name, if there is one; backends without
//!   an entry have such a cluster anyway.
//! - `filter_chain`: fields merged over those of the one chain; `transport_socket`: that of the chain.
//! - `listener`: fields merged over those of the listener; `listeners`: further listeners, whole.
//! - `bootstrap`: fields merged over the bootstrap (`admin`, `stats_config`, …).
//! - `arguments`: of both proxies' command lines, in place of `--drain-time-s 5`.
//! - `certificates`: pairs of a name and what its certificate is ([`CertificateSpec`]), issuers first; they are made for
//!   each run, and are in `${dir}/NAME.pem` and `${dir}/NAME.key`; `${sha256 NAME}` is the hash of one.
//! - `ocsp`: pairs of a name and what its OCSP response is ([`OcspSpec`]), in `${dir}/NAME.der`.
//! - `dns`: answers by name, one after the other; the last one stays. `${dns}` is the port of the name server.
//! - `log_format`: the access log's text format.
//! - `files`: contents by name; `${file NAME}` is the path. `${NAME}` is the port of a backend, `${dead}` a port where
//!   nothing listens, `${log}` the access log, `${dir}` a folder of the run.
//!
//! Merging: objects by key, anything else is replaced, null removes. A case with its own `bootstrap.yaml` beside
//! `calls.yaml` writes out everything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, json};

use super::calls::Calls;
use super::observed::Observed;
use crate::certificates::{CertificateSpec, Certificates};
use crate::ocsp::{self, OcspSpec};

/// A folder of `testdata/differential`.
#[derive(Debug)]
pub struct Case {
    /// The folder.
    pub dir: PathBuf,
    /// What to call; the tokens of its texts are not filled in.
    pub calls: Calls,
    text: String,
    /// The bootstrap when the case writes it out.
    whole: Option<String>,
}

/// What `case.yaml` says of the bootstrap.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parts {
    routes: Option<Value>,
    route_config: Option<Value>,
    connection_manager: Option<Value>,
    filters: Vec<Value>,
    clusters: Vec<Value>,
    listener: Option<Value>,
    filter_chain: Option<Value>,
    transport_socket: Option<Value>,
    listeners: Vec<Value>,
    bootstrap: Option<Value>,
    log_format: Option<String>,
    files: BTreeMap<String, String>,
}

/// `certificates` of `case.yaml`.
#[derive(Debug, Default, Deserialize)]
struct Declared {
    #[serde(default)]
    certificates: Vec<(String, CertificateSpec)>,
    #[serde(default)]
    ocsp: Vec<(String, OcspSpec)>,
}

/// The keys of `case.yaml` that are read.
const KEYS: [&str; 19] = [
    "transport_socket",
    "filter_chain",
    "certificates",
    "about",
    "arguments",
    "backends",
    "dns",
    "ocsp",
    "calls",
    "routes",
    "route_config",
    "connection_manager",
    "filters",
    "clusters",
    "listener",
    "listeners",
    "bootstrap",
    "log_format",
    "files",
];

impl Case {
    /// All cases, by name.
    ///
    /// # Errors
    /// If a folder cannot be read or a case is not valid.
    pub fn all(root: &Path) -> anyhow::Result<Vec<Case>> {
        let mut dirs: Vec<PathBuf> =
            std::fs::read_dir(root)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
        dirs.sort();
        dirs.into_iter().map(Case::read).collect()
    }

    fn read(dir: PathBuf) -> anyhow::Result<Case> {
        let short = dir.join("case.yaml");
        let whole = match short.exists() {
            true => None,
            false => Some(std::fs::read_to_string(dir.join("bootstrap.yaml"))?),
        };
        let path = if whole.is_some() { dir.join("calls.yaml") } else { short };
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let plain = without_tokens(&text);
        let calls = serde_saphyr::from_str(&plain).with_context(|| path.display().to_string())?;
        let keys: BTreeMap<String, Value> =
            serde_saphyr::from_str(&plain).with_context(|| path.display().to_string())?;
        if let Some(key) = keys.keys().find(|key| !KEYS.contains(&key.as_str())) {
            anyhow::bail!("{}: unknown key {key}", path.display());
        }
        Ok(Case { dir, calls, text, whole })
    }

    /// What our proxy is expected to do: as Envoy, but for the deliberate differences. A case that has any
    /// does not compare access logs.
    ///
    /// # Errors
    /// If the recording is missing or unreadable.
    pub fn expected_of_ours(&self) -> anyhow::Result<Observed> {
        let mut expected = self.expected()?;
        for (call, outcome) in self.calls.calls.iter().zip(&mut expected.calls) {
            if let Some(instead) = call.differs.as_ref().and_then(|differs| differs.instead.as_ref()) {
                outcome.raw = Some(instead.clone());
                outcome.upstream.clear();
            }
        }
        Ok(expected)
    }

    /// Whether a call differs from Envoy on purpose.
    pub fn differs(&self) -> bool {
        self.calls.calls.iter().any(|call| call.differs.is_some())
    }

    /// The recording.
    ///
    /// # Errors
    /// If it is missing or unreadable.
    pub fn expected(&self) -> anyhow::Result<Observed> {
        let path = self.dir.join("expected.yaml");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{}: record it with DIFFERENTIAL=record", path.display()))?;
        Ok(serde_saphyr::from_str(&text)?)
    }

    /// Writes the recording.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn record(&self, observed: &Observed) -> anyhow::Result<()> {
        std::fs::write(self.dir.join("expected.yaml"), serde_saphyr::to_string(observed)?)?;
        Ok(())
    }

    /// Makes the case's certificates in a folder.
    pub(super) fn certificates(&self, dir: &Path) -> anyhow::Result<Certificates> {
        let declared: Declared = serde_saphyr::from_str(&without_tokens(&self.text))?;
        let made = Certificates::make(&declared.certificates, dir)?;
        for (name, spec) in &declared.ocsp {
            ocsp::respond(name, spec, dir).with_context(|| name.clone())?;
        }
        Ok(made)
    }

    /// The calls with the tokens filled in.
    pub(super) fn calls(&self, tokens: &Tokens) -> anyhow::Result<Calls> {
        Ok(serde_saphyr::from_str(&tokens.fill_in(&self.text))?)
    }

    /// The bootstrap with the tokens filled in; the case's files are written to `tokens.dir`.
    pub(super) fn bootstrap(&self, tokens: &Tokens) -> anyhow::Result<String> {
        if let Some(whole) = &self.whole {
            return Ok(tokens.fill_in(whole));
        }
        let parts: Parts = serde_saphyr::from_str(&tokens.fill_in(&self.text))?;
        for (name, content) in &parts.files {
            std::fs::write(tokens.dir.join(name), content)?;
        }
        Ok(serde_json::to_string_pretty(&assembled(parts, tokens, &self.calls)?)?)
    }
}

/// What stands for the tokens in one run.
#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) ports: Vec<(String, u16)>,
    /// SHA-256 of certificates, by name.
    pub(super) hashes: Vec<(String, String)>,
    pub(super) dir: PathBuf,
    pub(super) log: PathBuf,
}

impl Tokens {
    fn fill_in(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, port) in &self.ports {
            text = text.replace(&format!("${{{name}}}"), &port.to_string());
        }
        for (name, hash) in &self.hashes {
            text = text.replace(&format!("${{sha256 {name}}}"), hash);
        }
        let dir = self.dir.display().to_string();
        text = text.replace("${log}", &self.log.display().to_string()).replace("${dir}", &dir);
        while let Some(start) = text.find("${file ") {
            let Some(end) = text[start..].find('}') else { break };
            let path = format!("{dir}/{}", &text[start + "${file ".len()..start + end]);
            text.replace_range(start..=start + end, &path);
        }
        text
    }
}

/// The text with a harmless number in place of each token, so that it parses before ports are known.
fn without_tokens(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let Some(end) = rest[start..].find('}') else { break };
        out.push_str(&rest[..start]);
        out.push('1');
        rest = &rest[start + end + 1..];
    }
    out + rest
}

fn assembled(parts: Parts, tokens: &Tokens, calls: &Calls) -> anyhow::Result<Value> {
    let first = calls.backends.first().map_or("none", |backend| backend.name());
    let mut manager = default_manager(tokens, parts.log_format.as_deref(), first);
    if let Some(routes) = parts.routes {
        manager["route_config"]["virtual_hosts"][0]["routes"] = routes;
    }
    if let Some(config) = parts.route_config {
        manager["route_config"] = config;
    }
    if let Some(filters) = manager["http_filters"].as_array_mut() {
        filters.splice(0..0, parts.filters);
    }
    merge(&mut manager, parts.connection_manager.unwrap_or_default());
    let mut listener = default_listener(manager);
    merge(&mut listener["filter_chains"][0], parts.filter_chain.unwrap_or_default());
    if let Some(socket) = parts.transport_socket {
        listener["filter_chains"][0]["transport_socket"] = socket;
    }
    merge(&mut listener, parts.listener.unwrap_or_default());
    let mut listeners = vec![listener];
    listeners.extend(parts.listeners);
    let mut bootstrap = json!({
        "admin": {"address": loopback(0)},
        "static_resources": {"listeners": listeners, "clusters": clusters(parts.clusters, tokens, calls)?},
    });
    merge(&mut bootstrap, parts.bootstrap.unwrap_or_default());
    Ok(bootstrap)
}

fn loopback(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

const LOG_FORMAT: &str = "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL% %RESPONSE_CODE% \
     %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER% %UPSTREAM_HOST% \
     %ROUTE_NAME%\n";

fn default_manager(tokens: &Tokens, log_format: Option<&str>, cluster: &str) -> Value {
    let mut format = log_format.unwrap_or(LOG_FORMAT).trim_end().to_owned();
    format.push('\n');
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "main",
        "access_log": [{
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": tokens.log,
                "log_format": {"text_format_source": {"inline_string": format}},
            },
        }],
        "route_config": {
            "name": "routes",
            "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}],
            }],
        },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    })
}

fn default_listener(manager: Value) -> Value {
    json!({
        "name": "main",
        "address": loopback(0),
        "filter_chains": [{
            "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
        }],
    })
}

fn default_cluster(name: &str, port: Option<u16>) -> Value {
    let mut cluster = json!({"name": name, "type": "STATIC", "connect_timeout": "1s"});
    if let Some(port) = port {
        let endpoints = json!([{"lb_endpoints": [{"endpoint": {"address": loopback(port)}}]}]);
        cluster["load_assignment"] = json!({"cluster_name": name, "endpoints": endpoints});
    }
    cluster
}

fn clusters(overrides: Vec<Value>, tokens: &Tokens, calls: &Calls) -> anyhow::Result<Vec<Value>> {
    let port = |name: &str| tokens.ports.iter().find(|(port, _)| port == name).map(|(_, port)| *port);
    let mut clusters = Vec::new();
    for cluster in overrides {
        let name = cluster["name"].as_str().context("a cluster has a name")?.to_owned();
        let mut whole = default_cluster(&name, port(&name));
        merge(&mut whole, cluster);
        clusters.push(whole);
    }
    for backend in &calls.backends {
        let name = backend.name();
        if !clusters.iter().any(|cluster| cluster["name"] == name) {
            clusters.push(default_cluster(name, port(name)));
        }
    }
    Ok(clusters)
}

fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (_, Value::Null) => {}
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match (value, base.get_mut(&key)) {
                    (Value::Null, _) => drop(base.remove(&key)),
                    (value, Some(old)) => merge(old, value),
                    (value, None) => drop(base.insert(key, value)),
                }
            }
        }
        (base, over) => *base = over,
    }
}
