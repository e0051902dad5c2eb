//! TLS of connections: settings of rustls made of contexts and secrets, handshakes, and what they told.
//!
//! Owns the [`Contexts`] of the process: a context is built once for all workers, so that a session that one worker
//! began is resumed by another, and never by another context: tickets and sessions belong to it. Leaves out records on
//! the wire (`meltemi-http`), whom to believe (`meltemi-identity`) and what contexts say (`meltemi-compile`).

mod client;
mod current;
mod facts;
mod failure;
mod resolver;
mod secrets;
mod server;
mod sources;
mod tickets;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use meltemi_compile::tls::{DownstreamTls, UpstreamTls};

pub(crate) use self::client::{ClientContext, Expected};
pub(crate) use self::facts::TlsFacts;
pub(crate) use self::failure::Failure;
pub use self::secrets::{SecretSlot, Secrets};
pub(crate) use self::server::{Accepted, ServerContext};
pub(crate) use self::sources::Environment;

/// The TLS contexts that are in use, and the secrets that they are made with; one per process.
#[derive(Debug, Default)]
pub struct Contexts {
    secrets: Arc<Secrets>,
    /// By the address of the context, which lives as long as what is made of it.
    servers: Mutex<HashMap<usize, Weak<ServerContext>>>,
    clients: Mutex<HashMap<usize, Weak<ClientContext>>>,
    own_frame: OnceLock<Bytes>,
}

impl Contexts {
    /// The secrets.
    pub fn secrets(&self) -> &Arc<Secrets> {
        &self.secrets
    }

    /// Says once what this proxy says of itself where connections begin with that.
    pub fn set_own_frame(&self, frame: Bytes) {
        let _ = self.own_frame.set(frame);
    }

    /// What this proxy says of itself; nothing if that was not said.
    pub(crate) fn own_frame(&self) -> Bytes {
        self.own_frame.get().cloned().unwrap_or_default()
    }

    /// What asks in the name of a context. For configuration time: takes a lock.
    pub(crate) fn client(&self, tls: &Arc<UpstreamTls>) -> Arc<ClientContext> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|_, context| context.strong_count() > 0);
        let key = Arc::as_ptr(tls).addr();
        if let Some(known) = clients.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let context = Arc::new(ClientContext::new(tls, &self.secrets));
        clients.insert(key, Arc::downgrade(&context));
        context
    }

    /// What serves a context. For configuration time: takes a lock.
    pub(crate) fn server(&self, tls: &Arc<DownstreamTls>) -> Arc<ServerContext> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.retain(|_, context| context.strong_count() > 0);
        let key = Arc::as_ptr(tls).addr();
        if let Some(known) = servers.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let context = Arc::new(ServerContext::new(tls, &self.secrets));
        servers.insert(key, Arc::downgrade(&context));
        context
    }
}
