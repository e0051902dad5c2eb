//! The agreement between the planes: what the API accepts can be translated, and what translation sends, our own proxy
//! takes. An accepted field that ends in a refused update would leave the user with a mesh that stands still.

mod files;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use meltemi_api::{Diagnostic, Kind, Object, Severity, codes};
use meltemi_compile::Rejection;
use meltemi_e2e::peers;
use meltemi_envoy::config::cluster::v3::Cluster;
use meltemi_envoy::config::endpoint::v3::ClusterLoadAssignment;
use meltemi_envoy::config::listener::v3::Listener;
use meltemi_envoy::config::route::v3::RouteConfiguration;
use meltemi_envoy::json::Codec;
use meltemi_snapshot::{Inputs, Snapshot};
use meltemi_translate::{ISTIO_STATS, Options, ProxyShape, Resources, Role, translate};
use serde_json::{Value, json};

const SIDECAR: &str = "
id: sidecar~127.1.2.2~client-0.default~default.svc.cluster.local
metadata: {NAMESPACE: default, INSTANCE_IPS: 127.1.2.2, INTERCEPTION_MODE: NONE, HTTP_PROXY_PORT: '15002', LABELS: {app: client}}
extensions: [{name: istio.metadata_exchange}, {name: istio.stats}]";
const GATEWAY: &str = "
id: router~127.1.2.9~gateway-0.default~default.svc.cluster.local
metadata: {NAMESPACE: default, MELTEMI_GATEWAY_BIND: 127.0.0.1, LABELS: {istio: ingressgateway}}
extensions: [{name: istio.metadata_exchange}, {name: istio.stats}]";

/// The kinds whose fields become resources.
const KINDS: &[Kind] =
    &[Kind::VirtualService, Kind::DestinationRule, Kind::Gateway, Kind::ServiceEntry, Kind::Sidecar];

/// Cases with TLS towards servers, which the proxy does not take yet.
const TLS_CASES: &[&str] = &["tls-origination"];

/// Fields of TLS towards servers.
fn is_client_tls(kind: Kind, path: &str) -> bool {
    kind == Kind::DestinationRule && path.contains("tls.")
}

/// Fields that the API reads and that mean nothing by its own documentation.
const MEANINGLESS: &[&str] = &["port.targetPort", "ingress[].tls.httpsRedirect"];

/// The sound objects of a text.
fn objects(text: &str) -> Vec<Arc<Object>> {
    let (objects, diagnostics) = meltemi_api::parse(text, &"input.yaml".into());
    // Fields with a newer form are in force all the same.
    let is_old = |d: &Diagnostic| d.code == codes::DEPRECATED.id;
    let broken: Vec<_> = diagnostics.iter().filter(|d| d.severity > Severity::Info && !is_old(d)).collect();
    assert!(broken.is_empty(), "the fixture is broken: {broken:#?}");
    objects.into_iter().map(Arc::new).collect()
}

/// The shape of a node of our own proxy.
fn shape(node: &str) -> ProxyShape {
    let shape = ProxyShape::from_node(&Codec::new().parse(node).expect("a node")).expect("a shape");
    let types = meltemi_compile::EXTENSION_TYPES.iter().map(|name| (*name).to_owned());
    ProxyShape { extension_types: Some(types.collect()), ..shape }
}

/// What our proxy says against the resources.
fn rejections(resources: &Resources) -> Vec<Rejection> {
    let mut found = Vec::new();
    let files = files::Files::new();
    for resource in &resources.clusters {
        let message = resource.body.unpack::<Cluster>().expect("a cluster");
        found.extend(meltemi_compile::cluster_with(&message, &files).err());
    }
    for resource in &resources.endpoints {
        let message = resource.body.unpack::<ClusterLoadAssignment>().expect("endpoints");
        found.extend(meltemi_compile::endpoints(&message).err());
    }
    for resource in &resources.listeners {
        let message = resource.body.unpack::<Listener>().expect("a listener");
        found.extend(meltemi_compile::listener_with(&message, &files).err());
    }
    for resource in &resources.routes {
        let message = resource.body.unpack::<RouteConfiguration>().expect("routes");
        found.extend(meltemi_compile::route_table(&message).err());
    }
    found.into_iter().flatten().collect()
}

/// Translates for each node and lets the proxy judge.
fn assert_taken(what: &str, objects: Vec<Arc<Object>>, shapes: &[ProxyShape]) {
    let (snapshot, _) = Snapshot::build(&Inputs { objects });
    let options = Options { access_log_file: Some("/dev/stdout".to_owned()), ..Options::default() };
    for shape in shapes {
        let resources = translate(&snapshot, shape, &options);
        assert!(!resources.clusters.is_empty(), "{what}: nothing was translated");
        let refused = rejections(&resources);
        assert!(refused.is_empty(), "{what}: {refused:#?}");
    }
}

fn yaml_files(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            text += "---\n";
            text += &fs::read_to_string(path).expect("a text");
        }
    }
    text
}

#[test]
fn the_proxy_takes_every_case_of_translation() {
    let root = peers::repository().join("crates/translate/testdata");
    let mut cases = 0;
    for entry in fs::read_dir(root).unwrap() {
        let case = entry.unwrap().path();
        if TLS_CASES.iter().any(|name| case.ends_with(name)) {
            continue;
        }
        let read = |name: &str| fs::read_to_string(case.join(name)).unwrap();
        let (objects, _) = meltemi_api::parse(&read("input.yaml"), &"input.yaml".into());
        let mut own = shape(&read("node.yaml"));
        // Our proxy names no other extension, so it is sent no other.
        own.extensions.retain(|extension| extension == ISTIO_STATS);
        let mut shapes = vec![shape(SIDECAR), shape(GATEWAY)];
        // What a gRPC program takes is no proxy's.
        shapes.extend((own.role != Role::Proxyless).then_some(own));
        assert_taken(&case.display().to_string(), objects.into_iter().map(Arc::new).collect(), &shapes);
        cases += 1;
    }
    assert!(cases >= 10, "only {cases} cases");
}

#[test]
fn the_proxy_takes_the_shop() {
    let frontend = SIDECAR.replace("{app: client}", "{app: frontend, version: v1}");
    let shapes = [shape(&frontend), shape(SIDECAR), shape(GATEWAY)];
    assert_taken("examples/shop", objects(&yaml_files(&peers::repository().join("examples/shop"))), &shapes);
}

fn everything() -> Vec<Arc<Object>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/agreement/everything.yaml");
    objects(&fs::read_to_string(path).expect("the fixture"))
}

#[test]
fn the_proxy_takes_every_accepted_field() {
    assert_taken("everything.yaml", everything(), &[shape(SIDECAR), shape(GATEWAY)]);
}

/// Routes with values at the edge of what has a meaning.
const ODD_ROUTES: &[&str] = &[
    "{rewrite: {uriRegexRewrite: {match: /a, rewrite: '\\5'}}, route: [{destination: {host: a}}]}",
    "{rewrite: {uriRegexRewrite: {match: '(', rewrite: /a}}, route: [{destination: {host: a}}]}",
    "{rewrite: {authority: 'a b'}, route: [{destination: {host: a}}]}",
    "{rewrite: {authority: \"a\\nb\"}, route: [{destination: {host: a}}]}",
    "{rewrite: {uri: \"/a\\nb\"}, route: [{destination: {host: a}}]}",
    "{redirect: {uri: \"/a\\nb\"}}",
    "{redirect: {prefixRewrite: \"/a\\rb\"}}",
    "{redirect: {authority: \"a\\nb\"}}",
    "{directResponse: {status: 101}}",
    "{directResponse: {status: 600}}",
    "{match: [{uri: {regex: '(?=a)'}}], directResponse: {status: 200}}",
    "{match: [{uri: {prefix: ''}}], directResponse: {status: 200}}",
    "{match: [{uri: {exact: '/a?b'}}], directResponse: {status: 200}}",
    "{match: [{uri: {exact: ''}}], directResponse: {status: 200}}",
    "{match: [{headers: {x-a: {prefix: ''}}, queryParams: {q: {prefix: ''}}}], directResponse: {status: 200}}",
    "{match: [{method: {prefix: ''}, authority: {exact: ''}}], directResponse: {status: 200}}",
    "{headers: {request: {set: {x-a: '100%'}}}, directResponse: {status: 200}}",
    "{headers: {request: {set: {x-a: '%NO_SUCH_THING%'}}}, directResponse: {status: 200}}",
    "{headers: {response: {add: {x-a: '%REQ(x-b)%'}}}, directResponse: {status: 200}}",
    "{headers: {request: {set: {x-a: ''}}}, directResponse: {status: 200}}",
    "{headers: {request: {set: {host: 'a b'}}}, route: [{destination: {host: a}}]}",
    "{headers: {request: {add: {host: x}}}, route: [{destination: {host: a}}]}",
    "{headers: {response: {set: {host: x}}}, route: [{destination: {host: a}}]}",
    "{headers: {response: {add: {':authority': x}}}, route: [{destination: {host: a}}]}",
    "{headers: {request: {set: {x-a: '%REQ(:path)% %REQ(x-b):5% %START_TIME%'}}}, directResponse: {status: 200}}",
    "{headers: {request: {set: {x-a: '%REQ(x-b?x-c)%'}}}, directResponse: {status: 200}}",
    "{headers: {request: {set: {x-a: '%RESP(:path)% %PROTOCOL:5%'}}}, directResponse: {status: 200}}",
    "{headers: {request: {remove: [host, ':path']}}, route: [{destination: {host: a}}]}",
    "{headers: {request: {set: {':authority': x}}}, route: [{destination: {host: a}}]}",
    "{retries: {attempts: 1, retryOn: 'no-such-thing'}, route: [{destination: {host: a}}]}",
    "{retries: {attempts: 1, retryOn: 'retriable-headers,envoy-ratelimited'}, route: [{destination: {host: a}}]}",
    "{retries: {attempts: 1, retryOn: '999'}, route: [{destination: {host: a}}]}",
    "{retries: {attempts: 1, backoff: 1us}, route: [{destination: {host: a}}]}",
    "{fault: {abort: {httpStatus: 600, percentage: {value: 1}}}, route: [{destination: {host: a}}]}",
    "{fault: {abort: {httpStatus: 199, percentage: {value: 1}}}, route: [{destination: {host: a}}]}",
    "{fault: {abort: {grpcStatus: OK}}, route: [{destination: {host: a}}]}",
    "{fault: {delay: {fixedDelay: 0s, percentage: {value: 100}}}, route: [{destination: {host: a}}]}",
    "{fault: {delay: {percentage: {value: 0.00001}}}, route: [{destination: {host: a}}]}",
    "{corsPolicy: {}, route: [{destination: {host: a}}]}",
    "{corsPolicy: {allowOrigins: [{}, {prefix: ''}, {regex: '*'}]}, route: [{destination: {host: a}}]}",
    "{corsPolicy: {allowOrigin: [''], maxAge: 1ms}, route: [{destination: {host: a}}]}",
    "{corsPolicy: {allowHeaders: ['*', 'a b'], exposeHeaders: [\"x\\ny\"]}, redirect: {uri: /a}}",
    "{match: [{headers: {'@request.auth.claims': {exact: a}}}], directResponse: {status: 200}}",
    "{match: [{headers: {'@request.auth.claims[a][b]': {}}}], directResponse: {status: 200}}",
    "{match: [{withoutHeaders: {x-a: {regex: '*'}, x-b: {regex: '.*'}}}], directResponse: {status: 200}}",
    "{match: [{queryParams: {a: {regex: '*'}}, uri: {regex: '*'}}], directResponse: {status: 200}}",
    "{match: [{statPrefix: \"a\\nb\"}], directResponse: {status: 200}}",
    "{delegate: {name: nowhere}, directResponse: {status: 200}}",
    "{mirrors: [{destination: {host: a}, percentage: {value: 0.00001}}], route: [{destination: {host: a}}]}",
    "{retries: {attempts: 1, retryRemoteLocalities: true, perTryTimeout: 0s}, route: [{destination: {host: a}}]}",
    "{timeout: 1000000h, route: [{destination: {host: a}}]}",
    "{route: [{destination: {host: a}, weight: 2000000000}, {destination: {host: b}, weight: 2000000000}]}",
];

/// A value that means nothing is told to its author, not to the proxies.
#[test]
fn an_odd_value_is_refused_by_the_api_or_taken_by_the_proxy() {
    let body =
        |length| format!("{{directResponse: {{status: 200, body: {{string: {}}}}}}}", "x".repeat(length));
    let (long, too_long) = (body(1 << 20), body((1 << 20) + 1));
    let mut refused = Vec::new();
    for route in ODD_ROUTES.iter().copied().chain([long.as_str(), too_long.as_str()]) {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec:\n  hosts: [a.example.com]\n  \
             gateways: [mesh, edge]\n  http:\n  - {route}\n---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: \
             {{name: edge}}\nspec: {{servers: [{{port: {{number: 80, protocol: HTTP, name: http}}, hosts: ['*']}}]}}\n"
        );
        let (objects, _) = meltemi_api::parse(&text, &"odd.yaml".into());
        let (snapshot, _) = Snapshot::build(&Inputs { objects: objects.into_iter().map(Arc::new).collect() });
        let resources = translate(&snapshot, &shape(GATEWAY), &Options::default());
        refused
            .extend(rejections(&resources).into_iter().map(|rejection| format!("{route:.200} {rejection}")));
    }
    assert!(refused.is_empty(), "{refused:#?}");
}

/// Keeps `everything.yaml` honest: a field that the API begins to accept has to appear in it.
#[test]
fn everything_has_every_accepted_field() {
    let objects = everything();
    let fields = fs::read_to_string(peers::repository().join("crates/api/testdata/crd-fields.txt")).unwrap();
    let mut kind = None;
    let (mut accepted, mut absent) = (0, Vec::new());
    for line in fields.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            kind = heading.split(' ').next().and_then(|name| name.parse::<Kind>().ok());
            continue;
        }
        let Some(kind) = kind.filter(|kind| KINDS.contains(kind)) else { continue };
        let (path, syntax) = line.split_once(' ').unwrap_or((line, ""));
        let is_meaningless = kind != Kind::ServiceEntry && MEANINGLESS.iter().any(|m| path.ends_with(m));
        if is_meaningless || is_client_tls(kind, path) || !is_accepted(kind, path, syntax) {
            continue;
        }
        accepted += 1;
        let mut of_kind = objects.iter().filter(|object| object.kind() == kind);
        if !of_kind.any(|object| has(&object.spec.to_json(), &steps(path))) {
            absent.push(format!("{kind} {path}"));
        }
    }
    assert!(absent.is_empty(), "accepted, but not in everything.yaml: {absent:#?}");
    assert!(accepted > 150, "only {accepted} fields");
}

/// Whether the API has something else to say of a field than that it does not support it.
fn is_accepted(kind: Kind, path: &str, syntax: &str) -> bool {
    let choices = syntax.trim_start_matches('{').trim_end_matches('}');
    let leaf = if choices.contains('|') { choices.split('|').next().unwrap_or_default() } else { "x" };
    let spec = steps(path).iter().rev().fold(json!(leaf), |below, step| match *step {
        "[]" => json!([below]),
        "{}" => json!({ "key": below }),
        key => json!({ key: below }),
    });
    let object = json!({
        "apiVersion": kind.api_version(),
        "kind": kind,
        "metadata": { "name": "a" },
        "spec": spec,
    });
    let (_, diagnostics) = meltemi_api::parse(&object.to_string(), &"field.json".into());
    let refusals =
        [&codes::UNKNOWN_FIELD, &codes::UNSUPPORTED_FIELD, &codes::UNSUPPORTED_VALUE, &codes::NO_EFFECT_YET];
    !diagnostics.iter().any(|diagnostic| refusals.iter().any(|code| code.id == diagnostic.code))
}

/// `http[].headers{}.exact` as `http`, `[]`, `headers`, `{}`, `exact`.
fn steps(path: &str) -> Vec<&str> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let key = part.trim_end_matches(['[', ']', '{', '}']);
        steps.push(key);
        match &part[key.len()..] {
            "" => {}
            suffix => steps.push(suffix),
        }
    }
    steps
}

fn has(value: &Value, steps: &[&str]) -> bool {
    let Some((step, rest)) = steps.split_first() else { return true };
    match (*step, value) {
        ("[]", Value::Array(items)) => items.iter().any(|item| has(item, rest)),
        ("{}", Value::Object(entries)) => entries.values().any(|entry| has(entry, rest)),
        (key, Value::Object(entries)) => entries.get(key).is_some_and(|entry| has(entry, rest)),
        _ => false,
    }
}
