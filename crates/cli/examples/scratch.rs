//! scratch
use clap::Parser;
#[derive(Parser)]
struct C { #[command(flatten)] a: meltemi_cli::ValidateArgs }
fn main() -> anyhow::Result<std::process::ExitCode> { let c = C::parse(); let t = std::time::Instant::now(); let r = meltemi_cli::validate(&c.a); eprintln!("{:?}", t.elapsed()); r }
