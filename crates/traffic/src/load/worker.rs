//! One request after the other on one connection or one share of it.
//!
//! Owns connecting again and telling failures apart.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderName;
use meltemi_http::client::{ClientExchange, H1, H1Options, H2};
use meltemi_http::{ClientError, H2Options, RequestHead};
use meltemi_runtime::task;
use tokio::sync::Mutex;

use super::pace::Pace;
use super::tally::{Failure, Tally};
use crate::dial::dial;
use crate::target::Target;

/// Pause of a worker after it could not connect: a dead server should not be hammered at the speed of the loop.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Lateness that counts as late.
const LATE: Duration = Duration::from_millis(1);

/// What is sent.
pub(super) struct Plan {
    pub(super) target: Target,
    pub(super) request: RequestHead,
    pub(super) body: Option<Bytes>,
    pub(super) timeout: Duration,
    pub(super) version_header: HeaderName,
}

/// How a worker sends.
#[expect(clippy::large_enum_variant, reason = "one per worker, for the whole run")]
pub(super) enum Transport {
    /// Its own connection.
    Http1(Option<H1>),
    /// A connection shared with other workers.
    Http2(Rc<Shared>),
}

/// An HTTP/2 connection and the lock under which one worker dials it for all.
pub(super) struct Shared {
    connection: RefCell<Option<H2>>,
    dialling: Mutex<()>,
}

/// A complete response.
struct Answer {
    status: u16,
    version: Option<String>,
    body_bytes: u64,
}

/// What stood in the way of one.
enum Trouble {
    Connect(std::io::Error),
    Http(ClientError),
}

impl Transport {
    pub(super) fn http1() -> Transport {
        Transport::Http1(None)
    }

    pub(super) fn http2() -> Transport {
        Transport::Http2(Rc::new(Shared { connection: RefCell::new(None), dialling: Mutex::new(()) }))
    }

    /// A further worker on the same connection; on HTTP/1 one of its own.
    pub(super) fn share(&self) -> Transport {
        match self {
            Transport::Http1(_) => Transport::Http1(None),
            Transport::Http2(shared) => Transport::Http2(Rc::clone(shared)),
        }
    }
}

/// Sends until the schedule ends.
pub(super) async fn run(plan: Rc<Plan>, mut transport: Transport, pace: Rc<Pace>, tally: Rc<RefCell<Tally>>) {
    while let Some(intended) = pace.next().await {
        if intended.elapsed() > LATE {
            tally.borrow_mut().late += 1;
        }
        let answered = tokio::time::timeout(plan.timeout, send(&plan, &mut transport, &tally)).await;
        let mut pause = false;
        match answered {
            Ok(Ok(answer)) => {
                let mut tally = tally.borrow_mut();
                tally.answered(answer.status, answer.version.as_deref(), intended.elapsed());
                tally.body_bytes += answer.body_bytes;
            }
            Ok(Err(trouble)) => {
                pause = matches!(trouble, Trouble::Connect(_));
                tally.borrow_mut().failed(trouble.failure(), trouble.to_string());
            }
            Err(_) => {
                if let Transport::Http1(connection) = &mut transport {
                    *connection = None;
                }
                tally.borrow_mut().failed(Failure::Timeout, format!("no response within {:?}", plan.timeout));
            }
        }
        if pause {
            tokio::time::sleep(CONNECT_PAUSE).await;
        }
    }
}

async fn send(plan: &Plan, transport: &mut Transport, tally: &RefCell<Tally>) -> Result<Answer, Trouble> {
    match transport {
        Transport::Http1(connection) => send_http1(plan, connection, tally).await,
        Transport::Http2(shared) => send_http2(plan, shared, tally).await,
    }
}

async fn send_http1(plan: &Plan, slot: &mut Option<H1>, tally: &RefCell<Tally>) -> Result<Answer, Trouble> {
    if let Some(mut reused) = slot.take() {
        let mut context = Context::from_waker(Waker::noop());
        if reused.poll_idle_closed(&mut context).is_pending() {
            match exchange(plan, reused.exchange()).await {
                // The server closed while the request was on its way; it cannot have been processed as far as HTTP can
                // tell (RFC 9112, 9.3.1), and every client sends it again.
                Err(ClientError::ClosedBeforeResponse) => tally.borrow_mut().resent += 1,
                answered => {
                    *slot = reused.is_reusable().then_some(reused);
                    return answered.map_err(Trouble::Http);
                }
            }
        }
    }
    tally.borrow_mut().connections += 1;
    let io = dial(&plan.target.host, plan.target.port).await.map_err(Trouble::Connect)?;
    let mut connection = H1::new(io, H1Options::default());
    let answered = exchange(plan, connection.exchange()).await;
    *slot = connection.is_reusable().then_some(connection);
    answered.map_err(Trouble::Http)
}

async fn send_http2(plan: &Plan, shared: &Shared, tally: &RefCell<Tally>) -> Result<Answer, Trouble> {
    let resent = Cell::new(false);
    loop {
        let connection = connect_http2(plan, shared, tally).await?;
        let answered = async { exchange(plan, connection.open().await?).await };
        match answered.await {
            Err(ClientError::Refused) if !resent.replace(true) => tally.borrow_mut().resent += 1,
            answered => return answered.map_err(Trouble::Http),
        }
    }
}

/// The shared connection, dialled by the first worker that finds none.
async fn connect_http2(plan: &Plan, shared: &Shared, tally: &RefCell<Tally>) -> Result<H2, Trouble> {
    let _dialling = shared.dialling.lock().await;
    if let Some(connection) = shared.connection.borrow().as_ref().filter(|connection| !connection.is_closed())
    {
        return Ok(connection.clone());
    }
    tally.borrow_mut().connections += 1;
    let io = dial(&plan.target.host, plan.target.port).await.map_err(Trouble::Connect)?;
    let (connection, driver) = H2::handshake(io, &H2Options::default()).await.map_err(Trouble::Http)?;
    task::spawn_local("load connection", async move {
        if let Err(error) = driver.run().await {
            tracing::debug!(%error, "connection ended");
        }
    })
    .detach();
    *shared.connection.borrow_mut() = Some(connection.clone());
    Ok(connection)
}

async fn exchange(plan: &Plan, mut exchange: ClientExchange<'_>) -> Result<Answer, ClientError> {
    exchange.send.head(plan.request.clone(), plan.body.is_none()).await?;
    if let Some(body) = &plan.body {
        exchange.send.data(body.clone(), true).await?;
    }
    let mut head = exchange.recv.head().await?;
    while head.status.is_informational() {
        head = exchange.recv.head().await?;
    }
    while exchange.recv.next().await?.is_some() {}
    Ok(Answer {
        status: head.status.as_u16(),
        version: head.headers.get_str(&plan.version_header).map(str::to_owned),
        body_bytes: exchange.recv.received_bytes(),
    })
}

impl Trouble {
    fn failure(&self) -> Failure {
        match self {
            Trouble::Connect(_) => Failure::Connect,
            Trouble::Http(ClientError::ClosedBeforeResponse | ClientError::Io(_)) => Failure::Closed,
            Trouble::Http(ClientError::Truncated) => Failure::Truncated,
            Trouble::Http(ClientError::Refused | ClientError::Reset(_)) => Failure::Reset,
            Trouble::Http(ClientError::Protocol(_) | ClientError::Misuse(_)) => Failure::Protocol,
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Connect(error) => write!(f, "connecting: {error}"),
            Trouble::Http(error) => write!(f, "{error}"),
        }
    }
}
