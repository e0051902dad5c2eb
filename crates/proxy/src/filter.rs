//! Running the HTTP filters of a request: the walk over the chain, and the effects that verdicts ask for.
//!
//! Requests pass the filters in order before the route's action is done, responses (ours too) in reverse order before
//! the connection manager finishes them. What a filter decides is pure (`meltemi_compile::filter`); a filter has a
//! file here only if it needs sockets, time or the bytes of a body. Source: Envoy's `FilterManager`.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use meltemi_compile::filter::{
    Answer, AnswerFlag, Effect, Event, FilterState, FilterView, HeadEdit, HttpFilter, Levels,
    PerFilterConfigs, Verdict,
};
use meltemi_compile::route::{ClusterChoice, Found, RouteAction};
use meltemi_http::{Headers, ResponseHead};

use crate::random;
use crate::record::ResponseFlags;
use crate::stream::{LocalReply, Manager, Stream};

mod effect;

pub(crate) use self::effect::Gone;

/// The filters of one request. Costs nothing until one of them keeps something.
#[derive(Debug, Default)]
pub(crate) struct FilterRun {
    /// A bit per filter that is on; known once the chain is made, with the route of that moment.
    enabled: Option<u64>,
    /// What filters keep, by their place in the chain.
    states: Vec<(usize, FilterState)>,
    active_fault: Option<ActiveFault>,
}

impl FilterRun {
    fn is_enabled(&self, index: usize) -> bool {
        self.enabled.is_some_and(|bits| bits >> index & 1 == 1)
    }

    fn state(&self, index: usize) -> &FilterState {
        const IDLE: &FilterState = &FilterState::Idle;
        self.states.iter().find(|(at, _)| *at == index).map_or(IDLE, |(_, state)| state)
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
            if self.filters.is_enabled(index) {
                self.decode_filter(index, filter).await?;
            }
        }
        Ok(())
    }

    async fn decode_filter(&mut self, index: usize, filter: &HttpFilter) -> Result<(), Stop> {
        let mut state = FilterState::Idle;
        let mut verdict = filter.decode(&*self, &self.levels(), &mut state);
        loop {
            self.note(&state);
            let effect = match verdict {
                Verdict::Continue => break,
                Verdict::Respond(answer) => {
                    self.filters.keep(index, state);
                    return Err(self.respond_with(*answer).await);
                }
                Verdict::Await(effect) => effect,
            };
            if let Err(Gone) = Box::pin(self.perform(effect)).await {
                return Err(Stop::Done);
            }
            verdict = filter.resume(&*self, &self.levels(), &mut state);
        }
        self.filters.keep(index, state);
        Ok(())
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
        let Some(taken) = &self.record.found else { return Levels::NONE };
        let found = taken.found();
        if found.is_tls_redirect() {
            return Levels::NONE;
        }
        let entry = self.entry_configs(found);
        Levels { levels: [entry, &found.route.filters, &found.virtual_host.filters, &found.table.filters] }
    }

    /// Those of the weighted cluster that the request will go to.
    fn entry_configs<'a>(&'a self, found: Found<'a>) -> &'a PerFilterConfigs {
        let RouteAction::Forward(forward) = &found.route.action else { return PerFilterConfigs::EMPTY };
        match &forward.cluster {
            ClusterChoice::Weighted(weighted) if weighted.has_filters => {
                forward.pick(self).entry.map_or(PerFilterConfigs::EMPTY, |entry| &entry.filters)
            }
            _ => PerFilterConfigs::EMPTY,
        }
    }

    /// Takes over what a filter's state means to others.
    fn note(&mut self, state: &FilterState) {
        if let FilterState::Fault(faults) = state
            && faults.is_active
            && self.filters.active_fault.is_none()
        {
            self.filters.active_fault = Some(ActiveFault::begin(&self.manager));
        }
    }

    async fn perform(&mut self, effect: Effect) -> Result<(), Gone> {
        match effect {
            Effect::Delay(delay) => {
                self.record.flags.insert(ResponseFlags::DELAY_INJECTED);
                effect::delay(self, delay).await
            }
        }
    }

    async fn respond_with(&mut self, answer: Answer) -> Stop {
        let flags = match answer.flag {
            Some(AnswerFlag::FaultInjected) => ResponseFlags::FAULT_INJECTED,
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
        for (index, filter) in manager.settings.filters.iter().enumerate().rev() {
            if !self.filters.is_enabled(index) {
                continue;
            }
            match filter.encode(&self.levels(), self.filters.state(index)) {
                HeadEdit::Nothing => {}
                HeadEdit::Set(fields) => set_all(&mut head.headers, fields),
            }
        }
    }
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
