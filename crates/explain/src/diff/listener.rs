//! Words for listeners: ports that open and close, and what they let in.

use meltemi_snapshot::{MtlsMode, Snapshot};
use meltemi_translate::{ProxyShape, Role};
use serde_json::Value as Json;

use super::fields::{differences, take};
use super::statement::Said;

/// What workloads of the proxy let in, before and after.
#[derive(Debug, Clone, Copy)]
pub(super) struct Modes([Option<MtlsMode>; 2]);

impl Modes {
    pub(super) fn of(sides: [&Snapshot; 2], shape: &ProxyShape) -> Modes {
        let is_sidecar = matches!(shape.role, Role::Sidecar { .. });
        Modes(sides.map(|side| {
            let policies = &side.config.peer_authentications;
            is_sidecar.then(|| policies.of_workload(&shape.namespace, &shape.labels).mode())
        }))
    }

    fn has_changed(self) -> bool {
        self.0[0] != self.0[1]
    }

    pub(super) fn said(self) -> Vec<Said> {
        let Modes([Some(before), Some(after)]) = self else { return Vec::new() };
        if before == after {
            return Vec::new();
        }
        let text = format!("what is let in changes from {} to {}", meaning(before), meaning(after));
        vec![Said::new(text)]
    }
}

fn meaning(mode: MtlsMode) -> &'static str {
    match mode.as_str() {
        "STRICT" => "mutual TLS alone (STRICT)",
        "PERMISSIVE" => "plaintext and mutual TLS (PERMISSIVE)",
        _ => "plaintext alone (DISABLE)",
    }
}

pub(super) fn words(name: &str, sides: &[Json; 2], modes: &Modes) -> Vec<Said> {
    let place = |side: &Json| {
        let socket = &side["address"]["socket_address"];
        match (socket["address"].as_str(), socket["port_value"].as_u64()) {
            (Some(ip), Some(port)) => format!("{ip}:{port}"),
            _ => name.to_owned(),
        }
    };
    match sides {
        [Json::Null, after] => return vec![Said::new(format!("{} opens", place(after)))],
        [before, Json::Null] => return vec![Said::new(format!("{} closes", place(before)))],
        _ => {}
    }
    let at = place(&sides[1]);
    let mut sides = sides.clone();
    let is_inbound = sides[1]["traffic_direction"] == "INBOUND";
    // How a connection is told apart and decrypted follows from the mode; where it goes then must be told if it changes.
    if modes.has_changed() && is_inbound {
        let [before, after] = ["filter_chains", "default_filter_chain"]
            .map(|field| take(&mut sides, field))
            .map(|pair| pair.map(|chains| filters(&chains)))
            .into_iter()
            .reduce(|[a, b], [c, d]| [[a, c].concat(), [b, d].concat()])
            .unwrap_or_default();
        let is_known = |filter: &Json| before.contains(filter);
        if !after.iter().all(is_known) {
            let changes = differences(&[Json::Array(before), Json::Array(after)]);
            return changes
                .into_iter()
                .map(|change| Said::new(format!("the listener {at}: filters{change}")))
                .collect();
        }
        let _sniffing = take(&mut sides, "listener_filters");
    }
    differences(&sides).into_iter().map(|change| Said::new(format!("the listener {at}: {change}"))).collect()
}

/// The filters of each chain.
fn filters(chains: &Json) -> Vec<Json> {
    let of = |chain: &Json| chain["filters"].clone();
    match chains {
        Json::Array(chains) => chains.iter().map(of).collect(),
        Json::Null => Vec::new(),
        chain => vec![of(chain)],
    }
}
