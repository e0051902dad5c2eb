use std::fs;

use clap::Parser;
use tempfile::TempDir;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: ValidateArgs,
}

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, ports: [{name: http, port: 80}]}
";

const BROKEN: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - rout: [{destination: {host: reviews}}]
";

const DANGLING: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings}
spec:
  hosts: [reviews]
  http:
  - route: [{destination: {host: nobody}}]
";

/// The exit code and what is printed for a directory with these files.
fn run(files: &[&str], output: &str) -> (ExitCode, String) {
    let directory = TempDir::new().unwrap();
    for (index, text) in files.iter().enumerate() {
        fs::write(directory.path().join(format!("{index}.yaml")), text).unwrap();
    }
    let path = directory.path().to_str().unwrap();
    let args = Cli::parse_from(["validate", path, "-o", output]).args;
    let report = check(&args).unwrap();
    let mut out = Vec::new();
    print(&report, args.output, false, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap().replace(path, "DIR");
    (validate(&args).unwrap(), text)
}

#[test]
fn sound_files_pass() {
    let (code, text) = run(&[SERVICE], "text");
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(text.ends_with("1 object, 0 errors, 0 warnings\n"), "{text}");
}

#[test]
fn a_mistake_is_shown_with_its_line() {
    let (code, text) = run(&[SERVICE, BROKEN], "text");
    assert_eq!(code, ExitCode::from(1));
    assert!(text.contains("error[MEL0106]: unknown field `rout`"), "{text}");
    assert!(text.contains("DIR/1.yaml:7:5"), "{text}");
    assert!(text.contains("did you mean `route`?"), "{text}");
    assert!(text.contains("1 object, 2 errors"), "{text}");
}

#[test]
fn a_reference_that_leads_nowhere_is_a_warning() {
    let (code, text) = run(&[SERVICE, DANGLING], "text");
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(text.contains("MEL0202"), "{text}");
    assert!(text.contains("spec.http[0].route[0].destination.host"), "{text}");
}

#[test]
fn scripts_get_json() {
    let (code, text) = run(&[BROKEN], "json");
    assert_eq!(code, ExitCode::from(1));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["errors"], 2);
    let first = &json["diagnostics"][0];
    let unknown =
        json["diagnostics"].as_array().unwrap().iter().find(|found| found["code"] == "MEL0106").unwrap();
    assert_eq!(first["object"]["name"], "reviews");
    assert_eq!(unknown["field"], "spec.http[0].rout");
    assert_eq!(unknown["location"]["line"], 7);
    assert_eq!(unknown["location"]["file"], "DIR/0.yaml");
}

#[test]
fn a_missing_path_is_trouble() {
    let args = Cli::parse_from(["validate", "/nonexistent/meltemi"]).args;
    assert_eq!(validate(&args).unwrap(), ExitCode::from(2));
}

#[test]
fn a_directory_without_files_is_trouble() {
    let directory = TempDir::new().unwrap();
    let args = Cli::parse_from(["validate", directory.path().to_str().unwrap()]).args;
    assert_eq!(validate(&args).unwrap(), ExitCode::from(2));
}

#[test]
fn columns_and_yaml_say_the_same() {
    let (code, text) = run(&[BROKEN], "table");
    assert_eq!(code, ExitCode::from(1));
    assert!(text.starts_with(" LEVEL"), "{text}");
    assert!(text.contains("MEL0106") && text.contains("DIR/0.yaml:7"), "{text}");
    assert!(text.ends_with("0 objects, 2 errors, 0 warnings\n"), "{text}");
    let (_, yaml) = run(&[BROKEN], "yaml");
    assert!(yaml.contains("errors: 2") && yaml.contains("code: MEL0106"), "{yaml}");
}
