//! Why a request does not take a route, in words. Not for the data path: it formats.

use super::{Conditions, Route, RouteTable, VirtualHost};
use crate::matcher::RequestView;

impl RouteTable {
    /// The routes of a virtual host that a request passes by, in order, each with the first condition that the request
    /// does not fulfil; up to the route that it takes.
    pub fn passed_by(&self, virtual_host: &VirtualHost, view: &impl RequestView) -> Vec<(usize, String)> {
        let path = self.matched_part(view.path());
        let unmet = virtual_host.routes.iter().map(|route| route.unmet(path, view)).enumerate();
        unmet.map_while(|(number, unmet)| Some((number, unmet?))).collect()
    }
}

impl Route {
    /// The first condition that a request does not fulfil; `None` when it takes the route.
    fn unmet(&self, path: &str, view: &impl RequestView) -> Option<String> {
        if !self.path.matches(path, view.method()) {
            return Some(self.path.to_string());
        }
        self.conditions.unmet(view)
    }
}

impl Conditions {
    fn unmet(&self, view: &impl RequestView) -> Option<String> {
        let headers = || self.headers.iter().find(|header| !header.matches(view)).map(ToString::to_string);
        let query = || self.query.iter().find(|query| !query.matches(view.path())).map(ToString::to_string);
        let other = || (!self.hold(view)).then(|| self.of_the_rest(view));
        headers().or_else(query).or_else(other)
    }

    fn of_the_rest(&self, view: &impl RequestView) -> String {
        let cookie = self.cookies().iter().find(|cookie| !cookie.matches(view));
        match cookie {
            Some(cookie) => cookie.to_string(),
            None if self.fraction_ppm == Some(0) => "it is for no request at all".to_owned(),
            None if self.grpc && !super::conditions::is_grpc(view) => "the request is gRPC".to_owned(),
            None => "what TLS, metadata or filters say of the request".to_owned(),
        }
    }
}
