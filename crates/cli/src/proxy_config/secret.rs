//! `meltemi proxy-config secret`: the certificates that a proxy has, whether they are good now, whose they are, and whom
//! of those that the proxy itself trusts they lead to. Of keys a dump says nothing.
//!
//! Source of names and columns: `istioctl proxy-config secret`; SAN, TRUST DOMAIN and TRUSTED BY are added.

mod certificates;
mod table;

use std::io;
use std::time::SystemTime;

use clap::Args;
use serde_json::{Map, Value, json};

use super::dump::{Sections, camel_case};
use super::source::{Dump, SourceArgs, dump};
use certificates::{Row, Status};

use crate::output::{Format, Outcome, print};

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
        let sections = Sections::read(dump)?;
        let section = sections.section("SecretsConfigDump");
        let rows = certificates::rows(&section, now);
        Ok(Secrets { from: sections.from, section, rows })
    }

    /// Whether all have come and are good now.
    pub(super) fn is_good(&self) -> bool {
        self.rows.iter().all(|row| row.status == Status::Active && row.valid != Some(false))
    }

    /// What the table shows, in colour on a terminal.
    pub(super) fn text(&self) -> String {
        let has_color = anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
        table::text(&self.from, &self.rows, has_color)
    }

    /// The secrets as istioctl prints them, and what the table shows.
    pub(super) fn whole(&self) -> Value {
        let mut whole = match camel_case(Value::Object(self.section.clone())) {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        whole.insert("certificates".to_owned(), json!(self.rows));
        Value::Object(whole)
    }
}

/// Prints them on standard output, in colour on a terminal.
pub(super) fn run(args: &SecretArgs) -> anyhow::Result<Outcome> {
    let secrets = Secrets::read(&dump(&args.source)?)?;
    print(args.output, &secrets.whole(), || secrets.text())?;
    Ok(if secrets.is_good() { Outcome::Fine } else { Outcome::Finding })
}

#[cfg(test)]
mod tests;
