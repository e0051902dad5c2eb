//! `meltemi proxy-config all`: the clusters, listeners, routes, endpoints and secrets of a proxy, one after the other.

use clap::Args;
use serde_json::json;

use super::cluster::{ClusterFilter, clusters};
use super::dump::camel_case;
use super::endpoint::{EndpointFilter, endpoints};
use super::listener::{ListenerFilter, listeners};
use super::route::routes;
use super::secret::Secrets;
use super::{Sections, SourceArgs, View, bootstrap, source};
use crate::output::{Format, Outcome, print};

/// What `--help` says first.
pub(super) const ABOUT: &str = "Show everything that one proxy has: clusters, listeners, routes, endpoints and secrets.\n\n\
        The tables are those of the single commands. All are of one moment, since all are of one dump.";

/// Show everything that one proxy has.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
        meltemi proxy-config all frontend-v1-0\n  \
        meltemi pc all --admin 10.0.0.7:15000 -o json > before.json     keep it, to compare with later\n\n\
        Exit code: 0 when all is in force, 1 when something is refused, waits, or a certificate is not good,\n\
        2 when the proxy cannot be asked.")]
pub struct AllArgs {
    /// Which proxy.
    #[command(flatten)]
    pub source: SourceArgs,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

pub(super) fn run(args: &AllArgs) -> anyhow::Result<Outcome> {
    let dump = source::dump(&args.source)?;
    let sections = Sections::read(&dump)?;
    let secrets = Secrets::read(&dump)?;
    let views = [
        clusters(&sections, &ClusterFilter::default()),
        listeners(&sections, &ListenerFilter::default()),
        routes(&sections, None),
        endpoints(&dump, &EndpointFilter::default())?,
    ];
    let [clusters, listeners, routes, endpoints] = views.each_ref().map(|view| camel_case(json!(view.found)));
    let whole = json!({
        "bootstrap": bootstrap::bootstrap(&sections)["bootstrap"],
        "clusters": clusters,
        "listeners": listeners,
        "routes": routes,
        "endpoints": endpoints,
        "secrets": secrets.whole(),
    });
    print(args.output, &whole, || {
        let tables = views.iter().map(View::text).chain([secrets.text()]);
        tables.collect::<Vec<_>>().join("\n")
    })?;
    let is_fine = secrets.is_good() && views.iter().all(|view| view.trouble.is_empty());
    Ok(if is_fine { Outcome::Fine } else { Outcome::Finding })
}
