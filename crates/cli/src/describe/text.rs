//! A description for people.

use std::fmt::Write as _;

use super::Description;
use super::applied::{Routes, Rule, Service};
use crate::output::counted;

pub(super) fn of(description: &Description) -> String {
    let mut told = String::new();
    if description.kind == "workload" {
        let labels: Vec<String> =
            description.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        line(&mut told, 0, &format!("workload {}.{}", description.name, description.namespace));
        line(&mut told, 1, &format!("labels {}", labels.join(",")));
        for port in &description.mutual_tls {
            let by = port.by.as_ref().map_or_else(|| "by default".to_owned(), |by| format!("by {by}"));
            line(&mut told, 1, &format!("port {} lets in {} {by}", port.port, port.mode));
        }
        for policy in &description.policies {
            line(&mut told, 1, &format!("selected by {policy}"));
        }
        if description.services.is_empty() {
            line(&mut told, 1, "no service selects it, so nobody calls it by name");
        }
    }
    for service in &description.services {
        of_service(&mut told, service);
    }
    for finding in &description.findings {
        let text = |name: &str| finding[name].as_str().unwrap_or_default();
        let place = [text("object"), text("field")].join(" ");
        line(
            &mut told,
            0,
            &format!("{} {}: {} in {}", text("severity"), text("code"), text("message"), place.trim_end()),
        );
    }
    told
}

fn of_service(told: &mut String, service: &Service) {
    line(told, 0, &format!("service {}, {}", service.host, service.object));
    for port in &service.ports {
        let name = if port.name.is_empty() { "without a name" } else { &port.name };
        let endpoints = counted(port.endpoints, "endpoint");
        line(told, 1, &format!("port {} ({name}) speaks {}, {endpoints}", port.number, port.protocol));
    }
    service.destination_rules.iter().for_each(|rule| of_rule(told, rule));
    service.virtual_services.iter().for_each(|routes| of_routes(told, routes));
    if service.virtual_services.is_empty() {
        line(told, 1, "no VirtualService: requests go to all endpoints alike");
    }
}

fn of_rule(told: &mut String, rule: &Rule) {
    line(told, 1, &rule.object);
    for (name, endpoints) in &rule.subsets {
        line(told, 2, &format!("subset {name}, {}", counted(*endpoints, "endpoint")));
    }
    let policy = if rule.policy.is_empty() { "no traffic policy".to_owned() } else { rule.policy.join(", ") };
    line(told, 2, &policy);
}

fn of_routes(told: &mut String, routes: &Routes) {
    let what = if routes.is_for_host { "routes calls of it" } else { "sends requests to it" };
    line(told, 1, &format!("{}: {what}, {}", routes.object, counted(routes.routes, "route")));
    if !routes.subsets.is_empty() {
        let names: Vec<&str> = routes.subsets.iter().map(String::as_str).collect();
        line(told, 2, &format!("to the subsets {}", names.join(", ")));
    }
    for gateway in &routes.gateways {
        line(told, 2, &format!("through the gateway {gateway}"));
    }
}

fn line(told: &mut String, depth: usize, text: &str) {
    // Writing to a string cannot fail.
    let _ok = writeln!(told, "{}{text}", "  ".repeat(depth));
}
