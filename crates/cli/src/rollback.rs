//! `meltemi rollback`: the generations that the control plane keeps, and serving an earlier one. The files are never
//! touched; the next change of them ends it.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::control_plane::{ControlPlane, MeshArgs};
use crate::output::{Format, Outcome, conclude, counted, print, table};

/// Objects of one kind of change that are named; more are counted.
const MAX_NAMED: usize = 20;

/// List the last generations of the mesh, and serve an earlier one until the files change.
#[derive(Args, Clone, Debug)]
#[command(
    long_about = "List the last generations of the mesh, and serve an earlier one until the files change.\n\n\
        What was saved together is one generation. The control plane keeps the last ones (`--keep-generations`). Serving \
        one again goes to all proxies as any change does, clusters before the routes that name them, so no request \
        fails. Your files are not touched: mend them, and their next change is in force.\n\n\
        What runs stays as it is now: Deployments and their replicas, and Secrets, whose data is not kept.",
    after_help = "Examples:\n  \
        meltemi rollback                    which generations there are\n  \
        meltemi rollback 7 --show           what was changed in it, and what the files have changed since\n  \
        meltemi rollback 7                  serve it\n  \
        meltemi rollback --files            serve the files again\n\n\
        Exit code: 0 when it is done, 1 when the files are refused (--strict) and an earlier generation stands in,\n\
        2 when there is no such generation or the control plane cannot be asked."
)]
pub struct RollbackArgs {
    /// The generation to serve
    #[arg(value_name = "GENERATION", conflicts_with = "files")]
    pub generation: Option<u64>,

    /// Only show what is in it
    #[arg(long, requires = "generation")]
    pub show: bool,

    /// Serve the files again
    #[arg(long)]
    pub files: bool,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,

    /// Which control plane.
    #[command(flatten)]
    pub mesh: MeshArgs,
}

/// Lists, shows or serves generations. What cannot be done is exit code 2 with a message.
pub fn rollback(args: &RollbackArgs) -> ExitCode {
    conclude(run(args))
}

fn run(args: &RollbackArgs) -> anyhow::Result<Outcome> {
    let control_plane = ControlPlane::find(&args.mesh)?;
    match args.generation {
        Some(number) if args.show => {
            let shown = control_plane.get(&format!("/debug/generations/{number}"))?;
            print(args.output, &shown, || describe(&shown))?;
        }
        Some(number) => {
            let done = control_plane.post(&format!("/generations/serve?generation={number}"))?;
            print(args.output, &done, || {
                format!(
                    "generation {number} is served until the files change, as generation {}\n",
                    done["inForce"]
                )
            })?;
        }
        None if args.files => {
            let done = control_plane.post("/generations/serve")?;
            print(args.output, &done, || {
                format!("the files are served, as generation {}\n", done["inForce"])
            })?;
        }
        None => {
            let overview = control_plane.get("/debug/generations")?;
            print(args.output, &overview, || list(&overview))?;
            let is_refused = overview["isRefused"] == true;
            return Ok(if is_refused { Outcome::Finding } else { Outcome::Fine });
        }
    }
    Ok(Outcome::Fine)
}

fn list(overview: &Value) -> String {
    let serves = &overview["serves"];
    let generations = overview["generations"].as_array().map(Vec::as_slice).unwrap_or_default();
    let newest = generations.last().map(|record| &record["generation"]);
    let is_refused = overview["isRefused"] == true;
    let rows = generations.iter().rev().map(|record| {
        let number = &record["generation"];
        let is_served = if serves.is_null() { Some(number) == newest } else { serves == number };
        let state = if is_served { "in force" } else { "" };
        [
            number.to_string(),
            text(&record["time"]).to_owned(),
            text(&record["author"]).to_owned(),
            summary(record),
            state.to_owned(),
        ]
    });
    let mut told = table(["GENERATION", "TIME", "AUTHOR", "CHANGE", "STATE"], rows);
    if is_refused {
        told += "\nthe files have errors and are refused (--strict): `meltemi validate` shows them\n";
    } else if !serves.is_null() {
        told += "\nthe files are not in force: change them, or `meltemi rollback --files`\n";
    }
    told
}

/// `VirtualService default/reviews changed; 2 objects added`.
fn summary(record: &Value) -> String {
    let parts = ["added", "changed", "removed"].map(|what| match names(&record[what]).as_slice() {
        [] => None,
        [one] => Some(format!("{one} {what}")),
        several => Some(format!("{} {what}", counted(several.len(), "object"))),
    });
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn describe(shown: &Value) -> String {
    let mut told = format!(
        "generation {}, {} by {}\nits objects are in {}\n",
        shown["generation"],
        text(&shown["time"]),
        shown["author"].as_str().unwrap_or("nobody who is known"),
        text(&shown["file"]),
    );
    paragraph(&mut told, "\nchanged in it:\n", shown);
    paragraph(&mut told, "\nchanged in the files since then:\n", &shown["sinceThen"]);
    told
}

fn paragraph(told: &mut String, title: &str, change: &Value) {
    told.push_str(title);
    let before = told.len();
    for (what, sign) in [("added", '+'), ("changed", '~'), ("removed", '-')] {
        let names = names(&change[what]);
        for name in names.iter().take(MAX_NAMED) {
            // Writing to a string cannot fail.
            let _ok = writeln!(told, "  {sign} {name}");
        }
        if names.len() > MAX_NAMED {
            let _ok = writeln!(told, "  {sign} and {} more", names.len() - MAX_NAMED);
        }
    }
    if told.len() == before {
        told.push_str("  nothing\n");
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn names(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn overview(serves: &Value) -> Value {
        json!({"inForce": 9, "serves": serves, "isRefused": false, "generations": [
            {"generation": 3, "time": "2026-01-02T03:04:05Z", "author": "anna",
             "added": ["Service default/a", "Service default/b"], "changed": [], "removed": []},
            {"generation": 7, "time": "2026-01-02T04:04:05Z", "author": null,
             "added": [], "changed": ["VirtualService default/reviews"], "removed": []},
        ]})
    }

    #[test]
    fn the_newest_comes_first_and_what_is_served_is_marked() {
        let told = list(&overview(&Value::Null));
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[1].starts_with('7') && lines[1].ends_with("in force"), "{told}");
        assert!(lines[1].contains("VirtualService default/reviews changed"), "{told}");
        assert!(lines[2].contains("anna") && lines[2].contains("2 objects added"), "{told}");
        let told = list(&overview(&json!(3)));
        assert!(told.lines().nth(2).is_some_and(|line| line.ends_with("in force")), "{told}");
        assert!(told.contains("meltemi rollback --files"), "{told}");
    }

    #[test]
    fn what_a_generation_changed_is_listed_in_full_or_counted() {
        let many: Vec<String> = (0..25).map(|n| format!("Service default/s{n}")).collect();
        let shown = json!({"generation": 7, "time": "t", "author": "anna", "file": "/state/7.yaml",
            "added": many, "changed": [], "removed": [], "sinceThen": {"added": [], "changed": [], "removed": []}});
        let told = describe(&shown);
        assert!(told.contains("  + Service default/s0\n") && told.contains("  + and 5 more\n"), "{told}");
        assert!(told.ends_with("since then:\n  nothing\n"), "{told}");
    }
}
