//! Plans of whole manifests: what runs, what the programs and the control plane are told, what is refused.
//! `UPDATE_GOLDEN=1 cargo test -p meltemi-local` rewrites the goldens.

use std::fmt::Write;
use std::path::Path;

use super::*;

fn objects(text: &str) -> Vec<Arc<Object>> {
    let (objects, findings) = meltemi_api::parse(text, &Arc::from("test.yaml"));
    let errors: Vec<_> = findings.iter().filter(|finding| finding.is_error()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    objects.into_iter().map(Arc::new).collect()
}

fn memory() -> Memory {
    Memory::new([127, 70, 3, 1].into(), 20_000)
}

fn planned(text: &str) -> (Plan, Vec<Diagnostic>) {
    plan(&objects(text), &mut memory())
}

fn codes_of(text: &str) -> Vec<(&'static str, String)> {
    planned(text).1.into_iter().map(|finding| (finding.code, finding.field)).collect()
}

fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{name} is stale: UPDATE_GOLDEN=1 rewrites it");
}

/// The plan as people would tell it: who runs where, with which variables.
fn describe(plan: &Plan) -> String {
    let mut text = String::new();
    let surroundings = Surroundings { path: "/state/bin:/usr/bin".to_owned() };
    for workload in &plan.workloads {
        for replica in &workload.replicas {
            let environment = environment(workload, replica, &surroundings);
            let words = workload.container.command.iter().chain(&workload.container.args);
            let command: Vec<String> = words.map(|word| expand(word, &environment)).collect();
            writeln!(text, "{} {}: {}", replica.name, replica.address, command.join(" ")).unwrap();
            for (name, value) in environment {
                writeln!(text, "  {name}={value}").unwrap();
            }
        }
    }
    for gateway in &plan.gateways {
        writeln!(text, "{} {} {:?}", gateway.name, gateway.address, gateway.labels).unwrap();
        for server in &gateway.servers {
            writeln!(text, "  {} {} {:?}", server.gateway, server.port, server.bind).unwrap();
        }
    }
    text
}

const BANK: &str = include_str!("../../testdata/bank.yaml");

#[test]
fn processes_and_their_environment() {
    let (plan, findings) = planned(BANK);
    assert_eq!(findings, []);
    golden("bank.processes.txt", &describe(&plan));
}

#[test]
fn what_the_control_plane_is_told() {
    let (plan, _) = planned(BANK);
    let text = documents(&plan, &BTreeSet::from(["ledger-1".to_owned()]));
    golden("bank.documents.yaml", &text);
    let (told, findings) = meltemi_api::parse(&text, &Arc::from("workloads.yaml"));
    assert_eq!(findings, [], "the control plane must be able to read it");
    assert_eq!(told.len(), 3 + 2);
}

#[test]
fn addresses_and_ports_do_not_depend_on_the_order_of_documents_nor_on_others() {
    let mut turned = objects(BANK);
    turned.reverse();
    assert_eq!(plan(&turned, &mut memory()), plan(&objects(BANK), &mut memory()));

    let mut kept = memory();
    let (before, _) = plan(&objects(BANK), &mut kept);
    let added = format!("{BANK}---\n{}", deployment("aaa", "replicas: 2", "command: [x]"));
    let (after, _) = plan(&objects(&added), &mut kept);
    assert_eq!(after.workloads[1..], before.workloads[..], "a newcomer moves nobody");
    let addresses: BTreeSet<_> = after
        .workloads
        .iter()
        .flat_map(|workload| &workload.replicas)
        .map(|replica| replica.address)
        .collect();
    assert_eq!(addresses.len(), 5);
}

#[test]
fn an_address_returns_when_its_owner_is_gone() {
    let mut memory = memory();
    let (first, second) = (memory.address("a-0").unwrap(), memory.address("b-0").unwrap());
    memory.keep_addresses(&BTreeSet::from(["b-0".to_owned()]));
    assert_eq!(memory.address("b-0"), Some(second));
    assert_eq!(memory.address("c-0"), Some(first));
}

fn deployment(name: &str, spec: &str, container: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n  selector: {{matchLabels: {{app: \
         {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      containers:\n      - name: main\n        \
         ports: [{{name: http, containerPort: 8080}}]\n        {container}\n"
    )
}

#[test]
fn what_cannot_run_here_is_said_with_its_field() {
    let path = |field: &str| format!("spec.template.spec.containers[0]{field}");
    let image = deployment("a", "replicas: 1", "image: nginx");
    assert_eq!(codes_of(&image), [("MEL0401", path(""))]);
    let port = "command: [x]\n        readinessProbe: {httpGet: {port: admin}}";
    assert_eq!(
        codes_of(&deployment("a", "replicas: 1", port)),
        [("MEL0404", path(".readinessProbe.httpGet.port"))]
    );
    let https = "command: [x]\n        livenessProbe: {httpGet: {port: http, scheme: HTTPS}}";
    assert_eq!(
        codes_of(&deployment("a", "replicas: 1", https)),
        [("MEL0405", path(".livenessProbe.httpGet.scheme"))]
    );
    let crowd = deployment("a", "replicas: 300", "command: [x]");
    assert_eq!(codes_of(&crowd), [("MEL0403", "spec.replicas".to_owned())]);
    assert_eq!(planned(&crowd).0.workloads[0].replicas.len(), crate::limits::MAX_INSTANCES);
}

fn gateway(name: &str, selector: &str, port: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}}}\nspec:\n  selector: {selector}\n  servers:\n  \
         - port: {{number: {port}, name: http, protocol: HTTP}}\n    hosts: ['*']\n---\n"
    )
}

#[test]
fn one_gateway_process_per_distinct_selector_that_no_deployment_has() {
    let text = [
        gateway("a", "{istio: ingressgateway}", 8080),
        gateway("b", "{istio: ingressgateway}", 8081),
        gateway("c", "{istio: ingressgateway, zone: east}", 8082),
        gateway("d", "{istio: egressgateway}", 8083),
        gateway("e", "{app: own}", 8084),
        deployment("own", "replicas: 1", "command: [x]"),
    ]
    .concat();
    let (plan, findings) = planned(&text);
    assert_eq!(findings, []);
    let ports =
        |index: usize| plan.gateways[index].servers.iter().map(|server| server.port).collect::<Vec<_>>();
    let names: Vec<_> = plan.gateways.iter().map(|gateway| gateway.name.as_str()).collect();
    assert_eq!(names, ["c-0", "d-0"], "c has all labels that a and b ask for; e is a Deployment's");
    assert_eq!((ports(0), ports(1)), (vec![8080, 8081, 8082], vec![8083]));
}

#[test]
fn two_gateway_processes_cannot_share_a_port() {
    let text = [gateway("a", "{istio: one}", 8080), gateway("b", "{istio: two}", 8080)].concat();
    assert_eq!(codes_of(&text), [("MEL0406", "spec.servers[0].port.number".to_owned())]);
}

#[test]
fn a_gateway_named_like_a_deployment_is_another_instance() {
    let text = [gateway("a", "{istio: one}", 8080), deployment("a", "replicas: 1", "command: [x]")].concat();
    let (plan, _) = planned(&text);
    assert_eq!((&*plan.gateways[0].name, &*plan.workloads[0].replicas[0].name), ("a-gateway-0", "a-0"));
}

fn sidecar(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: {name}, namespace: \
         {namespace}}}\nspec: {spec}\n"
    )
}

/// The Sidecar that `up` writes for the Deployment `client`, and the findings on the way.
fn written(sidecars: &[String]) -> (meltemi_api::istio::Sidecar, Vec<Diagnostic>) {
    let redis = "---\napiVersion: v1\nkind: Service\nmetadata: {name: redis}\n\
         spec: {selector: {app: redis}, ports: [{name: tcp, port: 6379}]}\n";
    let text = deployment("client", "replicas: 1", "command: [x]") + redis + &sidecars.concat();
    let (plan, findings) = planned(&text);
    let told = objects(&documents(&plan, &BTreeSet::new()));
    let Spec::Sidecar(sidecar) = &told[0].spec else { panic!("the Sidecar comes first") };
    assert_eq!(told[0].meta.created_unix_seconds, Some(0), "older than any other that selects the workload");
    (sidecar.clone(), findings)
}

fn hosts(sidecar: &meltemi_api::istio::Sidecar) -> Vec<(Option<u32>, &str)> {
    let entry = |listener: &'_ meltemi_api::istio::IstioEgressListener| {
        listener.port.as_ref().map(|port| port.number)
    };
    sidecar.egress.iter().map(|listener| (entry(listener), listener.hosts[0].as_str())).collect()
}

#[test]
fn the_sidecar_of_the_user_is_part_of_the_one_that_is_written() {
    use meltemi_api::istio::OutboundTrafficPolicyMode::{AllowAny, RegistryOnly};
    const REDIS: (Option<u32>, &str) = (Some(6379), "default/redis.default.svc.cluster.local");
    let mode = |sidecar: &meltemi_api::istio::Sidecar| sidecar.outbound_traffic_policy.as_ref()?.mode;

    let (none, _) = written(&[sidecar("other", "default", "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}")]);
    assert_eq!((mode(&none), hosts(&none)), (None, vec![REDIS, (None, "*/*")]));

    let root = sidecar("istio-system", "default", "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}");
    let (of_root, _) = written(std::slice::from_ref(&root));
    assert_eq!((mode(&of_root), hosts(&of_root)), (Some(RegistryOnly), vec![REDIS, (None, "*/*")]));
    assert_eq!(of_root.ingress.len(), 1);

    let own =
        sidecar("default", "z", "{egress: [{hosts: ['./*']}], outboundTrafficPolicy: {mode: ALLOW_ANY}}");
    let (of_namespace, _) = written(&[root.clone(), own.clone()]);
    assert_eq!((mode(&of_namespace), hosts(&of_namespace)), (Some(AllowAny), vec![REDIS, (None, "./*")]));

    let spec = "{workloadSelector: {labels: {app: client}}, ingress: [{port: {number: 99, protocol: HTTP, name: x}}], egress: \
        [{port: {number: 6379, protocol: TCP, name: x}, hosts: ['cache/*']}, {hosts: ['~/*']}]}";
    let (selected, findings) = written(&[root, own, sidecar("default", "a", spec)]);
    assert_eq!((mode(&selected), hosts(&selected)), (None, vec![(Some(6379), "cache/*"), (None, "~/*")]));
    assert_eq!(selected.ingress[0].port.number, 8080);
    let told: Vec<_> = findings.iter().map(|finding| (finding.code, finding.field.as_str())).collect();
    assert_eq!(told, [("MEL0413", "spec.ingress")]);
}

#[test]
fn a_change_of_a_sidecar_restarts_no_program() {
    let text = deployment("client", "replicas: 1", "command: [x]");
    let with = format!("{text}{}", sidecar("default", "a", "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}"));
    let (before, after) = (planned(&text).0, planned(&with).0);
    assert_ne!(before, after);
    assert_eq!(before.workloads[0].template(), after.workloads[0].template());
}

#[test]
fn references_to_variables() {
    let environment = BTreeMap::from([("PORT".to_owned(), "20000".to_owned())]);
    for (text, expected) in [
        ("--port=$(PORT)", "--port=20000"),
        ("$(PORT)$(PORT)", "2000020000"),
        ("$(NOBODY) $$(PORT) $PORT $", "$(NOBODY) $(PORT) $PORT $"),
        ("$(unclosed", "$(unclosed"),
        ("ß$(PORT)ß", "ß20000ß"),
    ] {
        assert_eq!(expand(text, &environment), expected);
    }
}

#[test]
fn suggested_commands_name_the_addresses_of_programs() {
    let text =
        BANK.replace("name: edge\n", "name: edge\n  annotations: {meltemi.dev/try: 'curl {ledger-1}/'}\n");
    let objects = objects(&text);
    let (suggested, _) = plan(&objects, &mut memory());
    let bind = "127.0.0.1".parse().unwrap();
    assert_eq!(try_lines(&objects, &suggested, bind), ["curl 127.70.3.4:20000/"]);
    let (plain, _) = planned(BANK);
    assert_eq!(try_lines(&[], &plain, bind), ["curl -i -H 'Host: bank.example.com' http://localhost:8080/"]);
}

#[test]
fn only_deployments_are_started() {
    let text = "
{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db}, spec: {template: {metadata: {labels: {app: db}}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: known}, spec: {containers: [{name: c}]}, status: {podIP: 10.0.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: wanted}, spec: {containers: [{name: c}]}}
";
    let (plan, findings) = planned(text);
    let told: Vec<_> =
        findings.iter().filter_map(|f| Some((f.code, f.object.as_ref()?.name.to_string()))).collect();
    assert_eq!(told, [("MEL0414", "db".to_owned()), ("MEL0414", "wanted".to_owned())]);
    assert!(plan.workloads.is_empty());
}
