//! Delegation: a route of a VirtualService with hosts that leaves the rest to one without.
//!
//! Source: Istio `pilot/pkg/model/virtualservice_controller.go`, `virtualservice.go` (`MergeHTTPRoutes`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_api::istio::{self, Destination, HttpMatchRequest, HttpRoute};
use meltemi_api::{Diagnostic, Object, Spec, codes};

use crate::config::GatewayName;
use crate::host::Host;
use crate::route::Written;
use crate::visibility::Visibility;

mod merge;

/// The VirtualServices without hosts, by namespace.
#[derive(Default)]
pub(crate) struct Delegates<'a>(BTreeMap<&'a str, Vec<Delegate<'a>>>);

struct Delegate<'a> {
    object: &'a Arc<Object>,
    spec: &'a istio::VirtualService,
    export_to: Visibility,
}

/// A route as it is in force, and where its parts are written.
pub(crate) struct Route<'a> {
    pub(crate) rule: Cow<'a, HttpRoute>,
    pub(crate) written: Written,
    /// Of each condition.
    pub(crate) matches: Vec<Written>,
    /// The route that its mirrors are written in.
    pub(crate) mirrors: Written,
}

/// Why a route does not lead on.
enum Flaw {
    Unknown,
    Hidden,
    /// These routes of the delegate contradict the conditions of the root.
    Conflicts(Vec<usize>),
}

impl<'a> Delegates<'a> {
    /// Those among the objects.
    pub(crate) fn of(
        objects: impl Iterator<Item = &'a Arc<Object>>,
        visible: impl Fn(&istio::VirtualService, &str) -> Visibility,
    ) -> Delegates<'a> {
        let mut delegates: BTreeMap<&str, Vec<Delegate<'_>>> = BTreeMap::new();
        for object in objects {
            if let Spec::VirtualService(spec) = &object.spec
                && spec.hosts.is_empty()
            {
                let namespace = &*object.id.namespace;
                let delegate = Delegate { object, spec, export_to: visible(spec, namespace) };
                delegates.entry(namespace).or_default().push(delegate);
            }
        }
        Delegates(delegates)
    }

    fn find(&self, root: &Object, reference: &istio::Delegate) -> Result<&Delegate<'a>, Flaw> {
        let own = &*root.id.namespace;
        let namespace = reference.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(own);
        let same_namespace = self.0.get(namespace).map_or(&[][..], Vec::as_slice);
        let found = same_namespace.iter().find(|delegate| *delegate.object.id.name == *reference.name);
        let found = found.ok_or(Flaw::Unknown)?;
        if found.export_to.reaches(own) { Ok(found) } else { Err(Flaw::Hidden) }
    }
}

/// The HTTP routes of a VirtualService, each delegation replaced by the routes of its delegate that agree with it.
pub(super) fn expand<'a>(
    object: &Arc<Object>,
    spec: &'a istio::VirtualService,
    delegates: &Delegates<'_>,
) -> Vec<Route<'a>> {
    let mut routes = Vec::new();
    for (i, rule) in spec.http.iter().enumerate() {
        let written = Written::new(object, format!("spec.http[{i}]"));
        match &rule.delegate {
            None => routes.push(Route::own(rule, written)),
            // A delegate delegates no further, which `api` has refused.
            Some(_) if spec.hosts.is_empty() => {}
            Some(reference) => {
                if let Ok(delegate) = delegates.find(object, reference) {
                    routes.extend(delegate.routes(rule, &written).into_iter().flatten());
                }
            }
        }
    }
    routes
}

/// The delegations that do not lead on as they are written.
pub(crate) fn broken(
    object: &Arc<Object>,
    spec: &istio::VirtualService,
    delegates: &Delegates<'_>,
) -> Vec<Diagnostic> {
    if spec.hosts.is_empty() {
        return Vec::new();
    }
    let delegations = spec.http.iter().enumerate().filter_map(|(i, r)| Some((i, r, r.delegate.as_ref()?)));
    let finding = |(i, rule, reference): (usize, &HttpRoute, &istio::Delegate)| {
        let written = Written::new(object, format!("spec.http[{i}]"));
        let flaw = match delegates.find(object, reference) {
            Err(flaw) => flaw,
            Ok(delegate) => Flaw::Conflicts(delegate.conflicts(rule, &written)),
        };
        report(object, &format!("spec.http[{i}].delegate"), reference, flaw)
    };
    delegations.filter_map(finding).collect()
}

fn report(object: &Object, field: &str, reference: &istio::Delegate, flaw: Flaw) -> Option<Diagnostic> {
    let name = reference.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(&object.id.namespace);
    let name = format!("{name}/{}", reference.name);
    let (code, message, help) = match flaw {
        Flaw::Unknown => (
            &codes::UNKNOWN_DELEGATE,
            format!("there is no VirtualService `{name}` without hosts"),
            "correct the name, or create it; a delegate has no `hosts`",
        ),
        Flaw::Hidden => (
            &codes::UNKNOWN_DELEGATE,
            format!("the VirtualService `{name}` is not exported to this namespace"),
            "add the namespace to its `exportTo`",
        ),
        Flaw::Conflicts(routes) if routes.is_empty() => return None,
        Flaw::Conflicts(routes) => {
            let routes: Vec<String> = routes.iter().map(|i| format!("`http[{i}]`")).collect();
            (
                &codes::CONFLICTING_DELEGATE,
                format!("{} of `{name}` can never hold below the conditions here", routes.join(", ")),
                "make the conditions of the delegate narrower than those of the route that delegates to it",
            )
        }
    };
    Some(Diagnostic::new(code, message).at(object, field).help(help))
}

impl<'a> Route<'a> {
    fn own(rule: &'a HttpRoute, written: Written) -> Route<'a> {
        let matches = (0..rule.matches.len()).map(|i| written.below(&format!("match[{i}]"))).collect();
        let mirrors = written.clone();
        Route { rule: Cow::Borrowed(rule), written, matches, mirrors }
    }
}

impl Delegate<'_> {
    /// The routes of the delegate below a route of the root; `None` for those that contradict it.
    fn routes(&self, root: &HttpRoute, root_at: &Written) -> Vec<Option<Route<'static>>> {
        let root_rule = resolved(root, &root_at.object.id.namespace);
        let below = |(i, rule): (usize, &HttpRoute)| {
            let at = Written::new(self.object, format!("spec.http[{i}]"));
            let own = Route::own(rule, at);
            let mirrors = if mirrors(rule) { own.written.clone() } else { root_at.clone() };
            let rule = resolved(rule, &self.object.id.namespace);
            let (matches, places) = merge::conditions(&root_rule.matches, &rule.matches, root_at, &own)?;
            let rule = Cow::Owned(merge::route(&root_rule, HttpRoute { matches, ..rule }));
            Some(Route { rule, written: own.written, matches: places, mirrors })
        };
        self.spec.http.iter().enumerate().map(below).collect()
    }

    fn conflicts(&self, root: &HttpRoute, root_at: &Written) -> Vec<usize> {
        let routes = self.routes(root, root_at);
        routes.iter().enumerate().filter(|(_, route)| route.is_none()).map(|(i, _)| i).collect()
    }
}

fn mirrors(rule: &HttpRoute) -> bool {
    rule.mirror.is_some() || !rule.mirrors.is_empty()
}

/// The route with every name written out, so that it means the same in another namespace.
fn resolved(rule: &HttpRoute, namespace: &str) -> HttpRoute {
    let mut rule = rule.clone();
    let resolve = |destination: &mut Destination| {
        destination.host = Host::resolve(&destination.host, namespace).to_string();
    };
    rule.route.iter_mut().for_each(|d| resolve(&mut d.destination));
    rule.mirror.iter_mut().for_each(resolve);
    rule.mirrors.iter_mut().for_each(|m| resolve(&mut m.destination));
    let gateway = |name: &mut String| *name = GatewayName::resolve(name, namespace).to_string();
    let gateways = |m: &mut HttpMatchRequest| m.gateways.iter_mut().for_each(gateway);
    rule.matches.iter_mut().for_each(gateways);
    rule
}
