//! From the text of a file to its objects and everything wrong with them. Leaves out reading files, and which of two
//! versions of an object counts.

mod embedded;
mod kinds;

use std::sync::Arc;

use crate::codes;
use crate::decode::{Decoder, Field, Wire, wire};
use crate::diagnostic::{Diagnostic, Location};
use crate::kubernetes::Status;
use crate::limits::{MAX_DIAGNOSTICS, MAX_OBJECTS};
use crate::node::{self, Document, Node, Value};
use crate::object::{Kind, Meta, Object, ObjectId, Origin, Spec};
use crate::syntax;

use self::kinds::Recognised;

/// What to say where something else was found.
const OBJECT_HELP: &str = "an object has `apiVersion`, `kind`, `metadata` and, most of them, `spec`";

/// Namespace of an object that names none.
const DEFAULT_NAMESPACE: &str = "default";

/// Namespace of an IstioOperator that names none, and the name of one without name: `istioctl` asks for neither.
const OPERATOR_NAMESPACE: &str = "istio-system";
const NAMELESS_OPERATOR: &str = "installed-state";

/// Reads all objects of a text: YAML with any number of documents, JSON, `List` objects, and plain lists of objects.
/// Never fails: what cannot be read is reported, all problems at once. An object with a diagnostic of error severity
/// is left out; a diagnostic of error severity without object is about a document whose identity cannot be read.
///
/// `file` names the text in origins and locations; nothing is opened.
pub fn parse(text: &str, file: &Arc<str>) -> (Vec<Object>, Vec<Diagnostic>) {
    read(text, file).sound()
}

/// Reads all objects of a text as [`parse`] does, and returns only those that it leaves out, as far as they can be read:
/// what is wrong in them has its default. They are for looking at, not for putting in force.
pub fn parse_unsound(text: &str, file: &Arc<str>) -> Vec<Object> {
    read(text, file).unsound
}

fn read<'t>(text: &'t str, file: &Arc<str>) -> Reading<'t> {
    let (objects, diagnostics, unsound) = (Vec::new(), Vec::new(), Vec::new());
    let mut reading = Reading { text, file: Arc::clone(file), objects, unsound, diagnostics, seen: 0 };
    for document in node::read(text) {
        match document {
            Document::Read(node, duplicates) => {
                let before = reading.seen;
                reading.document(&node);
                reading.duplicates(&node, &duplicates, before);
            }
            Document::Broken(broken) => {
                let location = Location { file: Arc::clone(file), span: broken.span };
                let diagnostic = Diagnostic::new(broken.code, broken.message);
                reading.diagnostics.push(Diagnostic { location: Some(location), ..diagnostic });
            }
        }
    }
    let place = |diagnostic: &Diagnostic| diagnostic.location.as_ref().map(|location| location.span.start);
    reading.diagnostics.sort_by_key(place);
    reading.diagnostics.truncate(MAX_DIAGNOSTICS);
    reading
}

struct Reading<'t> {
    text: &'t str,
    file: Arc<str>,
    objects: Vec<Object>,
    /// Objects with errors.
    unsound: Vec<Object>,
    diagnostics: Vec<Diagnostic>,
    /// Objects met so far, sound or not.
    seen: usize,
}

wire! {
    /// The `metadata` of an object.
    struct Metadata {
        /// Name.
        name: String, "name", required => syntax::dns_name;
        /// Namespace.
        namespace: Option<String>, "namespace" => syntax::dns_label;
        /// Labels.
        labels: std::collections::BTreeMap<String, String>, "labels" => syntax::label_value;
        /// Annotations.
        annotations: std::collections::BTreeMap<String, String>, "annotations";
        /// Time of creation, RFC 3339.
        creation_timestamp: Option<String>, "creationTimestamp" => syntax::timestamp;
        /// Generation.
        generation: Option<i64>, "generation";
        /// What the object belongs to.
        owner_references: Vec<OwnerReference>, "ownerReferences";
        /// When it is to end.
        deletion_timestamp: Option<String>, "deletionTimestamp";
    }
    ignored "uid", "resourceVersion", "selfLink", "managedFields", "finalizers", "deletionGracePeriodSeconds",
        "generateName", "clusterName";
    rule metadata_keys;
}

wire! {
    /// An object that another one belongs to.
    struct OwnerReference {
        /// Its kind.
        kind: String, "kind";
        /// Its name.
        name: String, "name";
        /// It made the other one.
        controller: Option<bool>, "controller";
    }
    ignored "apiVersion", "uid", "blockOwnerDeletion";
}

/// Label keys follow Kubernetes' syntax; the decoder itself looks only at values.
fn metadata_keys(metadata: &Metadata, decoder: &mut Decoder) {
    crate::check::label_keys(&metadata.labels, "labels", decoder);
}

impl Reading<'_> {
    fn sound(self) -> (Vec<Object>, Vec<Diagnostic>) {
        (self.objects, self.diagnostics)
    }

    fn document(&mut self, node: &Node) {
        match &node.value {
            Value::Null => {}
            Value::Sequence(items) => items.iter().for_each(|item| self.object(item)),
            _ => match list_items(node) {
                Some(items) => items.iter().for_each(|item| self.object(item)),
                None => self.object(node),
            },
        }
    }

    /// Duplicate keys were found while reading; they are told of the object in whose text they stand.
    fn duplicates(&mut self, node: &Node, duplicates: &[node::Duplicate], first: usize) {
        for duplicate in duplicates {
            let message = format!("the key `{}` is already on line {}", duplicate.key, duplicate.first_line);
            let object = identity(node).filter(|_| list_items(node).is_none());
            let diagnostic = Diagnostic {
                object: object.clone(),
                field: duplicate.key.clone(),
                location: Some(Location { file: Arc::clone(&self.file), span: duplicate.span }),
                ..Diagnostic::new(&codes::DUPLICATE_KEY, message)
            };
            self.diagnostics.push(diagnostic.help("remove one of the two"));
        }
        if !duplicates.is_empty() {
            self.objects.retain(|object| object.origin.document < first);
        }
    }

    /// Reads one object and keeps it when nothing is wrong with it.
    fn object(&mut self, node: &Node) {
        let document = self.seen;
        self.seen += 1;
        if document >= MAX_OBJECTS {
            if document == MAX_OBJECTS {
                let message = format!("more than {MAX_OBJECTS} objects; the rest is not read");
                self.diagnostics.push(self.at(node, Diagnostic::new(&codes::TOO_LARGE, message)));
            }
            return;
        }
        let mut decoder = Decoder::new(Arc::clone(&self.file));
        let origin = Origin { file: Arc::clone(&self.file), document, line: node.span.line };
        let mut object = decode_object(node, &mut decoder, origin);
        if let Some(object) = &mut object {
            embedded::read_mesh(object, self.text, &mut decoder);
        }
        let sound = decoder.diagnostics.iter().all(|diagnostic| !diagnostic.is_error());
        self.diagnostics.append(&mut decoder.diagnostics);
        let kept = if sound { &mut self.objects } else { &mut self.unsound };
        kept.extend(object.map(|object| Object { spans: decoder.spans, ..object }));
    }

    fn at(&self, node: &Node, diagnostic: Diagnostic) -> Diagnostic {
        let location = Some(Location { file: Arc::clone(&self.file), span: node.span });
        Diagnostic { location, ..diagnostic }
    }
}

/// The members of a `List` object.
fn list_items(node: &Node) -> Option<&[Node]> {
    node.get("kind")?.as_str()?.ends_with("List").then_some(())?;
    match &node.get("items")?.value {
        Value::Sequence(items) => Some(items),
        _ => None,
    }
}

/// The identity of an object as far as it can be told without judging it.
fn identity(node: &Node) -> Option<ObjectId> {
    let Recognised::Known(kind) =
        kinds::recognise(node.get("apiVersion")?.as_str()?, node.get("kind")?.as_str()?)
    else {
        return None;
    };
    let metadata = node.get("metadata");
    let of_metadata = |key| metadata.and_then(|metadata| metadata.get(key)).and_then(Node::as_str);
    let (name, default) = match kind {
        Kind::IstioOperator => (of_metadata("name").unwrap_or(NAMELESS_OPERATOR), OPERATOR_NAMESPACE),
        _ => (of_metadata("name")?, DEFAULT_NAMESPACE),
    };
    let namespace = match kind.is_cluster_wide() {
        true => "",
        false => of_metadata("namespace").unwrap_or(default),
    };
    Some(ObjectId::new(kind, namespace, name))
}

fn decode_object(node: &Node, decoder: &mut Decoder, origin: Origin) -> Option<Object> {
    decoder.object = identity(node);
    let kind = kind_of(node, decoder)?;
    let entries = decoder.mapping(node, "an object")?;
    let is_nameless =
        kind == Kind::IstioOperator && node.get("metadata").is_none_or(|m| m.get("name").is_none());
    let metadata = match is_nameless {
        true => Metadata::default(),
        false => decoder.field(node, entries, &Field { key: "metadata", required: true, leaf: None }),
    };
    let spec = decode_spec(kind, node, decoder);
    if kind.is_later() {
        let message = format!("nothing acts by objects of kind {kind} yet");
        decoder.report_below("kind", &codes::NOT_IN_FORCE, message, "");
    }
    let status = match kind.has_status() {
        true => decoder.field(node, entries, &Field { key: "status", required: false, leaf: None }),
        false => Status::default(),
    };
    let controller = metadata.owner_references.into_iter().find(|owner| owner.controller == Some(true));
    Some(Object {
        id: decoder.object.clone()?,
        meta: Meta {
            created_unix_seconds: metadata.creation_timestamp.as_deref().and_then(syntax::unix_seconds),
            labels: metadata.labels,
            annotations: metadata.annotations,
            generation: metadata.generation,
            controller: controller.map(|owner| (owner.kind, owner.name)),
            is_terminating: metadata.deletion_timestamp.is_some(),
        },
        spec,
        status,
        origin,
        spans: Default::default(),
    })
}

/// The kind of a document, or a report that it has none we read.
fn kind_of(node: &Node, decoder: &mut Decoder) -> Option<Kind> {
    let Value::Mapping(entries) = &node.value else {
        let message = format!("expected an object, found {}", node.describe());
        decoder.report(node, &codes::NOT_AN_OBJECT, message, OBJECT_HELP.to_owned());
        return None;
    };
    if node.get("apiVersion").is_none() && node.get("kind").is_none() {
        let message = "expected an object, found a mapping without `apiVersion` and `kind`".to_owned();
        decoder.report(node, &codes::NOT_AN_OBJECT, message, OBJECT_HELP.to_owned());
        return None;
    }
    let before = decoder.diagnostics.len();
    let required = |key| Field { key, required: true, leaf: None };
    let version: String = decoder.field(node, entries, &required("apiVersion"));
    let kind: String = decoder.field(node, entries, &required("kind"));
    if decoder.diagnostics.len() > before {
        return None;
    }
    match kinds::recognise(&version, &kind) {
        Recognised::Known(kind) => Some(kind),
        Recognised::Later(message) => {
            decoder.report_below("kind", &codes::UNSUPPORTED_KIND, message, "");
            None
        }
        Recognised::Unknown { field, message, help } => {
            decoder.report_below(field, &codes::UNKNOWN_KIND, message, &help);
            None
        }
    }
}

/// Reads the content of an object: below `spec`, or beside `metadata` for the kinds that have no spec.
fn decode_spec(kind: Kind, node: &Node, decoder: &mut Decoder) -> Spec {
    macro_rules! below {
        ($variant:ident) => {
            Spec::$variant(spec_field(node, decoder))
        };
    }
    macro_rules! beside {
        ($variant:ident) => {
            Spec::$variant(Wire::decode(node, decoder, None).unwrap_or_default())
        };
    }
    match kind {
        Kind::VirtualService => below!(VirtualService),
        Kind::DestinationRule => below!(DestinationRule),
        Kind::Gateway => below!(Gateway),
        Kind::ServiceEntry => below!(ServiceEntry),
        Kind::WorkloadEntry => below!(WorkloadEntry),
        Kind::WorkloadGroup => below!(WorkloadGroup),
        Kind::Sidecar => below!(Sidecar),
        Kind::ProxyConfig => below!(ProxyConfig),
        Kind::EnvoyFilter => below!(EnvoyFilter),
        Kind::PeerAuthentication => below!(PeerAuthentication),
        Kind::AuthorizationPolicy => below!(AuthorizationPolicy),
        Kind::RequestAuthentication => below!(RequestAuthentication),
        Kind::Telemetry => below!(Telemetry),
        Kind::WasmPlugin => below!(WasmPlugin),
        Kind::TrafficExtension => below!(TrafficExtension),
        Kind::IstioOperator => below!(IstioOperator),
        Kind::Service => below!(Service),
        Kind::Deployment => below!(Deployment),
        Kind::ServiceAccount => beside!(ServiceAccount),
        Kind::Namespace => beside!(Namespace),
        Kind::ConfigMap => beside!(ConfigMap),
        Kind::Secret => beside!(Secret),
        Kind::Pod => below!(Pod),
        Kind::Node => beside!(Node),
        Kind::EndpointSlice => beside!(EndpointSlice),
        Kind::Endpoints => beside!(Endpoints),
        Kind::StatefulSet => below!(StatefulSet),
        Kind::DaemonSet => below!(DaemonSet),
        Kind::ReplicaSet => below!(ReplicaSet),
        Kind::Job => below!(Job),
    }
}

/// Reads `spec` and reports every other key of the object that does not belong there.
fn spec_field<T: Wire>(node: &Node, decoder: &mut Decoder) -> T {
    const SPEC: Field = Field { key: "spec", required: false, leaf: None };
    const AROUND: &[&str] = &["apiVersion", "kind", "metadata", "status"];
    let Some(entries) = decoder.mapping(node, "an object") else { return T::default() };
    decoder.surplus(entries, &[SPEC.key], AROUND, &[]);
    if node.get("spec").is_none_or(Node::is_null) {
        decoder.missing("spec", node);
        return T::default();
    }
    decoder.field(node, entries, &SPEC)
}
