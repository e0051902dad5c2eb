//! The forms in which a workload tells of itself: a protobuf `Struct` in a header or in a frame.
//!
//! Source: Istio's `WorkloadMetadataObject`. Whatever cannot be read says nothing: telling is a courtesy, and no request
//! may fail by it.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use meltemi_envoy::Any;
use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{Struct, Value};

use super::Workload;

/// The largest header that is read; Istio's proxies send some hundred bytes.
const MAX_HEADER_BYTES: usize = 16 << 10;

/// The longest value that becomes a label. Names of Kubernetes have at most 253 bytes; series are kept for ever, so what a
/// client says must not be kept at any length.
const MAX_VALUE_BYTES: usize = 256;

/// Revision of a workload that says none.
pub(super) const LATEST: &str = "latest";

const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
const APP: &str = "app";
const QUALIFIED_APP: &str = "app.kubernetes.io/name";
const VERSION: &str = "version";
const QUALIFIED_VERSION: &str = "app.kubernetes.io/version";

/// Keys of a frame; they are called as the headers.
const PEER_METADATA: &str = "x-envoy-peer-metadata";
const PEER_METADATA_ID: &str = "x-envoy-peer-metadata-id";

const STRUCT: &str = "google.protobuf.Struct";

/// As Istio's: others may leave the padding away.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Kinds of owners that are told of.
const OWNER_KINDS: [&str; 4] = ["pod", "deployment", "job", "cronjob"];

/// Reads the value of the header `x-envoy-peer-metadata`.
pub(super) fn of_header(value: &[u8]) -> Option<Workload> {
    if value.len() > MAX_HEADER_BYTES {
        return None;
    }
    let bytes = BASE64.decode(value).ok()?;
    Some(workload(&Struct::decode(&*bytes).ok()?))
}

/// Writes it. Maps are ordered, so equal structures give equal bytes.
pub(super) fn to_header(metadata: &Struct) -> String {
    BASE64.encode(metadata.encode_to_vec())
}

/// Reads the body of a frame of `istio-peer-exchange`.
pub(super) fn of_frame(body: &[u8]) -> Option<Workload> {
    let any = Any::decode(body).ok().filter(|any| any.message_name() == STRUCT)?;
    let told = Struct::decode(&*any.value).ok()?;
    structure(&told, PEER_METADATA).map(workload)
}

/// Writes it.
pub(super) fn to_frame(metadata: &Struct, id: &str) -> Vec<u8> {
    let mut told = Struct::default();
    told.fields.insert(PEER_METADATA.to_owned(), Value { kind: Some(Kind::StructValue(metadata.clone())) });
    insert(&mut told, PEER_METADATA_ID, Some(id));
    let type_url = format!("type.googleapis.com/{STRUCT}");
    Any { type_url, value: told.encode_to_vec().into() }.encode_to_vec()
}

fn workload(told: &Struct) -> Workload {
    let empty = Struct::default();
    let labels = structure(told, "LABELS").unwrap_or(&empty);
    let short = |text: Option<&str>| text.filter(|text| text.len() <= MAX_VALUE_BYTES).map(Box::from);
    Workload {
        workload: short(text(told, "WORKLOAD_NAME")),
        namespace: short(text(told, "NAMESPACE")),
        app: short(text(labels, QUALIFIED_APP).or_else(|| text(labels, APP))),
        version: short(text(labels, QUALIFIED_VERSION).or_else(|| text(labels, VERSION))),
        canonical_service: short(text(labels, CANONICAL_NAME)),
        canonical_revision: short(Some(text(labels, CANONICAL_REVISION).unwrap_or(LATEST))),
        cluster: short(text(told, "CLUSTER_ID")),
    }
}

/// What we say of ourselves: of the node's metadata what others read, with the service that `own` found out.
pub(super) fn of_node(node: &Struct, region: &str, zone: &str, own: &Workload) -> Struct {
    let empty = Struct::default();
    let labels = structure(node, "LABELS").unwrap_or(&empty);
    let mut told = Struct::default();
    for key in ["NAME", "NAMESPACE", "WORKLOAD_NAME", "CLUSTER_ID", "IDENTITY"] {
        insert(&mut told, key, text(node, key));
    }
    insert(&mut told, "REGION", Some(region));
    insert(&mut told, "AVAILABILITY_ZONE", Some(zone));
    insert(&mut told, "OWNER", owner(node).as_deref());
    let mut own_labels = Struct::default();
    insert(&mut own_labels, CANONICAL_NAME, own.canonical_service.as_deref());
    insert(&mut own_labels, CANONICAL_REVISION, own.canonical_revision.as_deref());
    insert(&mut own_labels, APP, text(labels, QUALIFIED_APP).or_else(|| text(labels, APP)));
    insert(&mut own_labels, VERSION, text(labels, QUALIFIED_VERSION).or_else(|| text(labels, VERSION)));
    told.fields.insert("LABELS".to_owned(), Value { kind: Some(Kind::StructValue(own_labels)) });
    told
}

/// The kind of workload, in the form that Istio's proxies read.
fn owner(node: &Struct) -> Option<String> {
    let (owner, workload) = (text(node, "OWNER")?, text(node, "WORKLOAD_NAME")?);
    let kind = owner.strip_suffix(workload)?.strip_suffix("s/")?.rsplit('/').next()?;
    let namespace = text(node, "NAMESPACE").unwrap_or_default();
    let is_told = OWNER_KINDS.contains(&kind);
    is_told.then(|| format!("kubernetes://apis/apps/v1/namespaces/{namespace}/{kind}s/{workload}"))
}

/// A text that is not empty.
pub(super) fn text<'s>(of: &'s Struct, key: &str) -> Option<&'s str> {
    match &of.fields.get(key)?.kind {
        Some(Kind::StringValue(text)) => Some(text.as_str()).filter(|text| !text.is_empty()),
        _ => None,
    }
}

pub(super) fn structure<'s>(of: &'s Struct, key: &str) -> Option<&'s Struct> {
    match &of.fields.get(key)?.kind {
        Some(Kind::StructValue(inner)) => Some(inner),
        _ => None,
    }
}

fn insert(into: &mut Struct, key: &str, text: Option<&str>) {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return };
    let value = Value { kind: Some(Kind::StringValue(text.to_owned())) };
    into.fields.insert(key.to_owned(), value);
}
