//! The index over the paths of a virtual host's routes: which of them can match a path, without asking all.
//!
//! Source: the first route in order that matches wins (`envoy.config.route.v3.VirtualHost.routes`). Exact paths and
//! prefixes stand sorted, each with a link to the longest other one that is a prefix of it, so that the ones which
//! fit a path are a chain: its cost is a binary search and one step per nested prefix. Regexes, templates and
//! CONNECT are asked in order. Leaves out everything but the path, which is the caller's to test.

use std::borrow::Cow;

use super::Route;
use crate::matcher::PathMatcher;

#[cfg(test)]
mod tests;

/// Up to so many routes are asked one by one: a scan of them costs less than the index, and takes no memory.
const SCANNED_ROUTES: usize = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct RouteIndex {
    case_sensitive: PathChains,
    /// Over lower case text.
    case_insensitive: PathChains,
    /// Routes that no text stands for, in order.
    others: Vec<u32>,
}

/// Texts in sorted order.
#[derive(Debug, Default)]
struct PathChains {
    nodes: Vec<Node>,
    /// Route numbers of all nodes, ascending within each list.
    numbers: Vec<u32>,
}

/// A text, and the routes that have it.
#[derive(Debug)]
struct Node {
    /// A route that has the text.
    route: u32,
    /// The longest text that is a prefix of this one.
    parent: Option<u32>,
    /// Where the lists are in `numbers`: exact paths up to `prefixes`, then prefixes up to `end`.
    start: u32,
    prefixes: u32,
    end: u32,
}

/// How a route asks for a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Exact,
    Prefix,
}

impl RouteIndex {
    /// The index; `None` where a scan does as well.
    pub(super) fn new(routes: &[Route]) -> Option<Box<RouteIndex>> {
        if routes.len() <= SCANNED_ROUTES {
            return None;
        }
        let (mut sensitive, mut insensitive, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for (number, route) in routes.iter().enumerate() {
            let number = number as u32;
            match fixed(&route.path) {
                Some((text, kind, true)) => sensitive.push((text, kind, number)),
                Some((text, kind, false)) => insensitive.push((text, kind, number)),
                None => others.push(number),
            }
        }
        Some(Box::new(RouteIndex {
            case_sensitive: PathChains::new(sensitive),
            case_insensitive: PathChains::new(insensitive),
            others,
        }))
    }

    /// The first route in order that `accepts` the request, which it is asked only of routes whose path may match.
    pub(super) fn first(
        &self,
        routes: &[Route],
        path: &str,
        mut accepts: impl FnMut(&Route) -> bool,
    ) -> Option<usize> {
        let mut first = First { number: u32::MAX, accepts: |number| accepts(&routes[number as usize]) };
        self.case_sensitive.visit(routes, path, &mut first);
        if !self.case_insensitive.nodes.is_empty() {
            self.case_insensitive.visit(routes, &lower_case(path), &mut first);
        }
        first.visit(&self.others);
        (first.number != u32::MAX).then_some(first.number as usize)
    }
}

/// The first accepted route so far.
struct First<F> {
    number: u32,
    accepts: F,
}

impl<F: FnMut(u32) -> bool> First<F> {
    /// Looks through a list in order, as far as it can still make a difference.
    fn visit(&mut self, numbers: &[u32]) {
        for &number in numbers {
            if number >= self.number {
                return;
            }
            if (self.accepts)(number) {
                self.number = number;
                return;
            }
        }
    }
}

impl PathChains {
    fn new(mut entries: Vec<(&str, Kind, u32)>) -> PathChains {
        entries.sort_unstable();
        let mut chains = PathChains::default();
        // The nodes whose texts are prefixes of the one at hand, the longest last.
        let mut open: Vec<(&str, u32)> = Vec::new();
        for group in entries.chunk_by(|a, b| a.0 == b.0) {
            let text = group[0].0;
            while open.pop_if(|(prefix, _)| !text.starts_with(*prefix)).is_some() {}
            let start = chains.numbers.len() as u32;
            chains.numbers.extend(group.iter().map(|(_, _, number)| number));
            let exact = group.iter().filter(|(_, kind, _)| *kind == Kind::Exact).count() as u32;
            let node = chains.nodes.len() as u32;
            chains.nodes.push(Node {
                route: group[0].2,
                parent: open.last().map(|(_, node)| *node),
                start,
                prefixes: start + exact,
                end: chains.numbers.len() as u32,
            });
            open.push((text, node));
        }
        chains
    }

    fn visit<F: FnMut(u32) -> bool>(&self, routes: &[Route], path: &str, first: &mut First<F>) {
        let text = |node: &Node| fixed(&routes[node.route as usize].path).map_or("", |(text, ..)| text);
        let after = self.nodes.partition_point(|node| text(node) <= path);
        let mut next = after.checked_sub(1);
        while let Some(node) = next.map(|number| &self.nodes[number]) {
            let text = text(node);
            if path.starts_with(text) {
                if path.len() == text.len() {
                    first.visit(&self.numbers[node.start as usize..node.prefixes as usize]);
                }
                first.visit(&self.numbers[node.prefixes as usize..node.end as usize]);
            }
            next = node.parent.map(|parent| parent as usize);
        }
    }
}

/// The text that a path must be or begin with, and whether case counts.
fn fixed(path: &PathMatcher) -> Option<(&str, Kind, bool)> {
    match path {
        PathMatcher::Exact(text, case_sensitive) => Some((text, Kind::Exact, *case_sensitive)),
        PathMatcher::Prefix(text, case_sensitive) | PathMatcher::Separated(text, case_sensitive) => {
            Some((text, Kind::Prefix, *case_sensitive))
        }
        PathMatcher::Regex(_) | PathMatcher::Template(_) | PathMatcher::Connect => None,
    }
}

fn lower_case(path: &str) -> Cow<'_, str> {
    match path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(path.to_ascii_lowercase()),
        false => Cow::Borrowed(path),
    }
}
