//! Runs `testdata/*.script`: each file is a conversation, run in both protocol variants. See `testdata/README.md`.

use std::collections::BTreeSet;
use std::path::Path;

use meltemi_envoy::service::discovery::v3::DiscoveryRequest;
use meltemi_xds::Mode;
use meltemi_xds::client::Interest;
use meltemi_xds::server::{Event, Request};

use crate::world::{Contents, Heard, World, config, long_type};

#[test]
fn transcripts() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut scripts: Vec<_> = std::fs::read_dir(directory)
        .expect("testdata")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "script"))
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 10, "the scripts are found");
    for path in scripts {
        let text = std::fs::read_to_string(&path).expect("script");
        for mode in [Mode::Sotw, Mode::Delta] {
            Script { name: path.display().to_string(), mode, world: World::new(mode) }.run(&text);
        }
    }
}

struct Script {
    name: String,
    mode: Mode,
    world: World,
}

impl Script {
    fn run(&mut self, text: &str) {
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let line = match line.split_once(": ") {
                Some((mode, rest)) if mode == "sotw" || mode == "delta" => {
                    if mode != self.mode.to_string() {
                        continue;
                    }
                    rest
                }
                _ => line,
            };
            if !line.is_empty() {
                let place = format!("{}:{} ({}): {line}", self.name, index + 1, self.mode);
                self.step(line, &place);
                while self.world.upload() {}
            }
        }
    }

    fn step(&mut self, line: &str, place: &str) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (subject, words) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "config" => self.configure(subject, words),
            "subscribe" => self.world.subscribe(long_type(subject), interest(words)),
            "ack" => assert!(self.world.ack(long_type(subject)), "{place}: nothing to answer"),
            "nack" => assert!(self.world.nack(long_type(subject), words), "{place}: nothing to answer"),
            "push" => self.push(subject, words, place),
            "sent" => self.sent(subject, words, place),
            "quiet" => assert!(self.world.downlink.is_empty(), "{place}: got {:?}", self.world.download()),
            "waiting" => assert!(self.world.is_waiting(), "{place}"),
            "wait-over" => self.world.server_on(Event::WaitOver),
            "heard" => self.heard(subject, words, place),
            "in-force" => {
                let held = self.world.in_force.get(long_type(subject)).cloned().unwrap_or_default();
                assert_eq!(held, contents(words), "{place}");
            }
            "lose" => self.world.lose(),
            "connect" => self.world.connect(),
            "raw" => self.raw(subject, words),
            "closed" => assert!(self.world.closed.as_ref().is_some_and(|why| why.contains(rest)), "{place}"),
            other => panic!("{place}: no verb {other}"),
        }
    }

    fn configure(&mut self, generation: &str, words: &str) {
        let types: Vec<(&str, Contents)> = words
            .split(';')
            .filter_map(|part| part.trim().split_once(' ').or(Some((part.trim(), ""))))
            .filter(|(short, _)| !short.is_empty())
            .map(|(short, words)| (short, contents(words)))
            .collect();
        self.world.configure(config(generation, &types));
    }

    fn push(&mut self, short: &str, words: &str, place: &str) {
        let told = self.world.download().unwrap_or_else(|| panic!("{place}: nothing was sent"));
        let removed: BTreeSet<String> =
            words.split_whitespace().filter_map(|word| word.strip_prefix('-')).map(str::to_owned).collect();
        assert_eq!(told.type_url, long_type(short), "{place}");
        assert_eq!(told.contents, contents(words), "{place}");
        assert_eq!(told.removed, removed, "{place}");
    }

    /// As `push`, when no client core is to read the message.
    fn sent(&mut self, short: &str, words: &str, place: &str) {
        let told = self.world.intercept().unwrap_or_else(|| panic!("{place}: nothing was sent"));
        assert_eq!(told.type_url, long_type(short), "{place}");
        assert_eq!(told.contents, contents(words), "{place}");
    }

    fn heard(&mut self, what: &str, words: &str, place: &str) {
        let mut parts = words.splitn(3, ' ');
        let mut next = || parts.next().unwrap_or_default().to_owned();
        let (type_url, generation, reason) = (long_type(&next()).to_owned(), next(), next());
        let expected = match what {
            "ack" => Heard::Acked { type_url, generation },
            _ => Heard::Rejected { type_url, generation, reason },
        };
        assert_eq!(self.world.heard.pop_front(), Some(expected), "{place}");
    }

    /// `raw TYPE NONCE NAMES…`: a request as a foreign state-of-the-world client might send it.
    fn raw(&mut self, short: &str, words: &str) {
        let mut words = words.split_whitespace();
        let nonce = words.next().unwrap_or_default().trim_matches('"').to_owned();
        self.world.server_on(Event::Request(Request::Sotw(DiscoveryRequest {
            type_url: long_type(short).to_owned(),
            response_nonce: nonce,
            resource_names: words.map(str::to_owned).collect(),
            ..Default::default()
        })));
    }
}

fn interest(words: &str) -> Interest {
    if words == "*" {
        return Interest::Wildcard;
    }
    Interest::Names(words.split_whitespace().map(str::to_owned).collect())
}

fn contents(words: &str) -> Contents {
    let pairs = words.split_whitespace().filter_map(|word| word.split_once('='));
    pairs.map(|(name, body)| (name.to_owned(), body.to_owned())).collect()
}
