//! scratch
use clap::Parser;
#[derive(Parser)]
struct C {
    #[command(flatten)]
    a: meltemi_control::ControlPlaneArgs,
}
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<std::process::ExitCode> {
    meltemi_control::run(C::parse().a).await
}
