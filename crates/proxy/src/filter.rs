//! Running the HTTP filters of a request: the walk over the chain, and the effects that verdicts ask for.
//!
//! Requests pass the filters in order before the route's action is done, responses (ours too) in reverse order before
//! the connection manager finishes them. What a filter decides is pure (`meltemi_compile::filter`); a filter has a
//! file here only if it needs sockets, time or the bytes of a body. Source: Envoy's `FilterManager`.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use meltemi_compile::filter::grpc_stats::{GrpcCall, GrpcStats, service_and_method};
use meltemi_compile::filter::set_filter_state::{ObjectKind, ObjectValue, SetFilterState};
use meltemi_compile::filter::{
    Answer, AnswerFlag, Effect, Event, FilterConfig, FilterState, FilterView, HeadEdit, HttpFilter, Levels,
    PerFilterConfigs, Verdict,
};
use meltemi_compile::route::{Found, RouteAction, WeightedCluster};
use meltemi_http::{Headers, ResponseHead};

use crate::access_log::format::{Missing, render};
use crate::random;
use crate::record::{FilterObject, RecordView, ResponseFlags, State, TakenRoute};
use crate::stream::{LocalReply, Manager, Stream};

mod body;
mod discovery;
mod effect;
mod grpc;
mod health_check;
mod mutation;
mod query;

pub(crate) use self::body::BodyTap;
pub(crate) use self::grpc::GrpcRun;
pub(crate) use self::health_check::CachedHealth;
pub(crate) use self::mutation::TrailerEdits;

/// The filters of one request. Costs nothing until one of them keeps something.
#[derive(Debug, Default)]
pub(crate) struct FilterRun {
    /// A bit per filter that is on; known once the chain is made, with the route of that moment.
    enabled: Option<u64>,
    /// What filters keep, by their place in the chain.
    states: Vec<(usize, FilterState)>,
    active_fault: Option<ActiveFault>,
    /// When the last effect was done; the timers of the route count from here.
    pub(crate) passed_at: Option<Instant>,
    grpc: Option<Rc<GrpcRun>>,
    /// What is done with the bytes of the response.
    pub(crate) tap: Option<Box<BodyTap>>,
}

impl FilterRun {
    fn is_enabled(&self, index: usize) -> bool {
        self.enabled.is_some_and(|bits| bits >> index & 1 == 1)
    }

    fn state(&self, index: usize) -> &FilterState {
        const IDLE: &FilterState = &FilterState::Idle;
        self.states.iter().find(|(at, _)| *at == index).map_or(IDLE, |(_, state)| state)
    }

    /// Leaves for loggers what is only known at the end.
    pub(crate) fn finish(&self, state: &mut State) {
        if let Some(grpc) = &self.grpc {
            grpc.leave(state);
        }
    }

    fn keep(&mut self, index: usize, state: FilterState) {
        if !matches!(state, FilterState::Idle) {
            self.states.push((index, state));
        }
    }
}

/// A fault under way, until dropped; `max_active_faults` counts them.
#[derive(Debug)]
struct ActiveFault {
    manager: Rc<Manager>,
    all: Arc<AtomicU32>,
}

impl ActiveFault {
    fn begin(manager: &Rc<Manager>) -> ActiveFault {
        let all = manager.active_faults.clone();
        all.fetch_add(1, Ordering::Relaxed);
        manager.stats.filters.fault().active_faults.inc();
        ActiveFault { manager: manager.clone(), all }
    }
}

impl Drop for ActiveFault {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
        self.manager.stats.filters.fault().active_faults.dec();
    }
}

/// Why a request does not go past the filters.
pub(crate) enum Stop {
    /// It is answered like this.
    Reply(Box<LocalReply>),
    /// It was answered, or nobody waits for an answer any more.
    Done,
}

impl Stream<'_, '_> {
    /// Passes the request through the filters.
    pub(crate) async fn decode_filters(&mut self) -> Result<(), Stop> {
        let manager = self.manager.clone();
        self.make_chain(&manager.settings.filters);
        for (index, filter) in manager.settings.filters.iter().enumerate() {
            if !self.filters.is_enabled(index) {
                continue;
            }
            let found;
            let filter = match discovery::place(filter) {
                None => filter,
                Some(discovery) => match self.discovered(filter, discovery) {
                    Some(in_place) => {
                        found = in_place;
                        &*found
                    }
                    None => return Err(discovery::missing()),
                },
            };
            if let Err(stop) = self.decode_filter(index, filter).await {
                self.note_cluster();
                return Err(stop);
            }
        }
        Ok(())
    }

    async fn decode_filter(&mut self, index: usize, filter: &HttpFilter) -> Result<(), Stop> {
        let mut state = FilterState::Idle;
        let mut verdict = filter.decode(&*self, &self.levels(), &mut state);
        loop {
            self.note(filter, &state);
            let effect = match verdict {
                Verdict::Continue => break,
                Verdict::Respond(answer) => {
                    self.filters.keep(index, state);
                    return Err(self.respond_with(*answer).await);
                }
                Verdict::Await(effect) => effect,
            };
            Box::pin(self.perform(filter, effect)).await?;
            self.filters.passed_at = Some(Instant::now());
            verdict = filter.resume(&*self, &self.levels(), &mut state);
        }
        self.filters.keep(index, state);
        Ok(())
    }

    /// Names the cluster that the request would have gone to, for loggers.
    fn note_cluster(&mut self) {
        let cluster = self.target_cluster().and_then(|name| self.generation.cluster(&name).cloned());
        self.record.cluster = cluster.map(|cluster| cluster.stats.clone());
    }

    /// Decides which filters are on for this request; only once, as in Envoy.
    fn make_chain(&mut self, filters: &[HttpFilter]) {
        if self.filters.enabled.is_some() {
            return;
        }
        let levels = self.levels();
        let is_on = |filter: &HttpFilter| levels.is_enabled(&filter.name).unwrap_or(!filter.disabled);
        let bits = match levels.is_empty() {
            true => filters.iter().rev().fold(0, |bits, filter| bits << 1 | u64::from(!filter.disabled)),
            false => filters.iter().rev().fold(0, |bits, filter| bits << 1 | u64::from(is_on(filter))),
        };
        self.filters.enabled = Some(bits);
    }

    /// What the route says to filters.
    fn levels(&self) -> Levels<'_> {
        self.levels_of(self.record.found.as_ref())
    }

    fn levels_of<'t>(&self, taken: Option<&'t TakenRoute>) -> Levels<'t> {
        let Some(taken) = taken else { return Levels::NONE };
        let found = taken.found();
        if found.is_tls_redirect() {
            return Levels::NONE;
        }
        let entry = self.entry_configs(found);
        Levels { levels: [entry, &found.route.filters, &found.virtual_host.filters, &found.table.filters] }
    }

    /// Those of the weighted cluster that the request will go to.
    fn entry_configs<'t>(&self, found: Found<'t>) -> &'t PerFilterConfigs {
        match &found.route.action {
            RouteAction::Forward(forward) if forward.has_entry_filters() => {
                self.weighted_entry(found).map_or(PerFilterConfigs::EMPTY, |entry| &entry.filters)
            }
            _ => PerFilterConfigs::EMPTY,
        }
    }

    /// The entry of `weighted_clusters` that the request will go to.
    pub(crate) fn weighted_entry<'t>(&self, found: Found<'t>) -> Option<&'t WeightedCluster> {
        match &found.route.action {
            RouteAction::Forward(forward) => forward.pick(self).entry,
            RouteAction::Redirect(_) | RouteAction::Respond { .. } => None,
        }
    }

    /// Takes over what a filter's state means to others.
    fn note(&mut self, filter: &HttpFilter, state: &FilterState) {
        match (state, &filter.config) {
            (FilterState::Fault(faults), _) if faults.is_active && self.filters.active_fault.is_none() => {
                self.filters.active_fault = Some(ActiveFault::begin(&self.manager));
            }
            (FilterState::Grpc(call), FilterConfig::GrpcStats(config)) => self.begin_grpc(*call, config),
            _ => {}
        }
    }

    fn begin_grpc(&mut self, call: GrpcCall, config: &GrpcStats) {
        let replaced;
        let name = match (call, service_and_method(&self.request.path)) {
            (GrpcCall::Named, Some(name)) if config.replace_dots => {
                replaced = name.replace('.', "_");
                Some(replaced.as_str())
            }
            (GrpcCall::Named, name) => name,
            (GrpcCall::Unnamed, _) => Some(""),
            (GrpcCall::Untracked, _) => None,
        };
        let target = self.target_cluster();
        let cluster = target.and_then(|name| self.generation.cluster(&name).cloned());
        let counts = cluster.zip(name).and_then(|(cluster, name)| cluster.stats.grpc.method(name));
        let run = Rc::new(GrpcRun::new(counts, config.upstream_stats, config.emit_filter_state));
        self.body.count_messages(&run);
        self.filters.grpc = Some(run);
    }

    async fn perform(&mut self, filter: &HttpFilter, effect: Effect) -> Result<(), Stop> {
        match (effect, &filter.config) {
            (Effect::Delay(delay), _) => {
                self.record.flags.insert(ResponseFlags::DELAY_INJECTED);
                effect::delay(self, delay).await
            }
            (Effect::BufferRequest { limit }, _) => effect::read_body(self, Some(limit)).await,
            (Effect::DiscardRequest, _) => effect::read_body(self, None).await,
            (Effect::MutateRequest, FilterConfig::HeaderMutation(config)) => {
                self.mutate_request(config, &filter.name);
                Ok(())
            }
            (Effect::SetFilterState, FilterConfig::SetFilterState(config)) => {
                self.set_filter_state(config, &filter.name);
                Ok(())
            }
            // No other filter asks for these.
            (Effect::MutateRequest | Effect::SetFilterState, _) => Ok(()),
        }
    }

    /// Objects of which nothing can be made are left out, and those that the connection has: as in Envoy, these stay.
    fn set_filter_state(&mut self, config: &SetFilterState, name: &str) {
        let taken = self.record.found.clone();
        let levels = self.levels_of(taken.as_ref());
        let mut clear_route_cache = false;
        for config in config.all(name, &levels) {
            clear_route_cache |= config.clear_route_cache;
            for value in &config.on_request_headers {
                let view = self.record.view(Some(&self.request), None, None);
                let is_free = self.record.connection.state.object(&value.key).is_none();
                if let Some(object) = filter_object(value, &view).filter(|_| is_free) {
                    self.record.state.set_object(value.key.clone(), object);
                }
            }
        }
        if clear_route_cache {
            self.find_route();
        }
    }

    async fn respond_with(&mut self, answer: Answer) -> Stop {
        let flags = match answer.flag {
            Some(AnswerFlag::FaultInjected) => ResponseFlags::FAULT_INJECTED,
            Some(AnswerFlag::FailedLocalHealthCheck) => ResponseFlags::FAILED_LOCAL_HEALTH_CHECK,
            None => ResponseFlags::NONE,
        };
        if answer.verbatim {
            self.record.flags.insert(flags);
            self.record.details = Some(answer.details.into());
            self.record.response_code = answer.status.as_u16();
            let mut head = ResponseHead::new(answer.status);
            answer.headers.into_iter().for_each(|(name, value)| head.headers.append(name, value));
            // A client that went away is noticed and recorded by whoever sends; there is nobody left to tell.
            let _ = self.send_head(head, true).await;
            return Stop::Done;
        }
        let mut reply = LocalReply::new(answer.status, answer.details).flags(flags);
        reply.body = match answer.body {
            Cow::Borrowed(text) => bytes::Bytes::from_static(text.as_bytes()),
            Cow::Owned(text) => text.into(),
        };
        reply.headers = answer.headers;
        reply.grpc_status = answer.grpc_status;
        Stop::Reply(Box::new(reply))
    }

    /// Passes a response head through the filters, the last one first.
    pub(crate) fn encode_filters(&mut self, head: &mut ResponseHead) {
        let manager = self.manager.clone();
        if manager.settings.filters.is_empty() {
            return;
        }
        self.make_chain(&manager.settings.filters);
        let mut tap = BodyTap::default();
        for (index, filter) in manager.settings.filters.iter().enumerate().rev() {
            if self.filters.is_enabled(index) {
                let found;
                let filter = match discovery::place(filter) {
                    None => filter,
                    Some(discovery) => {
                        let Some(in_place) = self.discovered(filter, discovery) else { continue };
                        found = in_place;
                        &*found
                    }
                };
                let edit = filter.encode(&*self, &self.levels(), self.filters.state(index));
                self.edit_head(filter, edit, head, &mut tap);
            }
        }
        self.filters.tap = (!tap.is_idle()).then(|| Box::new(tap));
    }

    fn edit_head(&mut self, filter: &HttpFilter, edit: HeadEdit, head: &mut ResponseHead, tap: &mut BodyTap) {
        match (edit, &filter.config) {
            (HeadEdit::Nothing, _) => {}
            (HeadEdit::Set(fields), _) => set_all(&mut head.headers, fields),
            (HeadEdit::Pace(limit), _) => tap.pace = Some(body::Pace::new(limit)),
            (HeadEdit::HealthChecked, FilterConfig::HealthCheck(config)) => {
                self.health_checked(filter, config, head);
            }
            (HeadEdit::CountGrpc, _) => {
                if let Some(grpc) = &self.filters.grpc {
                    grpc.response_head(head);
                    tap.grpc = Some(grpc.clone());
                }
            }
            (HeadEdit::Mutate, FilterConfig::HeaderMutation(config)) => {
                let edits = self.mutate_response(config, &filter.name, head);
                tap.trailer_edits.extend(Some(edits).filter(|edits| !edits.is_empty()));
            }
            // No other filter asks for these.
            (HeadEdit::Mutate | HeadEdit::HealthChecked, _) => {}
        }
    }
}

/// What a format gives, if an object can be made of it.
pub(crate) fn filter_object(value: &ObjectValue, view: &RecordView<'_>) -> Option<FilterObject> {
    let missing = if value.omit_empty { Missing::Empty } else { Missing::Dash };
    let mut text = Vec::new();
    render(&value.value, view, missing, &mut text);
    let text = String::from_utf8_lossy(&text);
    if text.is_empty() && value.skip_if_empty || !value.kind.takes(&text) {
        return None;
    }
    Some(FilterObject {
        text: text.as_ref().into(),
        is_hashable: value.kind == ObjectKind::HashableText,
        sharing: value.sharing,
    })
}

fn set_all(headers: &mut Headers, fields: Vec<(http::HeaderName, http::HeaderValue)>) {
    fields.into_iter().for_each(|(name, value)| headers.set(name, value));
}

impl FilterView for Stream<'_, '_> {
    fn draw(&self) -> u64 {
        random::next()
    }

    fn count(&self, event: Event) {
        let stats = &self.manager.stats.filters;
        match event {
            Event::OriginValid => stats.cors().origin_valid.inc(),
            Event::OriginInvalid => stats.cors().origin_invalid.inc(),
            Event::DelayInjected { by_downstream_cluster } => {
                stats.fault().delays_injected.inc();
                self.count_for_cluster(by_downstream_cluster, "delays_injected");
            }
            Event::AbortInjected { by_downstream_cluster } => {
                stats.fault().aborts_injected.inc();
                self.count_for_cluster(by_downstream_cluster, "aborts_injected");
            }
            Event::RateLimitInjected => stats.fault().response_rl_injected.inc(),
            Event::FaultsOverflow => stats.fault().faults_overflow.inc(),
        }
    }

    fn active_faults(&self) -> u32 {
        self.manager.active_faults.load(Ordering::Relaxed)
    }

    fn forwards(&self) -> bool {
        let taken = self.record.found.as_ref();
        taken.is_some_and(|taken| matches!(taken.found().route.action, RouteAction::Forward(_)))
    }

    fn is_head_only(&self) -> bool {
        self.body.is_empty() && self.traits.upgrade.is_none()
    }

    fn fails_health_checks(&self) -> bool {
        self.manager.worker.lifecycle.fails_health_checks()
    }

    fn cluster_health(&self, cluster: &str) -> Option<(u32, u32)> {
        self.generation.cluster(cluster).map(|cluster| cluster.membership())
    }

    fn cached_health_check(&self, filter: &str) -> Option<http::StatusCode> {
        self.manager.cached_health.get(filter)
    }

    fn target_cluster(&self) -> Option<Cow<'_, str>> {
        match &self.record.found.as_ref()?.found().route.action {
            RouteAction::Forward(forward) => Some(forward.pick(self).cluster.text(self)),
            RouteAction::Redirect(_) | RouteAction::Respond { .. } => None,
        }
    }
}

impl Stream<'_, '_> {
    /// `fault.<downstream cluster>.<counter>`, for clients that say which cluster they are.
    fn count_for_cluster(&self, wanted: bool, counter: &'static str) {
        static DOWNSTREAM_CLUSTER: http::HeaderName =
            http::HeaderName::from_static("x-envoy-downstream-service-cluster");
        let cluster = self.request.headers.get_str(&DOWNSTREAM_CLUSTER).filter(|cluster| !cluster.is_empty());
        if let Some(cluster) = cluster.filter(|_| wanted) {
            self.manager.stats.filters.named(&["fault.", cluster, ".", counter]).inc();
        }
    }
}
