//! `meltemi proxy-config secret`: the certificates that a proxy has, whether they are good now, whose they are, and whom
//! of those that the proxy itself trusts they lead to. Of keys a dump says nothing.
//!
//! Source of names and columns: `istioctl proxy-config secret`; SAN, TRUST DOMAIN and TRUSTED BY are added.

mod certificates;
mod table;

use std::io::{self, Write};
use std::time::SystemTime;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use super::source::{Dump, SourceArgs};
use certificates::{Row, Status};

use crate::output::Format;

/// What `--help` says first.
pub(super) const ABOUT: &str = "Show the certificates and the trust of one proxy.\n\n\
        Each certificate is a line: the proxy's own (Cert Chain), those between it and a root (Issuer), and those that \
        the proxy trusts (CA). VALID CERT says whether now is between NOT BEFORE and NOT AFTER; TRUSTED BY names the \
        CAs of this proxy that the chain leads to. A secret that the proxy waits for is WARMING: its listeners refuse \
        TLS, or its clusters answer 503, until it comes. Private keys are not shown; a proxy does not tell them.";

/// Show the certificates and the trust of one proxy.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
        meltemi proxy-config secret frontend-v1-0            a sidecar of the running `meltemi up`\n  \
        meltemi pc secret --admin 10.0.0.7:15000             any proxy, also a stock Envoy\n  \
        curl -s ADDRESS:15000/config_dump | meltemi pc secret -f -\n  \
        meltemi pc secret frontend-v1-0 -o json | jq -r '.certificates[] | [.name, .notAfter] | @tsv'\n\n\
        json and yaml are the secrets of the dump as istioctl prints them (keys in camelCase), and `certificates`: what\n\
        the table shows.\n\n\
        Exit code: 0 when all is good, 1 when a certificate is expired, not valid yet or broken, or a secret has not\n\
        come, 2 when the proxy cannot be asked.")]
pub struct SecretArgs {
    /// Which proxy.
    #[command(flatten)]
    pub source: SourceArgs,

    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// The secrets of one proxy.
#[derive(Debug)]
pub(super) struct Secrets {
    from: String,
    /// `SecretsConfigDump`.
    section: Map<String, Value>,
    rows: Vec<Row>,
}

impl Secrets {
    /// Finds them in a dump.
    ///
    /// # Errors
    /// If it is no configuration dump.
    pub(super) fn read(dump: &Dump) -> anyhow::Result<Secrets> {
        Secrets::read_at(dump, SystemTime::now())
    }

    fn read_at(dump: &Dump, now: SystemTime) -> anyhow::Result<Secrets> {
        let from = dump.from.clone();
        let whole: Value = serde_json::from_slice(&dump.text)
            .with_context(|| format!("{from} is no JSON, and so no configuration dump"))?;
        let section = section(whole).with_context(|| {
            format!("{from} is no configuration dump: it is what /config_dump of a proxy says")
        })?;
        let rows = certificates::rows(&section, now);
        Ok(Secrets { from, section, rows })
    }

    /// Whether all have come and are good now.
    pub(super) fn is_good(&self) -> bool {
        self.rows.iter().all(|row| row.status == Status::Active && row.valid != Some(false))
    }

    /// The secrets as istioctl prints them, and what the table shows.
    fn whole(&self) -> Value {
        let mut whole = match camel_case(Value::Object(self.section.clone())) {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        whole.insert("certificates".to_owned(), json!(self.rows));
        Value::Object(whole)
    }
}

/// The secrets of a whole dump. A proxy that has none says so by an empty section, or none.
fn section(mut dump: Value) -> anyhow::Result<Map<String, Value>> {
    let Some(Value::Array(configs)) = dump.get_mut("configs").map(Value::take) else {
        bail!("it has no `configs`");
    };
    let is_secrets = |config: &Value| {
        config["@type"].as_str().is_some_and(|kind| kind.ends_with("envoy.admin.v3.SecretsConfigDump"))
    };
    match configs.into_iter().find(is_secrets) {
        Some(Value::Object(section)) => Ok(section),
        _ => Ok(Map::new()),
    }
}

/// Prints them on standard output, in colour on a terminal.
///
/// # Errors
/// When standard output cannot be written to.
pub(super) fn print(secrets: &Secrets, format: Format) -> anyhow::Result<()> {
    let stdout = io::stdout();
    let has_color = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
    let mut out = stdout.lock();
    match format {
        Format::Table => out.write_all(table::text(&secrets.from, &secrets.rows, has_color).as_bytes())?,
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&secrets.whole())?)?,
        Format::Yaml => out.write_all(serde_saphyr::to_string(&secrets.whole())?.as_bytes())?,
    }
    out.flush()?;
    Ok(())
}

/// Keys as protobuf JSON has them by default; a proxy's dump has those of the `.proto` files.
fn camel_case(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (camel_case_name(&name), camel_case(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(camel_case).collect(),
        plain => plain,
    }
}

fn camel_case_name(name: &str) -> String {
    let mut words = name.split('_');
    let mut joined = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        joined.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        joined.push_str(letters.as_str());
    }
    joined
}

#[cfg(test)]
mod tests;
