//! Where the compiler is in a message, and what it has rejected so far.
//!
//! Every message is taken apart exhaustively (no `..`), so that a field of a newer protocol fails the build
//! until it is read, refused ([`refuse!`]) or named as [`Harmless`] ([`harmless!`]). A rejection does not stop
//! the compiler: it goes on with a placeholder, so that all problems of a resource are told at once.

use std::cell::RefCell;
use std::fmt;

use crate::data_source::{DataSources, NoSources};
use crate::rejection::Rejection;

/// Gives each reason its doc comment as text too.
macro_rules! reasons {
    ($(#[$meta:meta])* pub(crate) enum $name:ident { $($(#[doc = $doc:literal])+ $variant:ident,)+ }) => {
        $(#[$meta])*
        pub(crate) enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl $name {
            /// The reason as a sentence.
            pub(crate) fn text(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

reasons! {
/// The reasons for which a field may be read and have no effect, each with the argument for it.
///
/// [`harmless!`] takes one of these with the fields, so this list and its uses are the table of what is
/// accepted without being acted upon.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Harmless {
    /// Names or tunes statistics and the texts of operators; traffic is the same.
    StatsOnly,
    /// `metadata` and its kin: read by other extensions and by people; the parts that we use are read apart.
    Metadata,
    /// Concerns TLS or client certificates; transport sockets with TLS are refused, so it cannot matter.
    PlaintextOnly,
    /// Watches files; those that a context names are read once, as in Envoy.
    ReadOnce,
    /// Tunes how Envoy accepts connections among its threads; our workers accept side by side.
    AcceptPacing,
    /// Chooses one of Envoy's parsers; there is one parser here.
    ParserChoice,
    /// Envoy 1.40 does not enforce it.
    NotEnforced,
    /// A runtime key: there is no runtime layer, the default value beside it holds.
    RuntimeKey,
    /// Size of a buffer that bounds what is read ahead; here less than any useful value is read ahead.
    ReadAhead,
    /// Tunes c-ares, or the threads of the system's resolver; ours finds the same addresses.
    ResolverTuning,
    /// Settings of a balancing policy that is not the one in force; Envoy does not read them either.
    OtherPolicy,
    /// Acts on hosts that a filter chooses (`stateful_session`); those filters are refused.
    NoHostOverride,
    /// Holds back or batches updates; here each is in force when it comes.
    Batching,
    /// Acts on traces, and a tracing provider is refused.
    NoTracing,
    /// Part of the protocol that Envoy does not act upon either.
    Unimplemented,
    /// Acts on connections over Unix sockets, and listeners on those are refused.
    NoUnixListeners,
    /// Envoy has the field and does nothing with it.
    NoEffectInEnvoy,
    /// Spreads PINGs in time; connections that begin at their own moments are spread already.
    PingPacing,
    /// A deprecated spelling of the default.
    Deprecated,
    /// The content type of local replies; a log has none.
    LogsHaveNoType,
    /// Concerns REST subscriptions; streams and files are not polled.
    OnlyRest,
    /// The node is on the first message of a stream anyway.
    NodeOnce,
    /// Bounds single calls; an xDS stream has no end.
    StreamForever,
    /// Leaves out headers that are not sent anyway.
    NoEnvoyHeaders,
    /// The time before the final GOAWAY; here that comes after a PING's round trip, which is all that racing streams need.
    GoawayAfterPing,
    /// Asks a bootstrap extension who has an address; the bootstrap extensions are not read, and without that one Envoy finds nothing either.
    NoWorkloadDiscovery,
}
}

/// What was rejected in one resource.
pub(crate) struct Ledger<'s> {
    resource: String,
    sources: &'s dyn DataSources,
    rejections: RefCell<Vec<Rejection>>,
}

/// The most rejections that one resource collects; the rest would only make the NACK unreadable.
const MAX_REJECTIONS: usize = 64;

impl Ledger<'_> {
    /// Compiles a resource: its value when nothing was rejected. Data must be in it.
    pub(crate) fn run<T>(
        resource: &str,
        compile: impl FnOnce(&At<'_>) -> Option<T>,
    ) -> Result<T, Vec<Rejection>> {
        Ledger::run_with(resource, &NoSources, compile)
    }

    /// The same for a resource whose data may be elsewhere.
    pub(crate) fn run_with<T>(
        resource: &str,
        sources: &dyn DataSources,
        compile: impl FnOnce(&At<'_>) -> Option<T>,
    ) -> Result<T, Vec<Rejection>> {
        let ledger = Ledger { resource: resource.to_owned(), sources, rejections: RefCell::default() };
        let value = compile(&At { ledger: &ledger, parent: None, step: Step::Root });
        let rejections = ledger.rejections.into_inner();
        match value {
            Some(value) if rejections.is_empty() => Ok(value),
            _ if rejections.is_empty() => Err(vec![Rejection::new(ledger.resource, "", "not understood")]),
            _ => Err(rejections),
        }
    }
}

/// A place in a message.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    ledger: &'a Ledger<'a>,
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'static str),
    Item(&'static str, usize),
    Key(&'static str, &'a str),
}

impl At<'_> {
    /// The place of a field.
    pub(crate) fn field<'b>(&'b self, name: &'static str) -> At<'b> {
        At { ledger: self.ledger, parent: Some(self), step: Step::Field(name) }
    }

    /// The place of an element of a repeated field.
    pub(crate) fn item<'b>(&'b self, name: &'static str, index: usize) -> At<'b> {
        At { ledger: self.ledger, parent: Some(self), step: Step::Item(name, index) }
    }

    /// The place of an entry of a map.
    pub(crate) fn key<'b>(&'b self, name: &'static str, key: &'b str) -> At<'b> {
        At { ledger: self.ledger, parent: Some(self), step: Step::Key(name, key) }
    }

    /// Rejects this place.
    pub(crate) fn reject(&self, reason: impl fmt::Display) {
        let mut rejections = self.ledger.rejections.borrow_mut();
        if rejections.len() < MAX_REJECTIONS {
            rejections.push(Rejection::new(&self.ledger.resource, self.to_string(), reason.to_string()));
        }
    }

    /// Where data is read that is not in the message.
    pub(crate) fn sources(&self) -> &dyn DataSources {
        self.ledger.sources
    }

    /// Rejects this place, for use where a value is expected.
    pub(crate) fn none<T>(&self, reason: impl fmt::Display) -> Option<T> {
        self.reject(reason);
        None
    }

    /// Rejects a field that is set to anything but its default.
    pub(crate) fn refuse<T: Default + PartialEq>(&self, field: &'static str, value: &T) {
        if *value != T::default() {
            self.field(field).reject("not supported yet");
        }
    }

    /// Rejects a flag that is on; off is what happens anyway.
    pub(crate) fn refuse_true(&self, field: &'static str, value: Option<bool>) {
        if value == Some(true) {
            self.field(field).reject("not supported yet");
        }
    }

    /// Rejects a flag that is off; on is what happens anyway.
    pub(crate) fn refuse_false(&self, field: &'static str, value: Option<bool>) {
        if value == Some(false) {
            self.field(field).reject("not supported yet: only true");
        }
    }

    /// Visits every entry of a repeated field at its own place.
    pub(crate) fn each<T, U>(
        &self,
        field: &'static str,
        values: &[T],
        mut compile: impl FnMut(&At<'_>, &T) -> Option<U>,
    ) -> Vec<U> {
        values.iter().enumerate().filter_map(|(i, value)| compile(&self.item(field, i), value)).collect()
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
            if !matches!(parent.step, Step::Root) {
                f.write_str(".")?;
            }
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) => f.write_str(name),
            Step::Item(name, index) => write!(f, "{name}[{index}]"),
            Step::Key(name, key) => write!(f, "{name}[{key:?}]"),
        }
    }
}

/// Rejects each of the fields (variables named as the fields) that is not its default.
macro_rules! refuse {
    ($at:expr; $($field:ident),+ $(,)?) => { $( $at.refuse(stringify!($field), $field); )+ };
}

/// Says that the fields have no effect, and why.
macro_rules! harmless {
    ($reason:ident; $($field:ident),+ $(,)?) => {{
        use $crate::coverage::IsSet as _;
        $( $crate::coverage::note($crate::ledger::Harmless::$reason, stringify!($field), $field.is_set()); )+
    }};
}

pub(crate) use {harmless, refuse};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_names_resource_and_path() {
        let rejections = Ledger::run("r", |at| {
            let hosts = at.item("hosts", 1);
            hosts.key("filters", "a.b").field("x").reject("bad");
            hosts.refuse("weight", &Some(1));
            hosts.refuse("weight", &None::<u32>);
            Some(())
        });
        let texts: Vec<_> = rejections.unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["r: hosts[1].filters[\"a.b\"].x: bad", "r: hosts[1].weight: not supported yet"]);
    }

    #[test]
    fn rejections_are_bounded() {
        let rejections = Ledger::run("r", |at| {
            (0..1000).for_each(|i| at.item("x", i).reject("bad"));
            Some(())
        });
        assert_eq!(rejections.unwrap_err().len(), MAX_REJECTIONS);
    }
}
