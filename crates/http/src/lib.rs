//! HTTP/1 and HTTP/2 behind one seam, for both ends of a connection.
//!
//! Owns: message heads and header lists, the HTTP/1 codec (on `httparse`), the HTTP/2 binding (on `h2`, with
//! deferred flushes), the server loop and the client connections. A body is a sequence of [`Frame`]s whichever
//! version carries it, so one relay loop serves every pair of codecs.
//!
//! Leaves out: listening, dialling, pools, routing, retries, header policy (`x-forwarded-*`, `date`, `via`).
//!
//! Everything here is single-threaded: futures are `!Send` and run on one worker's local task set.
//!
//! Where to read next: [`server::serve`] and [`Exchange`] for the downstream side, [`client`] for the upstream
//! side, [`h1`] for the pure codec.

mod body;
mod buffers;
pub mod client;
mod drain;
mod error;
mod exchange;
pub mod h1;
mod h2;
mod head;
mod headers;
mod io;
pub mod peer_exchange;
pub mod proxy_protocol;
pub mod server;
mod text;
mod tls;

pub use body::Frame;
pub use drain::{Drain, DrainSignal, DrainStage, drain};
pub use error::{BodyError, ClientError, ProtocolError, SendError};
pub use exchange::{Exchange, RecvBody, Responder};
pub use h1::{KeyFormat, Underscores};
pub use h2::{FloodLimits, H2Options, Keepalive, Reason};
pub use head::{RequestHead, ResponseHead, Version};
pub use headers::{Headers, is_hop_by_hop};
pub use io::{ByteCounts, Io};
pub use text::Text;
pub use tls::{Session, TlsStream};
