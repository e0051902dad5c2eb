//! A call through one proxy: listener, chain, route, cluster.

use meltemi_compile::program::NetworkFilter;
use meltemi_envoy::type_url;

use crate::call::{Call, Security};
use crate::connection::{Seen, handshake};
use crate::listener;
use crate::proxy::Proxy;
use crate::routing::{self, told};
use crate::verdict::{Failure, Verdict};

impl Proxy {
    /// What comes of a call at this proxy.
    pub fn explain(&self, call: &Call) -> Verdict {
        let verdict = Verdict::default();
        let completed = match call.clone().completed() {
            Ok(completed) => completed,
            Err(wrong) => return verdict.fails(Failure::InvalidCall, wrong),
        };
        let Some(message) = listener::choose(&self.listeners, &completed) else {
            let at = format!("nothing listens on {}:{}", completed.address, completed.call.port);
            return verdict.fails(Failure::NoListener, at);
        };
        let mut verdict = Verdict { listener: message.name.clone(), ..verdict };
        verdict.decided(self.resources.origins.find(type_url::LISTENER, &message.name, ""));
        let listener = match meltemi_compile::listener(message) {
            Ok(listener) => listener,
            Err(rejections) => return verdict.fails(Failure::InvalidConfig, told(&rejections)),
        };
        let seen = Seen::by(&listener, &completed);
        let Some(chain) = listener.choose(&seen.facts(&completed)).map(|index| &listener.chains[index])
        else {
            return verdict.fails(Failure::NoFilterChain, "no filter chain takes such a connection");
        };
        verdict.filter_chain = chain.name.to_string();
        let call = &completed.call;
        if let Err((error, detail)) = handshake(chain, call.tls) {
            return verdict.fails(error, detail);
        }
        match &chain.filter {
            NetworkFilter::Http(_) if call.tls != Security::Plaintext && chain.tls.is_none() => verdict
                .fails(Failure::ProtocolError, "the chain expects HTTP, and the client begins with TLS"),
            NetworkFilter::Http(_) if !call.protocol.is_http() => verdict.fails(
                Failure::ProtocolError,
                "the chain expects HTTP, and the client speaks something else",
            ),
            NetworkFilter::Http(manager) => routing::http(self, call, manager, verdict),
            NetworkFilter::Tcp(tcp) => routing::tcp(self, tcp, verdict),
            NetworkFilter::DirectResponse(_) => {
                Verdict { detail: "answered by the listener".to_owned(), ..verdict }
            }
        }
    }
}
