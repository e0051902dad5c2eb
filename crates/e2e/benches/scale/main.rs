//! A control plane with many services and many proxies: from a change of a file to the last ACK, bytes pushed, CPU, memory.
//!
//!     cargo bench -p meltemi-e2e --bench scale
//!
//! `SCALE_SERVICES=100,1000`, `SCALE_CLIENTS=10,100`, `SCALE_MODES=delta,sotw` and `SCALE_ROUNDS=5` narrow it. The clients are
//! simulated (`client.rs`); the control plane is a process of its own (`$MELTEMI_BIN`, else the one that cargo built), so that its
//! CPU time and memory are its own. A change is an edit of a file, so the times include noticing and reading it.

mod client;
#[path = "../proxy/machine.rs"]
#[expect(dead_code, reason = "the other benchmark uses the rest")]
mod machine;
mod measure;
mod report;
mod wire;
mod world;

use meltemi_e2e::peers;

use crate::measure::Setup;

fn main() -> anyhow::Result<()> {
    machine::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let rounds = numbers("SCALE_ROUNDS", &[10])[0];
    let modes = std::env::var("SCALE_MODES").unwrap_or_else(|_| "delta,sotw".to_owned());
    let mut results = Vec::new();
    for services in numbers("SCALE_SERVICES", &[100, 1_000, 5_000]) {
        for clients in numbers("SCALE_CLIENTS", &[10, 100, 1_000]) {
            for mode in modes.split(',') {
                let setup = Setup { services, clients, is_delta: mode == "delta", rounds };
                eprintln!("{services} services, {clients} clients, {mode}");
                let result = runtime.block_on(measure::run(&setup))?;
                eprint!("{}", report::lines(&result));
                results.push(result);
            }
        }
    }
    let folder = peers::repository().join("bench-results");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("scale.json"), serde_json::to_string_pretty(&results)?)?;
    let table = report::table(&results);
    std::fs::write(folder.join("scale.md"), &table)?;
    print!("{table}");
    Ok(())
}

/// The numbers of a variable; those given when it is not set.
fn numbers(name: &str, without: &[usize]) -> Vec<usize> {
    let text = std::env::var(name).unwrap_or_default();
    let numbers: Vec<usize> = text.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    if numbers.is_empty() { without.to_vec() } else { numbers }
}
