//! A server core and a client core with the wire between them in the test's hands.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use meltemi_envoy::config::core::v3::Node;
use meltemi_envoy::{Any, type_url};
use meltemi_xds::client::{Interest, Received, Session, Update};
use meltemi_xds::server::{Action, Event, Request, Response, Stream};
use meltemi_xds::{Config, Mode, Resource, ResourceSet};
use prost::Message;

/// Bodies by name.
pub(crate) type Contents = BTreeMap<String, String>;

/// Any xDS resource as the protocol sees it: a name, and something that changes.
#[derive(Clone, PartialEq, Message)]
struct Opaque {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "15")]
    body: String,
}

pub(crate) fn long_type(short: &str) -> &'static str {
    match short {
        "cds" => type_url::CLUSTER,
        "eds" => type_url::ENDPOINT,
        "lds" => type_url::LISTENER,
        "rds" => type_url::ROUTE,
        "sds" => type_url::SECRET,
        other => panic!("no resource type {other}"),
    }
}

pub(crate) fn config(generation: &str, types: &[(&str, Contents)]) -> Arc<Config> {
    let set = |type_url: &str, contents: &Contents| -> ResourceSet {
        let resource = |(name, body): (&String, &String)| {
            let value = Opaque { name: name.clone(), body: body.clone() }.encode_to_vec().into();
            Resource::new(name.as_str(), Any { type_url: type_url.to_owned(), value })
        };
        contents.iter().map(resource).collect()
    };
    let types = types.iter().map(|(short, contents)| {
        let type_url = long_type(short);
        (type_url.to_owned(), Arc::new(set(type_url, contents)))
    });
    Arc::new(Config { generation: generation.to_owned(), types: types.collect() })
}

fn contents<'a>(bodies: impl Iterator<Item = &'a Any>) -> Contents {
    let opaque = bodies.map(|any| Opaque::decode(any.value.clone()).expect("a test resource"));
    opaque.map(|o| (o.name, o.body)).collect()
}

/// What a response says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) type_url: String,
    pub(crate) contents: Contents,
    pub(crate) removed: BTreeSet<String>,
}

/// What the server tells its provider.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Acked { type_url: String, generation: String },
    Rejected { type_url: String, generation: String, reason: String },
}

pub(crate) struct World {
    mode: Mode,
    config: Arc<Config>,
    server: Option<Stream>,
    session: Session,
    /// Requests on their way to the server, and responses on theirs to the client.
    pub(crate) uplink: VecDeque<Request>,
    pub(crate) downlink: VecDeque<Response>,
    pub(crate) heard: VecDeque<Heard>,
    pub(crate) closed: Option<String>,
    /// Updates that the owner of the client has not answered.
    pub(crate) unanswered: Vec<Update>,
    /// Whether the owner puts updates in force when they arrive, so that only the answer can be late or lost;
    /// otherwise when it acknowledges them.
    pub(crate) is_eager: bool,
    /// What the owner of the client has in force.
    pub(crate) in_force: BTreeMap<String, Contents>,
    interests: BTreeMap<String, Interest>,
    in_flight: BTreeSet<String>,
}

impl World {
    pub(crate) fn new(mode: Mode) -> World {
        let config = Arc::new(Config::default());
        let mut world = World {
            mode,
            config,
            server: None,
            session: Session::new(mode, Node { id: "test".into(), ..Default::default() }),
            uplink: VecDeque::new(),
            downlink: VecDeque::new(),
            heard: VecDeque::new(),
            closed: None,
            unanswered: Vec::new(),
            is_eager: false,
            in_force: BTreeMap::new(),
            interests: BTreeMap::new(),
            in_flight: BTreeSet::new(),
        };
        world.connect();
        world
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.server.as_ref().is_some_and(Stream::is_waiting)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.server.is_some()
    }

    pub(crate) fn connect(&mut self) {
        self.server = Some(Stream::new(self.mode, Arc::clone(&self.config)));
        self.uplink.extend(self.session.connected());
    }

    pub(crate) fn lose(&mut self) {
        self.server = None;
        self.uplink.clear();
        self.downlink.clear();
        self.in_flight.clear();
        self.session.disconnected();
    }

    pub(crate) fn configure(&mut self, config: Arc<Config>) {
        // As a control plane does it: sets know how they follow from those before.
        let types = config.types.iter().map(|(type_url, set)| {
            let earlier = self.config.of_type(type_url);
            let set = earlier.map_or_else(|| Arc::clone(set), |earlier| (**set).clone().following(earlier));
            (type_url.clone(), set)
        });
        let config = Arc::new(Config { generation: config.generation.clone(), types: types.collect() });
        self.config = Arc::clone(&config);
        self.server_on(Event::Config(config));
    }

    pub(crate) fn server_on(&mut self, event: Event) {
        let Some(server) = &mut self.server else { return };
        for action in server.on(event) {
            match action {
                Action::Send(response, sent) => {
                    assert!(self.in_flight.insert(sent.type_url.clone()), "two {} in flight", sent.type_url);
                    self.downlink.push_back(response);
                }
                Action::Acked(answer) => {
                    self.in_flight.remove(&answer.type_url);
                    let heard = Heard::Acked { type_url: answer.type_url, generation: answer.generation };
                    self.heard.push_back(heard);
                }
                Action::Rejected(rejection) => {
                    self.in_flight.remove(&rejection.answer.type_url);
                    self.heard.push_back(Heard::Rejected {
                        type_url: rejection.answer.type_url,
                        generation: rejection.answer.generation,
                        reason: rejection.reason,
                    });
                }
                Action::Stale(_) => {}
                Action::Close(reason) => self.closed = Some(reason),
            }
        }
    }

    pub(crate) fn subscribe(&mut self, type_url: &str, interest: Interest) {
        if let (Interest::Names(names), Some(contents)) = (&interest, self.in_force.get_mut(type_url)) {
            contents.retain(|name, _| names.contains(name));
        }
        self.interests.insert(type_url.to_owned(), interest.clone());
        self.uplink.extend(self.session.subscribe(type_url, interest));
    }

    /// The next request reaches the server.
    pub(crate) fn upload(&mut self) -> bool {
        let Some(request) = self.uplink.pop_front() else { return false };
        self.server_on(Event::Request(request));
        true
    }

    /// The next response reaches the client; what it says on the wire.
    pub(crate) fn download(&mut self) -> Option<Told> {
        let response = self.downlink.pop_front()?;
        let message = read(&response);
        match self.session.on_response(response).expect("the server keeps the protocol") {
            Received::Update(update) => {
                if self.is_eager {
                    self.apply(&update);
                }
                self.unanswered.push(update);
            }
            Received::Refused(_, reason) => panic!("unreadable: {reason}"),
        }
        Some(message)
    }

    /// The next response, taken off the wire.
    pub(crate) fn intercept(&mut self) -> Option<Told> {
        self.downlink.pop_front().as_ref().map(read)
    }

    /// The owner puts the oldest unanswered update of the type in force and says so.
    pub(crate) fn ack(&mut self, type_url: &str) -> bool {
        let Some(update) = self.take(type_url) else { return false };
        if !self.is_eager {
            self.apply(&update);
        }
        self.uplink.extend(self.session.ack(type_url, &update.nonce));
        true
    }

    /// The owner refuses the oldest unanswered update of the type; removals hold all the same.
    pub(crate) fn nack(&mut self, type_url: &str, reason: &str) -> bool {
        let Some(update) = self.take(type_url) else { return false };
        let contents = self.in_force.entry(type_url.to_owned()).or_default();
        contents.retain(|name, _| !update.removed.contains(name));
        self.uplink.extend(self.session.nack(type_url, &update.nonce, reason));
        true
    }

    fn apply(&mut self, update: &Update) {
        let type_url = &update.type_url;
        let contents = self.in_force.entry(type_url.clone()).or_default();
        contents.retain(|name, _| !update.removed.contains(name));
        // What an update holds may have been unsubscribed from since.
        let wanted = update.changed.iter().filter(|resource| match self.interests.get(type_url) {
            Some(Interest::Names(names)) => names.contains(&*resource.name),
            _ => true,
        });
        contents.extend(self::contents(wanted.map(|resource| &resource.body)));
    }

    fn take(&mut self, type_url: &str) -> Option<Update> {
        let index = self.unanswered.iter().position(|update| update.type_url == type_url)?;
        Some(self.unanswered.remove(index))
    }
}

fn read(response: &Response) -> Told {
    match response {
        Response::Sotw(r) => Told {
            type_url: r.type_url.clone(),
            contents: contents(r.resources.iter()),
            removed: BTreeSet::new(),
        },
        Response::Delta(r) => Told {
            type_url: r.type_url.clone(),
            contents: contents(r.resources.iter().filter_map(|r| r.resource.as_ref())),
            removed: r.removed_resources.iter().cloned().collect(),
        },
    }
}
