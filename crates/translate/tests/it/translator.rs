//! A [`Translator`] gives what [`translate`] gives, for every proxy, whatever came before.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use meltemi_api::{Change, Object, ObjectId, Spec};
use meltemi_snapshot::{Inputs, Snapshot};
use meltemi_translate::{Options, ProxyShape, Resource, Resources, Role, Translator, translate};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::laws::{Case, cases};

/// The proxy of a case, one that differs in what nothing looks at, and one of another namespace.
fn shapes(case: &Case) -> Vec<ProxyShape> {
    let mut twin = case.shape.clone();
    twin.labels.insert("pod-template-hash".to_owned(), "5f9c".to_owned());
    if let Role::Sidecar(sidecar) = &mut twin.role {
        let first = if sidecar.addresses[0].is_loopback() { 127 } else { 10 };
        sidecar.addresses[0] = IpAddr::V4(Ipv4Addr::new(first, 200, 0, 1));
    }
    let mut stranger = case.shape.clone();
    stranger.namespace = "elsewhere".to_owned();
    vec![case.shape.clone(), twin, stranger]
}

/// The endpoints after those that moved have taken the place of what was there.
fn with(before: &[Arc<Resource>], moved: &[Arc<Resource>]) -> Vec<Arc<Resource>> {
    let all = before.iter().chain(moved).map(|resource| (Arc::clone(&resource.name), Arc::clone(resource)));
    all.collect::<BTreeMap<_, _>>().into_values().collect()
}

/// Goes on to a snapshot, and compares everything with a translation from scratch.
fn advance(
    translator: &mut Translator,
    snapshot: &Snapshot,
    shapes: &[ProxyShape],
    options: &Options,
    before: &mut Vec<Resources>,
) -> Result<(), TestCaseError> {
    translator.advance(snapshot);
    let mut session = translator.session();
    let expected: Vec<Resources> = shapes.iter().map(|shape| translate(snapshot, shape, options)).collect();
    for ((shape, expected), before) in shapes.iter().zip(&expected).zip(before.iter()) {
        if let Some(moved) = session.moved(shape) {
            let endpoints = with(&before.endpoints, &moved);
            prop_assert_eq!(&Resources { endpoints, ..before.clone() }, expected);
        }
    }
    for (shape, expected) in shapes.iter().zip(&expected) {
        prop_assert_eq!(&session.resources(shape), expected);
    }
    *before = expected;
    Ok(())
}

#[test]
fn history_and_company_change_nothing() {
    let all = cases();
    let steps = prop::collection::vec((any::<Index>(), any::<bool>()), 1..12);
    proptest!(ProptestConfig::with_cases(48), |(which in 0..all.len(), steps in steps)| {
        let case = &all[which];
        let shapes = shapes(case);
        let (mut snapshot, _) = Snapshot::build(&Inputs { objects: case.objects.clone() });
        let mut translator = Translator::new(case.options.clone());
        let mut before = Vec::new();
        advance(&mut translator, &snapshot, &shapes, &case.options, &mut before)?;
        for (object, is_there) in steps {
            let object = object.get(&case.objects);
            let change = match is_there {
                true => Change::Put(Arc::clone(object)),
                false => Change::Delete(object.id.clone()),
            };
            (snapshot, _) = snapshot.apply(&[change]);
            advance(&mut translator, &snapshot, &shapes, &case.options, &mut before)?;
        }
    });
}

/// The work that is saved: where an endpoint moves, nothing is translated but its assignment.
#[test]
fn an_endpoint_that_moves_is_one_assignment() {
    let text = "
{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {selector: {app: cart}, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: mail, namespace: shop}, spec: {selector: {app: mail}, ports: [{name: http, port: 80}]}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: cart-0, namespace: shop}, spec: {address: 10.0.0.1, labels: {app: cart}}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: cart-0, namespace: shop}, spec: {address: 10.0.0.2, labels: {app: cart}}}
";
    let objects: Vec<Arc<Object>> = crate::mesh::objects(text);
    let (snapshot, _) = Snapshot::build(&Inputs { objects: objects[..3].to_vec() });
    let shape = cases()
        .into_iter()
        .map(|case| case.shape)
        .find(|shape| matches!(&shape.role, Role::Sidecar(sidecar) if sidecar.own_address().is_none()));
    let shape = shape.expect("a case of a redirected sidecar");
    let options = Options::default();
    let mut translator = Translator::new(options.clone());
    translator.advance(&snapshot);
    let before = translator.session().resources(&shape);
    assert!(translator.session().moved(&shape).is_none(), "what was before is not known");

    let (snapshot, _) = snapshot.apply(&[Change::Put(Arc::clone(&objects[3]))]);
    translator.advance(&snapshot);
    let moved = translator.session().moved(&shape).expect("nothing else has changed");
    assert_eq!(
        moved.iter().map(|r| &*r.name).collect::<Vec<_>>(),
        ["outbound|80||cart.shop.svc.cluster.local"]
    );
    let now = translator.session().resources(&shape);
    let is_shared =
        |a: &[Arc<Resource>], b: &[Arc<Resource>]| a.iter().all(|a| b.iter().any(|b| Arc::ptr_eq(a, b)));
    assert!(is_shared(&now.routes, &before.routes), "routes are not built again");

    let id: ObjectId = objects[1].id.clone();
    assert!(matches!(objects[1].spec, Spec::Service(_)));
    let (snapshot, _) = snapshot.apply(&[Change::Delete(id)]);
    translator.advance(&snapshot);
    assert!(translator.session().moved(&shape).is_none(), "a service is more than endpoints");
}
