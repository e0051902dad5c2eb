//! Where a proxy's configuration dump comes from: its admin interface, which is named or found by the name of an instance
//! of a running `meltemi up`, or a file. Leaves out what is in it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use meltemi_local::{RunningProxy, running_proxies};

use crate::ask::{self, MAX_BYTES, with_port};

/// The port of admin interfaces of sidecars and gateways; of one that is named without a port.
const ADMIN_PORT: u16 = 15000;

/// Which proxy.
#[derive(Args, Clone, Debug)]
pub struct SourceArgs {
    /// A proxy of a running `meltemi up`, as its table names it: frontend-v1-0, cart-0.shop
    #[arg(value_name = "PROXY", conflicts_with_all = ["admin", "file"])]
    pub proxy: Option<String>,

    /// The admin interface of any proxy, ours or a stock Envoy
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "file")]
    pub admin: Option<String>,

    /// A file with a proxy's /config_dump; - is standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// The state directory of the mesh, for meshes that run with one of their own
    #[arg(long, value_name = "DIR", env = "MELTEMI_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
}

/// A configuration dump.
#[derive(Debug)]
pub(super) struct Dump {
    /// Whose it is, for messages.
    pub(super) from: String,
    /// JSON.
    pub(super) text: Vec<u8>,
}

/// Gets the dump.
///
/// # Errors
/// With what to do next, if there is no such proxy, it does not answer, or the file cannot be read.
pub(super) fn dump(args: &SourceArgs) -> anyhow::Result<Dump> {
    match &args.file {
        Some(path) => read(path),
        None => page(args, "/config_dump?include_eds"),
    }
}

/// Gets a page of the proxy's admin interface.
///
/// # Errors
/// With what to do next, if there is no such proxy, or it does not answer.
pub(super) fn page(args: &SourceArgs, path: &str) -> anyhow::Result<Dump> {
    of_proxy(args, path, ask::get)
}

/// Asks the proxy's admin interface for a change.
///
/// # Errors
/// As of [`page`].
pub(super) fn change(args: &SourceArgs, path: &str) -> anyhow::Result<Dump> {
    of_proxy(args, path, ask::post)
}

/// How an address is asked for a path.
type Ask = fn(&str, &str) -> anyhow::Result<Vec<u8>>;

fn of_proxy(args: &SourceArgs, path: &str, ask: Ask) -> anyhow::Result<Dump> {
    let get = |name: &str, address: &str, path: &str| -> anyhow::Result<Dump> {
        let text = ask(address, path).with_context(|| format!("{name} does not tell"))?;
        Ok(Dump { from: name.to_owned(), text })
    };
    if let Some(admin) = &args.admin {
        return get(admin, &with_port(admin, ADMIN_PORT), path).context(
            "is it a proxy's admin interface (`admin.address` in its bootstrap)? `--admin HOST:PORT` names another one",
        );
    }
    let proxies = running_proxies(args.state_dir.as_deref())?;
    let proxy = choose(&proxies, args.proxy.as_deref())?;
    get(&proxy.name, &proxy.admin.to_string(), path).with_context(|| {
        format!("its log is in {}", proxy.state_dir.join("logs").join(&proxy.name).display())
    })
}

/// The proxy of this name.
fn choose<'p>(proxies: &'p [RunningProxy], name: Option<&str>) -> anyhow::Result<&'p RunningProxy> {
    const ELSEWHERE: &str = "one that runs elsewhere is named by --admin HOST:PORT, a dump by --file";
    if proxies.is_empty() {
        bail!("no mesh of `meltemi up` runs here: {ELSEWHERE}");
    }
    let names = || proxies.iter().map(|proxy| proxy.name.as_str()).collect::<Vec<_>>().join(", ");
    let Some(name) = name else { bail!("say which proxy: {}; {ELSEWHERE}", names()) };
    // As istioctl's users name pods: with the namespace, also the default one.
    let short = name.strip_suffix(".default").unwrap_or(name);
    let mut found = proxies.iter().filter(|proxy| proxy.name == short);
    match (found.next(), found.next()) {
        (Some(proxy), None) => Ok(proxy),
        (None, _) => bail!("no proxy {name} runs here, only {}; {ELSEWHERE}", names()),
        (Some(one), Some(other)) => bail!(
            "{name} runs in several meshes: say which one by --state-dir {} or --state-dir {}",
            one.state_dir.display(),
            other.state_dir.display()
        ),
    }
}

fn read(path: &Path) -> anyhow::Result<Dump> {
    let shown = path.display();
    let reader: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin().lock()),
        false => Box::new(std::fs::File::open(path).with_context(|| format!("open {shown}"))?),
    };
    let mut text = Vec::new();
    reader.take(MAX_BYTES as u64 + 1).read_to_end(&mut text).with_context(|| format!("read {shown}"))?;
    ensure!(text.len() <= MAX_BYTES, "{shown} is larger than {} MiB", MAX_BYTES >> 20);
    Ok(Dump { from: shown.to_string(), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(name: &str, state_dir: &str) -> RunningProxy {
        RunningProxy {
            name: name.into(),
            admin: "127.1.1.2:15000".parse().unwrap(),
            state_dir: state_dir.into(),
        }
    }

    #[test]
    fn a_proxy_is_chosen_by_name_or_told_how() {
        let proxies =
            [proxy("cart-0.shop", "/a"), proxy("web-0", "/a"), proxy("web-1", "/a"), proxy("web-1", "/b")];
        assert_eq!(choose(&proxies, Some("web-0")).unwrap().name, "web-0");
        assert_eq!(choose(&proxies, Some("web-0.default")).unwrap().name, "web-0");
        assert_eq!(choose(&proxies, Some("cart-0.shop")).unwrap().name, "cart-0.shop");
        for (name, told) in [
            (None, "say which proxy: cart-0.shop, web-0, web-1"),
            (Some("nobody"), "only cart-0.shop, web-0"),
            (Some("web-1"), "--state-dir /a or --state-dir /b"),
        ] {
            let refusal = choose(&proxies, name).unwrap_err().to_string();
            assert!(refusal.contains(told), "{refusal}");
        }
        assert!(choose(&[], Some("web-0")).unwrap_err().to_string().contains("--admin HOST:PORT"));
    }
}
