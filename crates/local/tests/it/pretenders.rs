//! The other sides of `up`: small servers that say they are ready.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, ExitCode};

use clap::Parser;
use meltemi_local::{ReaperArgs, UpArgs};

#[derive(Parser)]
struct Up {
    #[command(flatten)]
    args: UpArgs,
}

#[derive(Parser)]
struct Reaper {
    #[command(flatten)]
    args: ReaperArgs,
}

pub(crate) fn up(arguments: &[String]) -> ExitCode {
    match meltemi_local::up(Up::parse_from(arguments).args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn reaper(arguments: &[String]) -> ExitCode {
    meltemi_local::reap(&Reaper::parse_from(arguments).args)
}

/// Answers every request with the status that `status` says at that moment.
fn serve(address: SocketAddr, status: impl Fn() -> &'static str) -> ExitCode {
    let listener = TcpListener::bind(address).expect("the address is free");
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let mut line = String::new();
        let _ = BufReader::new(&stream).read_line(&mut line);
        let _ = write!(stream, "HTTP/1.1 {}\r\nContent-Length: 0\r\n\r\n", status());
    }
    ExitCode::SUCCESS
}

pub(crate) fn control_plane(arguments: &[String]) -> ExitCode {
    let address = arguments.iter().find_map(|argument| argument.strip_prefix("--admin-address="));
    println!("the control plane speaks");
    serve(address.expect("given").parse().expect("an address"), || "200 OK")
}

pub(crate) fn proxy(arguments: &[String]) -> ExitCode {
    let path = arguments.iter().skip_while(|argument| *argument != "-c").nth(1).expect("-c FILE");
    let text = std::fs::read_to_string(path).expect("the bootstrap is there before the proxy");
    let bootstrap: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let listeners = bootstrap["static_resources"]["listeners"].as_array().expect("listeners");
    let socket = listeners
        .iter()
        .map(|listener| &listener["address"]["socket_address"])
        .find(|socket| socket["port_value"] == 15021)
        .expect("a readiness listener");
    let address = format!("{}:{}", socket["address"].as_str().expect("text"), socket["port_value"]);
    serve(address.parse().expect("an address"), || "200 OK")
}

/// A workload: not ready while a file called `sick` is there, and with a child that leaves its process group.
#[expect(clippy::zombie_processes, reason = "the child is a stray on purpose")]
pub(crate) fn program() -> ExitCode {
    let variable = |name| std::env::var(name).expect("given by up");
    let _stray = Command::new("setsid").args(["sleep", "600"]).spawn().expect("setsid is installed");
    println!("{} answers", variable("HOSTNAME"));
    let address = format!("{}:{}", variable("HOST"), variable("PORT"));
    serve(
        address.parse().expect("an address"),
        || if Path::new("sick").exists() { "503 No" } else { "200 OK" },
    )
}
