//! The objects in force, and the nodes of connected proxies: what commands need to see the mesh as the control plane does.
//! The data of Secrets and the environment of programs are left out: who asks may not read the files.

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use meltemi_api::{Kind, Object};
use meltemi_envoy::json::{Codec, Error};
use meltemi_runtime::task;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Subject, json};
use crate::proxies::ProxyStatus;

pub(super) fn router() -> Router<Subject> {
    Router::new().route("/debug/objectz", get(objectz)).route("/debug/nodez", get(nodez))
}

#[derive(Deserialize)]
struct Which {
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

async fn objectz(State(subject): State<Subject>, Query(which): Query<Which>) -> Response {
    let is_asked = |object: &Object| {
        let is = |asked: &Option<String>, has: &str| asked.as_deref().is_none_or(|asked| asked == has);
        is(&which.kind, object.kind().as_str())
            && is(&which.namespace, &object.id.namespace)
            && is(&which.name, &object.id.name)
    };
    let generation = subject.proxies.generation();
    let objects = generation.iter().flat_map(|generation| generation.snapshot.objects());
    let page: Vec<Value> = objects
        .filter(|object| is_asked(object))
        .map(|object| {
            let is_of_machine = subject.machine.iter().any(|path| path.as_os_str() == &*object.origin.file);
            entry(object, is_of_machine)
        })
        .collect();
    json(&page)
}

fn entry(object: &Object, is_of_machine: bool) -> Value {
    let mut written = object.to_json();
    if object.kind() == Kind::Secret {
        hide(&mut written, &["data", "stringData"]);
    }
    hide_environment(&mut written);
    json!({ "origin": object.origin, "isOfMachine": is_of_machine, "object": written })
}

/// Takes fields away.
fn hide(value: &mut Value, fields: &[&str]) {
    if let Some(map) = value.as_object_mut() {
        fields.iter().for_each(|field| drop(map.remove(*field)));
    }
}

/// The environment of every container, wherever a kind has its pods.
fn hide_environment(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(name, field)| match (name.as_str(), field) {
            ("containers" | "initContainers", Value::Array(containers)) => {
                containers.iter_mut().for_each(|container| hide(container, &["env", "envFrom"]));
            }
            (_, field) => hide_environment(field),
        }),
        Value::Array(items) => items.iter_mut().for_each(hide_environment),
        _ => {}
    }
}

async fn nodez(State(subject): State<Subject>) -> Response {
    let proxies = subject.proxies.connected();
    match task::blocking("nodes", move || nodes(&proxies)).await {
        Ok(Ok(page)) => json(&page),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Holds the descriptor pool while it works.
fn nodes(proxies: &[ProxyStatus]) -> Result<Vec<Value>, Error> {
    let codec = Codec::new();
    let page = proxies.iter().map(|proxy| {
        Ok(json!({
            "proxy": proxy.name(),
            "isAuthenticated": proxy.shape.is_authenticated,
            "node": codec.to_json(&proxy.client.node)?,
        }))
    });
    page.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_not_shown() {
        let text = "
apiVersion: v1
kind: Secret
metadata: {name: keys}
type: Opaque
stringData: {password: hunter2}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, command: [web], env: [{name: TOKEN, value: hunter2}]}]}
";
        let (objects, diagnostics) = meltemi_api::parse(text, &"a.yaml".into());
        assert_eq!(diagnostics, []);
        let shown: Vec<Value> = objects.iter().map(|object| entry(object, false)).collect();
        assert!(!json!(shown).to_string().contains("hunter2"), "{shown:?}");
        assert_eq!(shown[1]["object"]["spec"]["template"]["spec"]["containers"][0]["command"][0], "web");
        assert_eq!(shown[0]["origin"]["line"], 2);
    }
}
