//! A rustls session of either side, and the steps that it takes over the bytes that came.

use std::fmt;
use std::io;

use bytes::{Buf, BytesMut};
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{CommonState, Error};

/// What encryption adds to plaintext in all: less than this per record of 16 KiB.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// Room for an alert or the like.
const ALERT_BYTES: usize = 256;

/// A session of either side.
pub enum Session {
    /// We answer.
    Server(Box<UnbufferedServerConnection>),
    /// We ask.
    Client(Box<UnbufferedClientConnection>),
}

/// How far a session came with the bytes that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// To a piece of plaintext.
    Plaintext,
    /// To the end: there is no whole record left.
    Starved,
    /// To `close_notify`.
    Ended,
}

/// What one state of rustls asks for next.
enum Step {
    Again,
    Stop(Progress),
}

/// What a session writes.
enum Message<'b> {
    Plaintext(&'b [u8]),
    CloseNotify,
}

impl Session {
    /// What both sides have in common: certificates, versions, protocols.
    pub fn state(&self) -> &CommonState {
        match self {
            Session::Server(session) => session,
            Session::Client(session) => session,
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.state().is_handshaking()
    }

    /// Goes on until there is plaintext or nothing left to understand; answers of its own go to `outgoing`.
    pub(super) fn advance(
        &mut self,
        incoming: &mut BytesMut,
        outgoing: &mut BytesMut,
        mut take: impl FnMut(&[u8]),
    ) -> Result<Progress, Error> {
        loop {
            let (used, step) = match self {
                Session::Server(session) => step(session.process_tls_records(incoming), outgoing, &mut take),
                Session::Client(session) => step(session.process_tls_records(incoming), outgoing, &mut take),
            };
            incoming.advance(used);
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Stop(progress)) => return Ok(progress),
                Err(error) => {
                    // rustls asserts that it never sees bytes again that were no records.
                    if !is_no_record(&error) {
                        self.queue_alerts(incoming, outgoing);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// What a broken session still wants to say.
    fn queue_alerts(&mut self, incoming: &mut BytesMut, outgoing: &mut BytesMut) {
        let ignore = &mut |_: &[u8]| {};
        loop {
            let (used, step) = match self {
                Session::Server(session) => step(session.process_tls_records(incoming), outgoing, ignore),
                Session::Client(session) => step(session.process_tls_records(incoming), outgoing, ignore),
            };
            incoming.advance(used);
            if !matches!(step, Ok(Step::Again)) {
                return;
            }
        }
    }

    /// Appends the records of some plaintext. Everything that came must have been understood.
    pub(super) fn encrypt(
        &mut self,
        plaintext: &[u8],
        incoming: &mut BytesMut,
        outgoing: &mut BytesMut,
    ) -> io::Result<()> {
        self.write(&Message::Plaintext(plaintext), incoming, outgoing)
    }

    /// Appends `close_notify`.
    pub(super) fn close(&mut self, incoming: &mut BytesMut, outgoing: &mut BytesMut) -> io::Result<()> {
        self.write(&Message::CloseNotify, incoming, outgoing)
    }

    fn write(
        &mut self,
        message: &Message<'_>,
        incoming: &mut BytesMut,
        outgoing: &mut BytesMut,
    ) -> io::Result<()> {
        let (used, written) = match self {
            Session::Server(session) => write(session.process_tls_records(incoming), message, outgoing),
            Session::Client(session) => write(session.process_tls_records(incoming), message, outgoing),
        };
        incoming.advance(used);
        written
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Session::Server(_) => "Server",
            Session::Client(_) => "Client",
        })
    }
}

/// Whether what came was no record, or none that we have the keys for.
fn is_no_record(error: &Error) -> bool {
    matches!(error, Error::InvalidMessage(_) | Error::DecryptError | Error::PeerSentOversizedRecord)
}

/// The error of a connection whose session broke.
pub(super) fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Does what a state asks for. Gives the bytes that are used up, too.
fn step<D>(
    status: UnbufferedStatus<'_, '_, D>,
    outgoing: &mut BytesMut,
    take: &mut impl FnMut(&[u8]),
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { mut discard, state, .. } = status;
    let state = match state {
        Ok(state) => state,
        Err(error) => return (discard, Err(error)),
    };
    let step = match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        take(record.payload);
                    }
                    Err(error) => return (discard, Err(error)),
                }
            }
            Ok(Step::Stop(Progress::Plaintext))
        }
        ConnectionState::EncodeTlsData(mut data) => {
            append(outgoing, ALERT_BYTES, |room| {
                data.encode(room).map_err(|error| match error {
                    rustls::unbuffered::EncodeError::InsufficientSize(size) => Some(size.required_size),
                    rustls::unbuffered::EncodeError::AlreadyEncoded => None,
                })
            });
            Ok(Step::Again)
        }
        ConnectionState::TransmitTlsData(data) => {
            // It is in line, before all that follows.
            data.done();
            Ok(Step::Again)
        }
        ConnectionState::PeerClosed | ConnectionState::Closed => Ok(Step::Stop(Progress::Ended)),
        ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake => {
            Ok(Step::Stop(Progress::Starved))
        }
        // Early data is never accepted, so there is no other state.
        _ => Err(Error::General("unexpected state".to_owned())),
    };
    (discard, step)
}

fn write<D>(
    status: UnbufferedStatus<'_, '_, D>,
    message: &Message<'_>,
    outgoing: &mut BytesMut,
) -> (usize, io::Result<()>) {
    let written = match status.state {
        Ok(ConnectionState::WriteTraffic(traffic)) => encrypt(traffic, message, outgoing),
        Ok(_) => Err(io::ErrorKind::NotConnected.into()),
        Err(error) => Err(invalid(error)),
    };
    (status.discard, written)
}

fn encrypt<D>(
    mut traffic: WriteTraffic<'_, D>,
    message: &Message<'_>,
    outgoing: &mut BytesMut,
) -> io::Result<()> {
    let size = match message {
        Message::Plaintext(plaintext) => {
            plaintext.len() + (plaintext.len() / (16 << 10) + 1) * RECORD_OVERHEAD_BYTES
        }
        Message::CloseNotify => ALERT_BYTES,
    };
    let is_done = append(outgoing, size, |room| {
        let written = match message {
            Message::Plaintext(plaintext) => traffic.encrypt(plaintext, room),
            Message::CloseNotify => traffic.queue_close_notify(room),
        };
        written.map_err(|error| match error {
            EncryptError::InsufficientSize(size) => Some(size.required_size),
            EncryptError::EncryptExhausted => None,
        })
    });
    if is_done { Ok(()) } else { Err(io::ErrorKind::ConnectionAborted.into()) }
}

/// Lets `fill` write behind `buffer`, with more room when it says how much it needs; says whether it did.
fn append(
    buffer: &mut BytesMut,
    size: usize,
    mut fill: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> bool {
    let start = buffer.len();
    let mut room = size;
    loop {
        buffer.resize(start + room, 0);
        match fill(&mut buffer[start..]) {
            Ok(count) => {
                buffer.truncate(start + count);
                return true;
            }
            Err(Some(needed)) if needed > room => room = needed,
            Err(_) => {
                buffer.truncate(start);
                return false;
            }
        }
    }
}
