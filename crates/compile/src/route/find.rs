//! Which route a request takes.

use http::HeaderName;

use super::{Found, RequireTls, Route, RoutePlace, RouteTable, VirtualHost};
use crate::matcher::{RequestView, without_query};

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_ENVOY_INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");

impl RouteTable {
    /// The virtual host and route of a request; `None` is Envoy's 404 (`NR`). A virtual host that requires
    /// TLS gives a route that redirects to https. Costs no allocation of its own.
    pub fn find(&self, view: &impl RequestView) -> Option<Found<'_>> {
        let number = self.domains.find(view.authority())?;
        let virtual_host = &self.virtual_hosts[number];
        let place = |route| RoutePlace { virtual_host: number as u32, route };
        if let Some(route) = virtual_host.tls_redirect(view) {
            return Some(Found { table: self, virtual_host, route, place: place(None) });
        }
        let path = self.matched_part(view.path());
        let number = virtual_host.first(path, view)?;
        let route = &virtual_host.routes[number];
        Some(Found { table: self, virtual_host, route, place: place(Some(number as u32)) })
    }

    /// The virtual host of a request, whether or not one of its routes matches.
    pub fn virtual_host(&self, view: &impl RequestView) -> Option<&VirtualHost> {
        self.domains.find(view.authority()).map(|number| &self.virtual_hosts[number])
    }

    /// The route at a place that this table gave; `None` for a place of another table.
    pub fn at(&self, place: RoutePlace) -> Option<Found<'_>> {
        let virtual_host = self.virtual_hosts.get(place.virtual_host as usize)?;
        let route = match place.route {
            Some(number) => virtual_host.routes.get(number as usize)?,
            None => virtual_host.tls_redirect.as_deref()?,
        };
        Some(Found { table: self, virtual_host, route, place })
    }

    pub(super) fn matched_part<'p>(&self, path: &'p str) -> &'p str {
        let path = without_query(path);
        match path.split_once(';') {
            Some((head, _)) if self.ignore_path_parameters => head,
            _ => path,
        }
    }
}

impl Found<'_> {
    /// Whether this is the redirect of `require_tls`, whose answer takes no header changes of any level.
    pub fn is_tls_redirect(&self) -> bool {
        self.place.route.is_none()
    }
}

impl RoutePlace {
    /// The route as a path of protobuf field names in its configuration, `virtual_hosts[0].routes[1]`; `None` for
    /// the redirect of `require_tls`, which is no route of the configuration.
    pub fn path(self) -> Option<String> {
        self.route.map(|route| format!("virtual_hosts[{}].routes[{route}]", self.virtual_host))
    }
}

impl VirtualHost {
    /// The number of the first route that a request takes.
    fn first(&self, path: &str, view: &impl RequestView) -> Option<usize> {
        match &self.index {
            Some(index) => index.first(&self.routes, path, |route| route.matches(path, view)),
            None => self.routes.iter().position(|route| route.matches(path, view)),
        }
    }

    fn tls_redirect(&self, view: &impl RequestView) -> Option<&Route> {
        let redirect = self.tls_redirect.as_deref()?;
        let forwarded = view.header(&X_FORWARDED_PROTO);
        if forwarded.as_deref().unwrap_or(view.scheme().as_bytes()) == b"https" {
            return None;
        }
        let is_internal = || view.header(&X_ENVOY_INTERNAL).is_some_and(|value| *value == *b"true");
        match self.require_tls {
            RequireTls::ExternalOnly if is_internal() => None,
            _ => Some(redirect),
        }
    }
}

impl Route {
    /// Whether a request takes this route; `path` is without its query.
    fn matches(&self, path: &str, view: &impl RequestView) -> bool {
        self.path.matches(path, view.method()) && self.conditions.hold(view)
    }
}
