//! `meltemi proxy-config log`: how much a proxy logs, and changing it. Source of the flags: `istioctl proxy-config log`.

use std::collections::BTreeMap;

use anyhow::{bail, ensure};
use clap::Args;
use serde_json::json;

use super::SourceArgs;
use super::source::change;
use crate::output::{Format, Outcome, print, table};

/// What `--help` says first.
pub(super) const ABOUT: &str = "Show how much one proxy logs, or change it until the proxy is started again.\n\n\
        Levels are trace, debug, info, warning, error, critical and off, for all loggers or for single ones.";

/// Levels from much to nothing.
const LEVELS: [&str; 7] = ["trace", "debug", "info", "warning", "error", "critical", "off"];

/// Show how much one proxy logs, or change it.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
        meltemi proxy-config log frontend-v1-0                           what each logger logs\n  \
        meltemi pc log frontend-v1-0 --level debug                       all of them\n  \
        meltemi pc log --admin 10.0.0.7:15000 --level http:debug,upstream:trace\n\n\
        Exit code: 0 when it is shown or changed, 2 when the proxy cannot be asked or has no such logger.")]
pub struct LogArgs {
    /// Which proxy.
    #[command(flatten)]
    pub source: SourceArgs,

    /// LEVEL for all loggers, or LOGGER:LEVEL, several with commas
    #[arg(long, value_name = "LEVEL")]
    pub level: Option<String>,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

pub(super) fn run(args: &LogArgs) -> anyhow::Result<Outcome> {
    ensure!(args.source.file.is_none(), "a file does not log: name a proxy, or its --admin HOST:PORT");
    let query = args.level.as_deref().map(query).transpose()?.unwrap_or_default();
    let told = change(&args.source, &format!("/logging{query}"))?;
    let loggers = loggers(&String::from_utf8_lossy(&told.text));
    if loggers.is_empty() {
        bail!("{} does not tell of its loggers", told.from);
    }
    print(args.output, &json!(loggers), || {
        table(["LOGGER", "LEVEL"], loggers.iter().map(|(name, level)| [name.clone(), level.clone()]))
    })?;
    Ok(Outcome::Fine)
}

/// What the admin interface is asked for.
fn query(levels: &str) -> anyhow::Result<String> {
    for each in levels.split(',') {
        let (logger, level) = each.rsplit_once(':').unwrap_or(("", each));
        ensure!(LEVELS.contains(&level), "`{level}` is no level; there are {}", LEVELS.join(", "));
        let is_name = logger.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter));
        ensure!(is_name, "`{logger}` is no name of a logger");
    }
    match levels.contains(':') {
        false => Ok(format!("?level={levels}")),
        true => {
            let is_mixed = levels.split(',').any(|each| !each.contains(':'));
            ensure!(!is_mixed, "say a level for all loggers, or LOGGER:LEVEL for each");
            Ok(format!("?paths={levels}"))
        }
    }
}

/// Loggers with their levels, of lines `  NAME: LEVEL`.
fn loggers(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| {
        let (name, level) = line.strip_prefix("  ")?.rsplit_once(": ")?;
        Some((name.trim().to_owned(), level.trim().to_owned()))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_asked_for_as_the_admin_interface_takes_them() {
        assert_eq!(query("debug").unwrap(), "?level=debug");
        assert_eq!(query("http:debug,upstream:trace").unwrap(), "?paths=http:debug,upstream:trace");
        for (levels, told) in
            [("loud", "is no level"), ("http:debug,info", "for all loggers"), ("a&b:info", "no name")]
        {
            assert!(query(levels).unwrap_err().to_string().contains(told), "{levels}");
        }
    }

    #[test]
    fn loggers_are_read() {
        let told = loggers("active loggers:\n  admin: warning\n  http: debug\n");
        assert_eq!(
            told,
            BTreeMap::from([("admin".into(), "warning".into()), ("http".into(), "debug".into())])
        );
    }
}
