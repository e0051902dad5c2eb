//! The law that both variants end in the same client state: the server's last configuration, seen through the
//! client's last subscriptions, whatever was lost, refused or crossed on the way.

use std::collections::{BTreeMap, BTreeSet};

use meltemi_xds::Mode;
use meltemi_xds::client::Interest;
use meltemi_xds::server::Event;
use proptest::prelude::*;

use crate::world::{Contents, World, config, long_type};

const TYPES: [&str; 4] = ["cds", "eds", "lds", "rds"];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Debug, Clone)]
enum Step {
    Config(Vec<Contents>),
    Subscribe(usize, Option<BTreeSet<usize>>),
    Upload,
    Download,
    Answer(usize, bool),
    Lose,
    Connect,
    WaitOver,
}

fn step() -> impl Strategy<Value = Step> {
    let set = prop::collection::btree_map(0..NAMES.len(), 0..3u8, 0..NAMES.len());
    let named = set.prop_map(|set| {
        set.into_iter().map(|(name, body)| (NAMES[name].to_owned(), body.to_string())).collect::<Contents>()
    });
    prop_oneof![
        3 => prop::collection::vec(named, TYPES.len()).prop_map(Step::Config),
        2 => (0..TYPES.len(), prop::option::of(prop::collection::btree_set(0..NAMES.len(), 0..NAMES.len())))
            .prop_map(|(kind, names)| Step::Subscribe(kind, names)),
        6 => Just(Step::Upload),
        6 => Just(Step::Download),
        6 => (0..TYPES.len(), prop::bool::weighted(0.8)).prop_map(|(kind, good)| Step::Answer(kind, good)),
        1 => Just(Step::Lose),
        1 => Just(Step::Connect),
        1 => Just(Step::WaitOver),
    ]
}

struct Run {
    world: World,
    interests: BTreeMap<&'static str, Interest>,
}

impl Run {
    fn take(&mut self, index: usize, step: &Step) {
        match step {
            Step::Config(sets) => {
                let types: Vec<_> = TYPES.into_iter().zip(sets.iter().cloned()).collect();
                self.world.configure(config(&index.to_string(), &types));
            }
            Step::Subscribe(kind, names) => self.subscribe(TYPES[*kind], names.as_ref()),
            Step::Upload => drop(self.world.upload()),
            Step::Download => drop(self.world.download()),
            Step::Answer(kind, true) => drop(self.world.ack(long_type(TYPES[*kind]))),
            Step::Answer(kind, false) => drop(self.world.nack(long_type(TYPES[*kind]), "no")),
            Step::Lose => self.world.lose(),
            Step::Connect if !self.world.is_connected() => self.world.connect(),
            Step::Connect => {}
            Step::WaitOver => self.world.server_on(Event::WaitOver),
        }
    }

    fn subscribe(&mut self, kind: &'static str, names: Option<&BTreeSet<usize>>) {
        let interest = match names {
            Some(names) => Interest::Names(names.iter().map(|name| NAMES[*name].to_owned()).collect()),
            None => Interest::Wildcard,
        };
        self.interests.insert(kind, interest.clone());
        self.world.subscribe(long_type(kind), interest);
    }

    /// Everything arrives and everything is acknowledged, until nothing is under way.
    fn settle(&mut self) {
        if !self.world.is_connected() {
            self.world.connect();
        }
        for _ in 0..1_000 {
            let mut moved = self.world.upload() | self.world.download().is_some();
            for kind in TYPES {
                moved |= self.world.ack(long_type(kind));
            }
            if !moved {
                assert!(!self.world.is_waiting(), "waits though everything is answered");
                return;
            }
        }
        panic!("the two ends never come to rest");
    }

    fn wanted(&self, kind: &str, last: &Contents) -> Contents {
        let is_wanted = |name: &String| match self.interests.get(kind) {
            None => false,
            Some(Interest::Wildcard) => true,
            Some(Interest::Names(names)) => names.contains(name),
        };
        last.iter().filter(|(name, _)| is_wanted(name)).map(|(n, b)| (n.clone(), b.clone())).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn both_variants_end_with_the_server_s_state(
        steps in prop::collection::vec(step(), 1..80),
        last in prop::collection::vec(prop::collection::btree_set(0..NAMES.len(), 0..NAMES.len()), TYPES.len()),
    ) {
        // Bodies that were never served, so that nothing refused earlier is in the way.
        let last: Vec<(&str, Contents)> = TYPES.into_iter().zip(last.into_iter().map(|names| {
            names.into_iter().map(|name| (NAMES[name].to_owned(), "last".to_owned())).collect()
        })).collect();
        for mode in [Mode::Sotw, Mode::Delta] {
            let mut run = Run { world: World::new(mode), interests: BTreeMap::new() };
            run.world.is_eager = true;
            for (index, step) in steps.iter().enumerate() {
                run.take(index, step);
            }
            run.world.configure(config("last", &last));
            run.settle();
            prop_assert_eq!(&run.world.closed, &None);
            for (kind, contents) in &last {
                let mut held = run.world.in_force.get(long_type(kind)).cloned().unwrap_or_default();
                if mode == Mode::Sotw && matches!(*kind, "eds" | "rds") {
                    // State of the world cannot say that an assignment or a route configuration is gone.
                    held.retain(|name, _| contents.contains_key(name));
                }
                prop_assert_eq!(held, run.wanted(kind, contents), "{} in {}", kind, mode);
            }
        }
    }
}
