//! The example's manifests are what `kubectl apply` takes, by the schemas of Kubernetes itself.

use std::process::Command;

use meltemi_e2e::peers;

/// Validates every Kubernetes object of the files given, strictly (unknown fields are errors).
const VALIDATE: &str = r#"
import sys, yaml, kubernetes_validate
objects = [o for path in sys.argv[1:] for o in yaml.safe_load_all(open(path)) if o]
native = [o for o in objects if "istio.io" not in o["apiVersion"]]
for o in native:
    kubernetes_validate.validate(o, "1.30", strict=True)
print(len(native))
"#;

#[test]
fn the_shop_is_valid_for_kubernetes() {
    let Some(packages) = peers::python_package("kubernetes_validate") else { return };
    let folder = std::fs::read_dir(peers::repository().join("examples/shop")).expect("the example is there");
    let files = folder.map(|entry| entry.expect("readable").path());
    let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    let mut command = Command::new("python3");
    let output = command.env("PYTHONPATH", packages).args(["-c", VALIDATE]).args(&files).output();
    let output = output.expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let count: usize = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number");
    assert!(count >= 12, "Services, Deployments and ServiceAccounts of three services: {count}");
}
