use std::fs;

use clap::Parser;
use tempfile::TempDir;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: AnalyzeArgs,
}

const MESH: &str = "\
apiVersion: v1
kind: Service
metadata: {name: reviews, annotations: {sidecar.istio.io/nobody: x}}
spec: {selector: {app: reviews}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route: [{destination: {host: nobody}}]
";

/// The exit code and what is printed for a file.
fn run(text: &str, arguments: &[&str]) -> (ExitCode, String) {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("mesh.yaml"), text).unwrap();
    let path = directory.path().to_str().unwrap();
    let args = Cli::parse_from(["analyze", path].into_iter().chain(arguments.iter().copied())).args;
    let found = find(&args).unwrap();
    let mut out = Vec::new();
    found.write(args.output, false, &mut out).unwrap();
    (exit_code(&found.all, args.failure_threshold), String::from_utf8(out).unwrap().replace(path, "DIR"))
}

#[test]
fn findings_are_lines_as_of_istioctl() {
    let (code, text) = run(MESH, &[]);
    assert_eq!(code, ExitCode::from(79));
    let line =
        "Error [IST0101] (VirtualService default/reviews DIR/mesh.yaml:12) the host `nobody` is not known\n";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("Warning [IST0108] (Service default/reviews DIR/mesh.yaml:3)"), "{text}");
}

#[test]
fn json_has_the_keys_of_istioctl() {
    let (_, text) = run(MESH, &["-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let found = json.as_array().unwrap().iter().find(|message| message["code"] == "IST0101").unwrap();
    assert_eq!(found["level"], "Error");
    assert_eq!(found["origin"], "VirtualService default/reviews");
    assert_eq!(found["reference"], "DIR/mesh.yaml:12");
    assert_eq!(found["field"], "spec.http[0].route[0].destination.host");
    assert_eq!(found["documentationUrl"], "https://istio.io/latest/docs/reference/config/analysis/ist0101/");
    let (_, yaml) = run(MESH, &["-o", "yaml"]);
    assert!(yaml.contains("code: IST0101"), "{yaml}");
    let (_, table) = run(MESH, &["-o", "table"]);
    assert!(table.starts_with(" LEVEL"), "{table}");
}

#[test]
fn what_is_suppressed_does_not_count() {
    let (code, text) = run(MESH, &["-S", "IST0101=VirtualService *.default"]);
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(!text.contains("IST0101") && text.contains("IST0108"), "{text}");
    let annotated = MESH.replace(
        "{name: reviews}",
        "{name: reviews, annotations: {galley.istio.io/analyze-suppress: \"IST0101, IST0112\"}}",
    );
    let (code, text) = run(&annotated, &[]);
    assert_eq!(code, ExitCode::SUCCESS, "{text}");
}

#[test]
fn thresholds_are_for_the_exit_code_and_for_the_eye() {
    let (code, text) = run(MESH, &["--output-threshold", "Error", "-S", "IST0101=*"]);
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(text.starts_with("nothing found in 2 objects"), "{text}");
    let (code, _) = run(MESH, &["--failure-threshold", "warning", "-S", "IST0101=*"]);
    assert_eq!(code, ExitCode::from(79));
}
