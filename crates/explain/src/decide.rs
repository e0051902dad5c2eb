//! A call through one proxy: listener, chain, route, cluster.

use meltemi_compile::program::{FilterChain, NetworkFilter};
use meltemi_envoy::config::listener::v3::Listener;
use meltemi_envoy::type_url;

use crate::call::{Call, Completed, Mode, Security};
use crate::connection::{Seen, handshake};
use crate::explanation::Explanation;
use crate::listener;
use crate::proxy::Proxy;
use crate::routing::{self, in_words};
use crate::verdict::Failure;

impl Proxy {
    /// What comes of a call at this proxy, and why.
    pub fn explain(&self, call: &Call) -> Explanation {
        let told = Explanation::default();
        let completed = match call.clone().completed() {
            Ok(completed) => completed,
            Err(wrong) => return told.fails(Failure::InvalidCall, wrong),
        };
        let Some(message) = listener::choose(&self.listeners, &completed) else {
            let at = format!("nothing listens on {}:{}", completed.address, completed.call.port);
            return told.fails(Failure::NoListener, at);
        };
        self.accept(message, &completed, told)
    }

    fn accept(&self, message: &Listener, completed: &Completed, mut told: Explanation) -> Explanation {
        told.verdict.listener.clone_from(&message.name);
        let listener = match meltemi_compile::listener(message) {
            Ok(listener) => listener,
            Err(rejections) => return told.fails(Failure::InvalidConfig, in_words(&rejections)),
        };
        let seen = Seen::by(&listener, completed);
        let Some(chain) = listener.choose(&seen.facts(completed)).map(|index| &listener.chains[index]) else {
            return told.fails(Failure::NoFilterChain, "no filter chain takes such a connection");
        };
        told.verdict.filter_chain = chain.name.to_string();
        // A listener for requests out of a workload belongs to every service of its port, whoever asked for it first.
        if completed.call.mode != Mode::Outbound || !matches!(chain.filter, NetworkFilter::Http(_)) {
            told.decided(self.resources.origins.find(type_url::LISTENER, &message.name, ""));
        }
        told.security = in_security(chain, completed.call.tls);
        match handshake(chain, &completed.call) {
            Ok(()) => self.pass(chain, &completed.call, told),
            Err((error, detail)) => told.fails(error, detail),
        }
    }

    fn pass(&self, chain: &FilterChain, call: &Call, told: Explanation) -> Explanation {
        match &chain.filter {
            NetworkFilter::Http(_) if call.tls != Security::Plaintext && chain.tls.is_none() => {
                told.fails(Failure::ProtocolError, "the chain expects HTTP, and the client begins with TLS")
            }
            NetworkFilter::Http(_) if !call.protocol.is_http() => told.fails(
                Failure::ProtocolError,
                "the chain expects HTTP, and the client speaks something else",
            ),
            NetworkFilter::Http(manager) => routing::http(self, call, manager, told),
            NetworkFilter::Tcp(tcp) => routing::tcp(self, tcp, told),
            NetworkFilter::DirectResponse(_) => {
                let mut told = told;
                told.verdict.detail = "answered by the listener".to_owned();
                told
            }
        }
    }
}

fn in_security(chain: &FilterChain, client: Security) -> String {
    let said = match (&chain.tls, client) {
        (None, Security::Plaintext) => "plaintext",
        (None, _) => "TLS of the client, not opened here",
        (Some(tls), _) if tls.requires_client_certificate => {
            "TLS ends here; the client must have a certificate"
        }
        (Some(_), _) => "TLS ends here",
    };
    said.to_owned()
}
