//! One attempt: pick a host, lease a connection, send, wait for the head, relay.

use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use meltemi_compile::metadata_match::{LB_NAMESPACE, MetadataMatch};
use meltemi_http::client::{ClientExchange, ResponseReceiver};
use meltemi_http::{BodyError, ClientError, Reason, ResponseHead, Version};
use tokio::time::Instant;

use super::fault::Fault;
use super::plan::Plan;
use super::retry::Decision;
use super::timers::Timers;
use super::upload::{UploadError, upload};
use super::{Stop, guard, tunnel};
use crate::record::ResponseFlags;
use crate::relay::{self, Relayed};
use crate::stream::{Stream, names};
use crate::upstream::outlier::Outcome;
use crate::upstream::pool::{Lease, LeaseError};
use crate::upstream::shared::{Permit, Resource};
use crate::upstream::transport::TransportOptions;
use crate::upstream::{ActiveRequest, Host, PickContext, outlier};

/// How an attempt ended, if not with a fault.
#[derive(Debug)]
pub(super) enum Ended {
    /// The response is out, or was broken off after it began.
    Answered,
    /// The request is another now, see [`super::redirect`].
    Redirected,
    /// Another attempt, after a pause.
    Retry(Duration),
}

/// The request body on its way. Boxed: requests without a body, the most, have none.
type Upload<'u> = Option<Pin<Box<dyn Future<Output = Result<(), UploadError>> + 'u>>>;

/// What happened first.
enum Event<T> {
    Main(T),
    Uploaded(Result<(), UploadError>),
    ClientGone,
    Expired(Fault),
}

impl Plan<'_> {
    /// Tries once.
    pub(super) async fn attempt(
        &mut self,
        stream: &mut Stream<'_, '_>,
        timers: &Timers,
    ) -> Result<Ended, Stop> {
        if self.host.is_some() {
            self.begin_retry(stream, timers);
        }
        match self.exchange(stream, timers).await {
            Err(Stop::Fault(fault, sent)) => self.after_fault(stream, fault, sent),
            other => other,
        }
    }

    fn begin_retry(&mut self, stream: &mut Stream<'_, '_>, timers: &Timers) {
        stream.record.attempts += 1;
        let elapsed = timers.request_end().map_or(Duration::ZERO, |end| end.elapsed());
        self.announce(stream, elapsed);
    }

    async fn exchange(&mut self, stream: &mut Stream<'_, '_>, timers: &Timers) -> Result<Ended, Stop> {
        let host = self.pick(stream)?;
        let options = TransportOptions { record: Some(&stream.record), request: Some(&stream.request) };
        let leased = self.lease(&host, stream.request.version, options);
        let leased = guard(leased, &mut stream.respond, timers).await?;
        let mut lease = leased.map_err(|error| self.lease_fault(stream, error.into()))?;
        let _active = self.admit(&host)?;
        outlier::observe(&self.cluster, &host, Outcome::Connected);
        stream.record.upstream_local = lease.local_address();
        stream.record.upstream_tls = lease.tls().cloned();
        let version = lease.version();
        stream.record.upstream_protocol = Some(version).filter(|_| !self.terminates);

        let ClientExchange { mut send, mut recv } = lease.exchange();
        let body = stream.body;
        let ends = body.is_empty() && !self.is_upgrade;
        send.head(&*self.head_for(stream, &host), ends)
            .await
            .map_err(|error| Stop::Fault(error.into(), true))?;
        let mut rising: Upload<'_> = None;
        if ends {
            timers.begin_try(self.per_try_timeout, self.per_try_idle);
        }
        if self.is_upgrade {
            send.flush().await.map_err(|error| Stop::Fault(error.into(), true))?;
            if stream.request.version != Version::Http2 && !body.is_complete() {
                rising = Some(Box::pin(tunnel::prologue(body, &mut send, timers)));
            }
        } else if !ends {
            rising = Some(Box::pin(upload(body, 0, &mut send, timers)));
        }

        let mut head = self.await_head(stream, timers, &mut recv, &mut rising).await?;
        timers.head_received();
        if let Some(ended) = self.observe(stream, &host, &head) {
            return Ok(ended);
        }
        if !self.is_mirrored() {
            body.stop_keeping();
        }
        let is_accepted = self.is_upgrade && accepts_upgrade(stream, &head);
        let is_failed_handshake = tunnel::is_failed_handshake(stream, &head);
        self.finish_response(stream, &mut head, timers);
        if is_failed_handshake {
            tunnel::fail_handshake(stream, &mut head);
        }
        stream.finish_head(&mut head, is_accepted);
        let begun = match is_accepted {
            true => stream.respond.upgrade(head).await,
            false => stream.respond.head(head, is_failed_handshake || recv.is_end()).await,
        };
        let mut rising: Upload<'_> = match is_accepted {
            // From here on both directions carry raw bytes.
            true => {
                drop(rising);
                let client = stream.request.version;
                Some(Box::pin(tunnel::ascend(body, &mut send, timers, client)))
            }
            false => rising,
        };
        let relayed = match begun {
            Ok(()) if is_failed_handshake => Ok(Relayed::default()),
            Ok(()) => self.relay(stream, timers, &mut recv, &mut rising).await,
            Err(_) => Err(Stop::ClientGone),
        };
        drop(rising);
        if is_accepted && relayed.is_ok() && version != Version::Http2 && !self.terminates {
            tunnel::closed_by_upstream(stream);
        }
        self.finish(stream, relayed, &host).await;
        if !send.is_finished() {
            send.reset(Reason::CANCEL);
        }
        Ok(Ended::Answered)
    }

    async fn lease(
        &self,
        host: &Rc<Host>,
        version: Version,
        options: TransportOptions<'_>,
    ) -> Result<Lease, LeaseError> {
        match self.terminates {
            true => host.pool.lease_raw(self.priority, options).await,
            false => host.pool.lease(version, self.priority, options).await,
        }
    }

    fn pick(&mut self, stream: &mut Stream<'_, '_>) -> Result<Rc<Host>, Stop> {
        let hash = self.hash(stream);
        let of_route = match self.entry {
            Some(entry) => entry.metadata_match.as_ref(),
            None => self.forward.metadata_match.as_ref(),
        };
        // What filters say of the request wins over the route.
        let of_request = stream.record.metadata().namespace(LB_NAMESPACE).map(MetadataMatch::new);
        let merged = match (&of_request, of_route) {
            (Some(own), Some(route)) => Some(route.merged(own)),
            _ => of_request,
        };
        let metadata = merged.as_ref().or(of_route);
        let is_retry = self.host.is_some();
        let context = self.retry.as_ref().map(|retry| retry.context(is_retry)).unwrap_or_default();
        let context = PickContext {
            hash,
            metadata,
            headers: Some(&stream.request.headers),
            original_destination: stream.record.connection.original_destination,
            ..context
        };
        let Some(host) = self.cluster.pick(&context) else {
            self.cluster.stats.counts.upstream_cx_none_healthy.inc();
            stream.record.host = None;
            return Err(Stop::Fault(Fault::NoHealthyUpstream, false));
        };
        if let Some(retry) = &mut self.retry {
            retry.attempted(&host);
        }
        self.host = Some(host.clone());
        stream.record.host = Some(host.stats.clone());
        Ok(host)
    }

    /// `max_requests` of the circuit breaker.
    fn admit(&self, host: &Rc<Host>) -> Result<ActiveRequest, Stop> {
        let limit = self.cluster.config.circuit_breakers[self.priority].max_requests;
        match Permit::take(&self.cluster.shared, self.priority, Resource::Requests, limit) {
            Some(permit) => Ok(ActiveRequest::new(host.clone(), permit)),
            None => {
                self.cluster.stats.counts.upstream_rq_active_overflow.inc();
                Err(Stop::Fault(Fault::Overflow, false))
            }
        }
    }

    /// No connection. A breaker's refusal says nothing about the host.
    fn lease_fault(&self, stream: &mut Stream<'_, '_>, fault: Fault) -> Stop {
        match fault {
            Fault::Overflow => stream.record.host = None,
            _ => self.cluster.stats.counts.upstream_rq_pending_failure_eject.inc(),
        }
        Stop::Fault(fault, false)
    }

    /// Waits for the final head while the body goes up.
    async fn await_head(
        &mut self,
        stream: &mut Stream<'_, '_>,
        timers: &Timers,
        recv: &mut ResponseReceiver<'_>,
        upload: &mut Upload<'_>,
    ) -> Result<ResponseHead, Stop> {
        loop {
            let event = std::future::poll_fn(|cx| {
                if let Poll::Ready(head) = recv.poll_head(cx) {
                    return Poll::Ready(Event::Main(head));
                }
                if let Some(Poll::Ready(done)) = upload.as_mut().map(|upload| upload.as_mut().poll(cx)) {
                    return Poll::Ready(Event::Uploaded(done));
                }
                if stream.respond.poll_closed(cx).is_ready() {
                    return Poll::Ready(Event::ClientGone);
                }
                timers.poll_expired(cx).map(Event::Expired)
            });
            match event.await {
                Event::Main(Ok(head)) if is_interim(&head) => relay_interim(stream, head).await?,
                Event::Main(Ok(head)) => return Ok(head),
                Event::Main(Err(error)) => return Err(Stop::Fault(error.into(), true)),
                Event::Uploaded(done) => {
                    *upload = None;
                    self.uploaded(stream, timers, done)?;
                }
                Event::ClientGone => return Err(Stop::ClientGone),
                Event::Expired(fault) => return Err(Stop::Fault(fault, true)),
            }
        }
    }

    /// The body is up, or will not be.
    fn uploaded(
        &mut self,
        stream: &mut Stream<'_, '_>,
        timers: &Timers,
        done: Result<(), UploadError>,
    ) -> Result<(), Stop> {
        match done {
            // A tunnel is still to come.
            Ok(()) if self.is_upgrade => Ok(()),
            Ok(()) => {
                let now = Instant::now();
                stream.record.request_end.get_or_insert(now.into_std());
                timers.request_complete(now);
                self.send_copies(stream);
                timers.begin_try(self.per_try_timeout, self.per_try_idle);
                Ok(())
            }
            Err(UploadError::Client(BodyError::Protocol(_))) => Err(Stop::BadBody),
            Err(UploadError::Client(_)) => Err(Stop::ClientGone),
            // The response, or the end of the connection, will tell why.
            Err(UploadError::Upstream(error)) => {
                tracing::trace!(%error, "upstream takes no more of the request");
                Ok(())
            }
        }
    }

    /// Counts a response and decides whether it is retried, or followed.
    fn observe(&mut self, stream: &mut Stream<'_, '_>, host: &Host, head: &ResponseHead) -> Option<Ended> {
        let status = head.status.as_u16();
        if self.cluster.config.health_check.is_some()
            && head.headers.contains(&names::IMMEDIATE_HEALTH_CHECK_FAIL)
        {
            self.cluster.shared.fail_passively(&host.state);
        }
        outlier::observe(&self.cluster, host, Outcome::Status(outlier_status(stream, head)));
        let may_replay = stream.body.can_replay();
        let decision = match &mut self.retry {
            Some(retry) if may_replay => retry.after_response(head, &self.cluster, self.priority),
            _ => Decision::No,
        };
        match decision {
            Decision::After(pause) => {
                host.stats.counts.rq_error.inc();
                return Some(Ended::Retry(pause));
            }
            Decision::Refused(flag) => stream.record.flags.insert(flag),
            Decision::No => {}
        }
        if self.follows(stream, head) {
            return Some(Ended::Redirected);
        }
        self.cluster.stats.codes.record(status);
        let counter = if status >= 500 { &host.stats.counts.rq_error } else { &host.stats.counts.rq_success };
        counter.inc();
        None
    }

    /// Relays the response body while the rest of the request goes up.
    async fn relay(
        &self,
        stream: &mut Stream<'_, '_>,
        timers: &Timers,
        recv: &mut ResponseReceiver<'_>,
        upload: &mut Upload<'_>,
    ) -> Result<Relayed, Stop> {
        if recv.is_end() {
            return Ok(Relayed::default());
        }
        let mut main =
            pin!(
                relay::relay(recv, &mut stream.respond, stream.filters.tap.as_deref_mut(), || timers.touch(),)
            );
        loop {
            let event = std::future::poll_fn(|cx| {
                if let Poll::Ready(relayed) = main.as_mut().poll(cx) {
                    return Poll::Ready(Event::Main(relayed));
                }
                if let Some(Poll::Ready(done)) = upload.as_mut().map(|upload| upload.as_mut().poll(cx)) {
                    return Poll::Ready(Event::Uploaded(done));
                }
                timers.poll_expired(cx).map(Event::Expired)
            });
            match event.await {
                Event::Main(Ok(relayed)) => return Ok(relayed),
                Event::Main(Err(relay::RelayError::Upstream(error))) => return Err(broken(error)),
                Event::Main(Err(relay::RelayError::Client)) | Event::ClientGone => {
                    return Err(Stop::ClientGone);
                }
                Event::Uploaded(done) => {
                    *upload = None;
                    note_upload(timers, done)?;
                }
                Event::Expired(fault) => return Err(Stop::Fault(fault, true)),
            }
        }
    }

    /// Notes how the response ended after it had begun.
    async fn finish(&self, stream: &mut Stream<'_, '_>, relayed: Result<Relayed, Stop>, host: &Host) {
        match relayed {
            Ok(relayed) => {
                stream.trailers = relayed.trailers;
                if let (Some(start), Some(end)) = (stream.record.request_end, stream.record.response_start) {
                    let time = end.saturating_duration_since(start);
                    self.cluster.stats.counts.upstream_rq_time.record_millis(time);
                }
            }
            Err(Stop::Fault(fault, _)) => {
                stream.record.flags.insert(fault.flags());
                stream.record.details = Some(fault.details(true));
                stream.manager.stats.counts.rq_reset_after_downstream_response_started.inc();
                self.count_timeout(stream, &fault);
                fault.count(&stream.manager.stats.counts);
                if let Some(outcome) = fault.outlier_outcome() {
                    outlier::observe(&self.cluster, host, outcome);
                }
                stream.respond.break_off(Reason::INTERNAL_ERROR).await;
            }
            Err(Stop::BadBody) => {
                stream.record.flags.insert(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
                stream.record.details = Some("http1.codec_error".into());
                stream.respond.break_off(Reason::INTERNAL_ERROR).await;
            }
            Err(Stop::ClientGone) => super::client_gone(stream),
        }
    }
}

/// The upstream broke off inside a response.
fn broken(error: ClientError) -> Stop {
    Stop::Fault(error.into(), true)
}

/// The body is up, or will not be, after the response began: only the client's faults still matter.
fn note_upload(timers: &Timers, done: Result<(), UploadError>) -> Result<(), Stop> {
    match done {
        Ok(()) => {
            timers.request_complete(Instant::now());
            Ok(())
        }
        Err(UploadError::Client(BodyError::Protocol(_))) => Err(Stop::BadBody),
        Err(UploadError::Client(_)) => Err(Stop::ClientGone),
        Err(UploadError::Upstream(_)) => Ok(()),
    }
}

/// Passes an informational response on, if the connection manager says so: otherwise `expect: 100-continue` was answered
/// already, and others are dropped.
async fn relay_interim(stream: &mut Stream<'_, '_>, mut head: ResponseHead) -> Result<(), Stop> {
    if !stream.manager.settings.proxies_100_continue {
        return Ok(());
    }
    head.headers.retain(|name, _| !meltemi_http::is_hop_by_hop(name));
    stream.respond.informational(head).await.map_err(|_| Stop::ClientGone)
}

fn is_interim(head: &ResponseHead) -> bool {
    head.status.is_informational() && head.status != http::StatusCode::SWITCHING_PROTOCOLS
}

fn accepts_upgrade(stream: &Stream<'_, '_>, head: &ResponseHead) -> bool {
    if stream.request.method == http::Method::CONNECT {
        return head.status.is_success();
    }
    head.status == http::StatusCode::SWITCHING_PROTOCOLS
}

/// The status that outlier detection sees: a gRPC failure in the head counts as what it maps to.
fn outlier_status(stream: &Stream<'_, '_>, head: &ResponseHead) -> u16 {
    if !stream.traits.is_grpc {
        return head.status.as_u16();
    }
    match head.headers.get(&names::GRPC_STATUS).and_then(|value| value.to_str().ok()) {
        Some("0") => 200,
        Some("2" | "13" | "15") => 500,
        Some("4") => 504,
        Some("12") => 501,
        Some("14") => 503,
        Some("8") => 429,
        Some(_) => 400,
        None => head.status.as_u16(),
    }
}
