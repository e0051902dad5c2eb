//! Which services ask for a listener, on which addresses, and what becomes of two that ask for the same.
//!
//! Source: Istio `pilot/pkg/networking/core/listener.go` (`buildSidecarOutboundListeners`,
//! `buildSidecarOutboundListener`).

use std::collections::BTreeMap;

use meltemi_api::istio::{CaptureMode, IstioEgressListener, SidecarPort};
use meltemi_api::{Diagnostic, Spec, codes};
use meltemi_snapshot::{EndpointAddress, GatewayName, Protocol, Resolution, Service, View};

use crate::context::{Context, origin};
use crate::listener::address::{self, Families, has_no_balancing, is_cidr, is_wildcard};
use crate::listener::outbound::entry::{Bind, Chain, Entry, Kind, RouteName, Wanted};
use crate::listener::outbound::http;
use crate::listener::outbound::opaque::Opaque;
use crate::listener::{INBOUND_PORT, OUTBOUND_PORT, UNIX_SCHEME};
use crate::resources::Origin;
use crate::shape::{Interception, SidecarShape};

/// The first port that everybody may bind.
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// The listeners that services and egress listeners ask for, by address and port, and the services that did not get theirs.
pub(crate) fn entries(
    context: &Context<'_>,
    sidecar: &SidecarShape,
    mesh: &GatewayName,
) -> (Vec<Entry>, Vec<Diagnostic>) {
    let families = Families::of(sidecar);
    let mut builder =
        Builder { context, sidecar, families, mesh, entries: BTreeMap::new(), left_out: Vec::new() };
    for view in context.scope.views() {
        builder.add_view(view);
    }
    (builder.entries.into_values().collect(), builder.left_out)
}

struct Builder<'a> {
    context: &'a Context<'a>,
    sidecar: &'a SidecarShape,
    families: Families,
    mesh: &'a GatewayName,
    entries: BTreeMap<(String, u16), Entry>,
    left_out: Vec<Diagnostic>,
}

/// Where the listeners of a view are: on addresses that it names, else on those of the services.
#[derive(Clone)]
struct Base {
    addresses: Vec<String>,
    is_real: bool,
}

/// A port of a service that is to have a listener.
struct Ask<'a> {
    view: &'a View<'a>,
    service: &'a Service,
    number: u16,
    protocol: Protocol,
    origin: Option<Origin>,
}

impl<'a> Builder<'a> {
    fn add_view(&mut self, view: &'a View<'a>) {
        let base = self.base(view.listener.map(|(_, listener)| listener));
        let is_socket = base.addresses.iter().any(|address| address.starts_with(UNIX_SCHEME));
        if is_socket && !self.context.shape.takes_unix_sockets() {
            return;
        }
        match view.listener.and_then(|(index, listener)| Some((index, listener.port.as_ref()?))) {
            Some((index, port)) => self.add_egress_port(view, &base, index, port),
            None => self.add_all_ports(view, &base),
        }
    }

    /// A listener that nothing is redirected to has a real port.
    fn base(&self, listener: Option<&IstioEgressListener>) -> Base {
        let bind = listener.and_then(|l| l.bind.as_deref()).filter(|bind| !bind.is_empty());
        let is_uncaptured = listener.is_some_and(|l| l.capture_mode == Some(CaptureMode::None));
        let is_real = self.sidecar.interception == Interception::None
            || is_uncaptured
            || bind.is_some_and(|bind| bind.starts_with(UNIX_SCHEME));
        let addresses = match bind {
            Some(bind) => vec![bind.to_owned()],
            None if is_real => self.families.loopbacks(),
            None => Vec::new(),
        };
        Base { addresses, is_real }
    }

    /// One listener for the services that have its port; as a proxy for HTTP, for all of them.
    fn add_egress_port(&mut self, view: &'a View<'a>, base: &Base, index: usize, port: &SidecarPort) {
        let Ok(number) = u16::try_from(port.number) else { return };
        let protocol = Protocol::parse(port.protocol.as_deref().unwrap_or_default());
        if !self.may_bind(base, number, protocol) {
            return;
        }
        let sidecar = self.context.scope.sidecar();
        let origin = sidecar.map(|s| origin(&s.object, format!("spec.egress[{index}]")));
        let is_any = number == 0 || protocol == Protocol::HttpProxy;
        for service in &view.imported {
            if is_any || service.port(number).is_some() {
                let ask = Ask { view, service, number, protocol, origin: origin.clone() };
                self.add(&ask, base);
            }
        }
    }

    /// Listeners for everything that no egress listener before has named.
    fn add_all_ports(&mut self, view: &'a View<'a>, base: &Base) {
        self.entries.values_mut().for_each(|entry| entry.is_locked = true);
        for service in &view.imported {
            for (index, port) in service.ports.iter().enumerate() {
                if self.may_bind(base, port.number, port.protocol) {
                    let origin = Some(origin(&service.object, format!("spec.ports[{index}]")));
                    let ask = Ask { view, service, number: port.number, protocol: port.protocol, origin };
                    self.add(&ask, base);
                }
            }
        }
    }

    /// Whether nobody else has the port: the proxy's own listeners are on all addresses.
    fn may_bind(&self, base: &Base, port: u16, protocol: Protocol) -> bool {
        let is_privileged = 0 < port && port < FIRST_UNPRIVILEGED_PORT;
        if base.is_real && is_privileged && self.sidecar.is_unprivileged {
            return false;
        }
        let is_everywhere = match base.addresses.first() {
            Some(address) => Some(address) == self.families.wildcards().first(),
            None => protocol.is_http(),
        };
        let is_own =
            [OUTBOUND_PORT, INBOUND_PORT].contains(&port) || self.sidecar.static_ports.contains(&port);
        !(is_everywhere && is_own)
    }

    fn add(&mut self, ask: &Ask<'a>, base: &Base) {
        for addresses in address::of_service(ask.service, self.context.shape, self.families) {
            let is_anywhere = base.addresses.is_empty() && addresses.first().is_some_and(|a| is_wildcard(a));
            let is_opaque = matches!(Kind::of(ask.protocol), Some(Kind::Tcp | Kind::Sniffed));
            if is_anywhere && is_opaque && has_no_balancing(ask.service) {
                self.add_endpoints(ask, base, &addresses);
            } else {
                self.add_listener(ask, base, &addresses);
            }
        }
    }

    /// Callers of a headless service connect to its endpoints. One without any gets nothing, as a listener on all
    /// addresses would take what is meant for others; only a ServiceEntry may mean just that.
    fn add_endpoints(&mut self, ask: &Ask<'a>, base: &Base, addresses: &[String]) {
        let endpoints = self.context.snapshot.endpoints.of(ask.service, ask.number);
        let selects = match &ask.service.object.spec {
            Spec::ServiceEntry(entry) => entry.workload_selector.is_some(),
            _ => true,
        };
        if endpoints.is_empty() && !selects {
            return self.add_listener(ask, base, addresses);
        }
        for endpoint in endpoints {
            // What a workload sends itself does not come by here.
            let EndpointAddress::Ip(ip) = &endpoint.address else { continue };
            if *ip != self.sidecar.address() {
                let base = Base { addresses: vec![ip.to_string()], ..base.clone() };
                self.add_listener(ask, &base, addresses);
            }
        }
    }

    fn add_listener(&mut self, ask: &Ask<'a>, base: &Base, service_addresses: &[String]) {
        // A name for another service has no port of its own.
        let is_alias = ask.service.resolution == Resolution::Alias;
        let Some(kind) = Kind::of(ask.protocol).filter(|_| !is_alias) else { return };
        let (addresses, cidrs) = match kind {
            _ if !base.addresses.is_empty() => (base.addresses.clone(), Vec::new()),
            Kind::Http => (self.families.wildcards(), Vec::new()),
            _ if service_addresses.first().is_some_and(|a| is_cidr(a)) => {
                (self.families.wildcards(), service_addresses.to_vec())
            }
            _ => (service_addresses.to_vec(), Vec::new()),
        };
        let bind = Bind { addresses, port: ask.number, is_real: base.is_real };
        let existing = self.entries.get(&bind.key());
        if existing.is_some_and(|entry| entry.is_locked) {
            return;
        }
        let before = existing.map(|entry| entry.kind);
        let chains = Chains { builder: self, ask, bind: &bind, cidrs: &cidrs, service_addresses };
        let (kind, chains, replaces) = match (kind, before) {
            _ if ask.protocol == Protocol::HttpProxy => (Kind::Http, vec![chains.http(false, kind)], true),
            (Kind::Http, Some(Kind::Http | Kind::Sniffed)) => return,
            (Kind::Http, before) => {
                let is_shared = self.is_everywhere(&bind);
                let kind = if is_shared || before.is_some() { Kind::Sniffed } else { Kind::Http };
                (kind, vec![chains.http(is_shared, Kind::Http)], before.is_none())
            }
            (Kind::Tcp, None) => (Kind::Tcp, chains.opaque(), true),
            (Kind::Tcp, Some(Kind::Tcp)) => (Kind::Tcp, chains.opaque(), false),
            (Kind::Tcp, Some(_)) | (Kind::Sniffed, Some(Kind::Sniffed)) => {
                (Kind::Sniffed, chains.opaque(), false)
            }
            (Kind::Sniffed, before) => {
                let mut both = chains.opaque();
                both.push(chains.http(true, Kind::Sniffed));
                (Kind::Sniffed, both, before != Some(Kind::Tcp))
            }
        };
        match self.entries.get_mut(&bind.key()) {
            Some(entry) if !replaces => {
                entry.kind = kind;
                let took_all = entry.merge(chains);
                let holder = entry.origin.clone();
                if !took_all {
                    self.tell_conflict(ask, &bind, holder.as_ref());
                }
            }
            _ => {
                let wanted = Wanted { kind, bind: bind.clone(), origin: ask.origin.clone() };
                self.entries.insert(bind.key(), Entry::new(wanted, chains));
            }
        }
    }

    /// That a service did not get all that it asked for, once for each of its ports. What it has already is no conflict.
    fn tell_conflict(&mut self, ask: &Ask<'a>, bind: &Bind, holder: Option<&Origin>) {
        let object = &ask.service.object;
        let Some(holder) = holder.filter(|holder| holder.object != object.id) else { return };
        let message =
            format!("{} has {} already, for connections that are not HTTP", holder.object, bind.name());
        let field =
            ask.origin.as_ref().filter(|origin| origin.object == object.id).map_or("spec", |o| &o.field);
        let told = Diagnostic::new(&codes::PORT_TAKEN, message).at(object, field);
        if !self.left_out.contains(&told) {
            self.left_out.push(told);
        }
    }

    fn is_everywhere(&self, bind: &Bind) -> bool {
        self.families.wildcards().first().is_some_and(|wildcard| wildcard == bind.primary())
    }
}

/// Builds the chains of one listener for one service.
struct Chains<'b, 'a> {
    builder: &'b Builder<'a>,
    ask: &'b Ask<'a>,
    bind: &'b Bind,
    cidrs: &'b [String],
    service_addresses: &'b [String],
}

impl Chains<'_, '_> {
    fn opaque(&self) -> Vec<Chain> {
        let builder = self.builder;
        let address = self.service_addresses.first().map_or("", String::as_str);
        let opaque = Opaque {
            context: builder.context,
            view: self.ask.view,
            mesh: builder.mesh,
            service: self.ask.service,
            number: self.ask.number,
            protocol: self.ask.protocol,
            address,
            cidrs: self.cidrs,
            is_everywhere: builder.is_everywhere(self.bind) && address == self.bind.primary(),
        };
        opaque.chains()
    }

    /// The chain of requests; `is_sniffed` where others share the port.
    fn http(&self, is_sniffed: bool, kind: Kind) -> Chain {
        let name = self.route_name(kind);
        let filters = http(self.builder.context, self.bind, name.to_string());
        Chain { is_plain_http: is_sniffed, routes: Some(name), ..Chain::unconditional(filters) }
    }

    /// A service with a listener of its own has routes of its own, unless it declares HTTP.
    fn route_name(&self, kind: Kind) -> RouteName {
        let port = self.ask.number;
        if port == 0 {
            return RouteName::Socket(self.bind.primary().to_owned());
        }
        if kind == Kind::Sniffed && !self.builder.is_everywhere(self.bind) {
            return RouteName::Service(self.ask.service.host.clone(), port);
        }
        RouteName::Port(port)
    }
}
