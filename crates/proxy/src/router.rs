//! Forwarding a request: pick, lease, send, relay, and again when a retry policy says so.
//!
//! Owns the life of a request between the decision of its route and the end of its response. Leaves out matching
//! (`meltemi-compile`), connections (`upstream`) and the moving of bodies (`relay`). Source: Envoy's router filter.

pub(crate) mod asked;
mod attempt;
mod fault;
mod hash;
pub(crate) mod max_duration;
mod mirror;
mod plan;
mod redirect;
mod retry;
mod timers;
mod tunnel;
mod upload;

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http::StatusCode;
use meltemi_compile::route::{Forward, Found};
use meltemi_http::Responder;

use self::attempt::Ended;
pub(crate) use self::fault::Fault;
use self::plan::Plan;
pub(crate) use self::redirect::Redirects;
use self::timers::Timers;
use crate::record::ResponseFlags;
use crate::stream::{LocalReply, Stream};
use crate::upstream::outlier;

/// Why an attempt stopped before its response.
#[derive(Debug)]
enum Stop {
    /// The upstream, or a limit of ours; the flag says whether bytes of the request may have been sent.
    Fault(Fault, bool),
    /// The client went away.
    ClientGone,
    /// The client's body is not HTTP.
    BadBody,
}

/// Forwards a request and relays the response; an error is to be answered in its place.
pub(crate) async fn forward(
    stream: &mut Stream<'_, '_>,
    found: Found<'_>,
    forward: &Forward,
) -> Result<(), LocalReply> {
    let mut plan = Plan::new(stream, found, forward).map_err(|fault| fault.reply(false))?;
    let timers = plan.prepare(stream);
    plan.mirror(stream);
    let outcome = plan.attempts(stream, &timers).await;
    plan.send_copies(stream);
    if stream.body.outgrew() {
        plan.cluster.stats.counts.retry_or_shadow_abandoned.inc();
    }
    let Err(stop) = outcome else { return Ok(()) };
    match stop {
        Stop::Fault(fault, _) => {
            plan.count_fault(stream, &fault);
            stream.body.stop_keeping();
            stream.body.take_ready();
            Err(plan.reply(stream, &fault))
        }
        Stop::ClientGone => {
            client_gone(stream);
            Ok(())
        }
        Stop::BadBody => {
            let reply = LocalReply::new(StatusCode::BAD_REQUEST, "http1.codec_error").body("Bad Request");
            Err(reply.flags(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR))
        }
    }
}

/// Notes that nobody waits for the response any more.
pub(crate) fn client_gone(stream: &mut Stream<'_, '_>) {
    stream.manager.stats.counts.downstream_rq_rx_reset.inc();
    let (flag, details) = match stream.respond.is_reset() {
        true => (ResponseFlags::DOWNSTREAM_REMOTE_RESET, "http2.remote_reset"),
        false => (ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION, "downstream_remote_disconnect"),
    };
    stream.record.flags.insert(flag);
    stream.record.details = Some(details.into());
}

impl Plan<'_> {
    /// Tries until there is an outcome that stands.
    async fn attempts(&mut self, stream: &mut Stream<'_, '_>, timers: &Timers) -> Result<(), Stop> {
        loop {
            match self.attempt(stream, timers).await? {
                Ended::Answered | Ended::Redirected => return Ok(()),
                Ended::Retry(pause) => self.pause(stream, timers, pause).await?,
            }
        }
    }

    /// Waits before a retry.
    async fn pause(&self, stream: &mut Stream<'_, '_>, timers: &Timers, pause: Duration) -> Result<(), Stop> {
        timers.end_try();
        guard(tokio::time::sleep(pause), &mut stream.respond, timers).await
    }

    /// Counts a fault that no retry hides.
    fn count_fault(&self, stream: &Stream<'_, '_>, fault: &Fault) {
        fault.count(&stream.manager.stats.counts);
        let Some(status) = fault.upstream_status() else { return };
        self.cluster.stats.codes.record(status.as_u16());
        if let Some(host) = stream.record.host.as_ref().filter(|_| status.is_server_error()) {
            host.counts.rq_error.inc();
        }
    }

    /// The answer for a fault.
    fn reply(&self, stream: &mut Stream<'_, '_>, fault: &Fault) -> LocalReply {
        let mut reply = fault.reply(stream.record.attempts > 1);
        if self.alt_response && fault.is_timeout() {
            reply.status = StatusCode::NO_CONTENT;
            reply.body = bytes::Bytes::new();
        }
        self.with_own_headers(stream, reply)
    }

    /// Takes a fault of an attempt into account; gives the pause when it is tried again.
    fn after_fault(&mut self, stream: &mut Stream<'_, '_>, fault: Fault, sent: bool) -> Result<Ended, Stop> {
        if let (Some(host), Some(outcome)) = (&self.host, fault.outlier_outcome()) {
            outlier::observe(&self.cluster, host, outcome);
        }
        self.count_timeout(stream, &fault);
        if let Fault::ConnectFailed(reason) = &fault {
            stream.record.upstream_failure = Some((**reason).into());
        }
        let condition = fault.retry_condition(sent).filter(|_| stream.body.can_replay());
        let decision = match (&mut self.retry, condition) {
            (Some(retry), Some(reset)) => retry.after_reset(reset, &self.cluster, self.priority),
            _ => retry::Decision::No,
        };
        match decision {
            retry::Decision::After(pause) => {
                if let Some(host) = &stream.record.host {
                    host.counts.rq_error.inc();
                }
                return Ok(Ended::Retry(pause));
            }
            retry::Decision::Refused(flag) => stream.record.flags.insert(flag),
            retry::Decision::No => {}
        }
        Err(Stop::Fault(fault, sent))
    }

    fn count_timeout(&self, stream: &Stream<'_, '_>, fault: &Fault) {
        let counts = &self.cluster.stats.counts;
        match fault {
            Fault::RouteTimeout => counts.upstream_rq_timeout.inc(),
            Fault::PerTryTimeout => counts.upstream_rq_per_try_timeout.inc(),
            Fault::PerTryIdleTimeout => counts.upstream_rq_per_try_idle_timeout.inc(),
            Fault::RemoteReset | Fault::RemoteRefused => return counts.upstream_rq_rx_reset.inc(),
            _ => return,
        }
        if let Some(host) = &stream.record.host {
            host.counts.rq_timeout.inc();
        }
    }
}

/// Does some work while the client waits and time is left.
async fn guard<T>(
    work: impl Future<Output = T>,
    respond: &mut Responder<'_>,
    timers: &Timers,
) -> Result<T, Stop> {
    let mut work = pin!(work);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        if respond.poll_closed(cx).is_ready() {
            return Poll::Ready(Err(Stop::ClientGone));
        }
        timers.poll_expired(cx).map(|fault| Err(Stop::Fault(fault, false)))
    })
    .await
}
