//! `meltemi proxy` without the rest of the binary.
use clap::Parser;

#[derive(Parser)]
enum CommandLine {
    Proxy(Box<meltemi_proxy::ProxyArgs>),
}

fn main() -> anyhow::Result<std::process::ExitCode> {
    let CommandLine::Proxy(args) = CommandLine::parse();
    meltemi_proxy::run(*args)
}
