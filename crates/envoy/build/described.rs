//! Definitions that `types.bin` lacks, described field by field: `TypedStruct` of cncf/xds, Istio's certificate service
//! and name table, and the SPIFFE Workload API. Names and numbers are the wire contract; nothing else of those files is here.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, MessageOptions, MethodDescriptorProto,
    ServiceDescriptorProto,
};

/// What Istio wraps its filter configs in: a type URL and a `google.protobuf.Struct`.
pub(crate) fn typed_struct(package: &str) -> FileDescriptorProto {
    let fields = vec![
        field("type_url", 1, Type::String, None),
        field("value", 2, Type::Message, Some(".google.protobuf.Struct")),
    ];
    FileDescriptorProto {
        name: Some(format!("{}/typed_struct.proto", package.replace('.', "/"))),
        dependency: vec!["google/protobuf/struct.proto".to_owned()],
        message_type: vec![message("TypedStruct", fields)],
        ..file(package)
    }
}

/// Istio's `security/v1alpha1/ca.proto`: a request to sign, and the chain.
pub(crate) fn istio_ca() -> FileDescriptorProto {
    let request = vec![
        field("csr", 1, Type::String, None),
        field("validity_duration", 3, Type::Int64, None),
        field("metadata", 4, Type::Message, Some(".google.protobuf.Struct")),
    ];
    let response = vec![repeated(field("cert_chain", 1, Type::String, None))];
    let method = method(
        "CreateCertificate",
        ".istio.v1.auth.IstioCertificateRequest",
        ".istio.v1.auth.IstioCertificateResponse",
    );
    FileDescriptorProto {
        name: Some("istio/v1/auth/ca.proto".to_owned()),
        dependency: vec!["google/protobuf/struct.proto".to_owned()],
        message_type: vec![
            message("IstioCertificateRequest", request),
            message("IstioCertificateResponse", response),
        ],
        service: vec![service("IstioCertificateService", vec![method])],
        ..file("istio.v1.auth")
    }
}

/// Istio's `nds.proto`: names with their addresses, for agents that answer DNS queries.
pub(crate) fn istio_names() -> FileDescriptorProto {
    let info = vec![
        repeated(field("ips", 1, Type::String, None)),
        field("registry", 2, Type::String, None),
        field("shortname", 3, Type::String, None),
        field("namespace", 4, Type::String, None),
    ];
    let info_name = ".istio.networking.nds.v1.NameTable.NameInfo";
    let entry = vec![field("key", 1, Type::String, None), field("value", 2, Type::Message, Some(info_name))];
    let table = vec![map_field("table", 1, ".istio.networking.nds.v1.NameTable.TableEntry")];
    FileDescriptorProto {
        name: Some("istio/networking/nds/v1/nds.proto".to_owned()),
        message_type: vec![DescriptorProto {
            nested_type: vec![message("NameInfo", info), map_entry("TableEntry", entry)],
            ..message("NameTable", table)
        }],
        ..file("istio.networking.nds.v1")
    }
}

/// The X.509 half of `workload.proto` of the SPIFFE Workload API, which has no package.
pub(crate) fn spiffe_workload() -> FileDescriptorProto {
    let svid = vec![
        field("spiffe_id", 1, Type::String, None),
        field("x509_svid", 2, Type::Bytes, None),
        field("x509_svid_key", 3, Type::Bytes, None),
        field("bundle", 4, Type::Bytes, None),
        field("hint", 5, Type::String, None),
    ];
    let svids = vec![
        repeated(field("svids", 1, Type::Message, Some(".X509SVID"))),
        repeated(field("crl", 2, Type::Bytes, None)),
        map_field("federated_bundles", 3, ".X509SVIDResponse.FederatedBundlesEntry"),
    ];
    let bundles = vec![
        repeated(field("crl", 1, Type::Bytes, None)),
        map_field("bundles", 2, ".X509BundlesResponse.BundlesEntry"),
    ];
    let streaming = |name, input, output| MethodDescriptorProto {
        server_streaming: Some(true),
        ..method(name, input, output)
    };
    FileDescriptorProto {
        name: Some("spiffe/workload.proto".to_owned()),
        message_type: vec![
            message("X509SVIDRequest", Vec::new()),
            message("X509SVID", svid),
            DescriptorProto {
                nested_type: vec![bytes_entry("FederatedBundlesEntry")],
                ..message("X509SVIDResponse", svids)
            },
            message("X509BundlesRequest", Vec::new()),
            DescriptorProto {
                nested_type: vec![bytes_entry("BundlesEntry")],
                ..message("X509BundlesResponse", bundles)
            },
        ],
        service: vec![service(
            "SpiffeWorkloadAPI",
            vec![
                streaming("FetchX509SVID", ".X509SVIDRequest", ".X509SVIDResponse"),
                streaming("FetchX509Bundles", ".X509BundlesRequest", ".X509BundlesResponse"),
            ],
        )],
        ..file("")
    }
}

fn file(package: &str) -> FileDescriptorProto {
    let package = (!package.is_empty()).then(|| package.to_owned());
    FileDescriptorProto { package, syntax: Some("proto3".to_owned()), ..Default::default() }
}

fn message(name: &str, field: Vec<FieldDescriptorProto>) -> DescriptorProto {
    DescriptorProto { name: Some(name.to_owned()), field, ..Default::default() }
}

fn field(name: &str, number: i32, kind: Type, type_name: Option<&str>) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(kind.into()),
        type_name: type_name.map(str::to_owned),
        ..Default::default()
    }
}

fn repeated(field: FieldDescriptorProto) -> FieldDescriptorProto {
    FieldDescriptorProto { label: Some(Label::Repeated.into()), ..field }
}

fn map_field(name: &str, number: i32, entry: &str) -> FieldDescriptorProto {
    repeated(field(name, number, Type::Message, Some(entry)))
}

/// One entry of a `map<string, bytes>`.
fn bytes_entry(name: &str) -> DescriptorProto {
    map_entry(name, vec![field("key", 1, Type::String, None), field("value", 2, Type::Bytes, None)])
}

fn map_entry(name: &str, fields: Vec<FieldDescriptorProto>) -> DescriptorProto {
    let options = MessageOptions { map_entry: Some(true), ..Default::default() };
    DescriptorProto { options: Some(options), ..message(name, fields) }
}

fn service(name: &str, method: Vec<MethodDescriptorProto>) -> ServiceDescriptorProto {
    ServiceDescriptorProto { name: Some(name.to_owned()), method, ..Default::default() }
}

fn method(name: &str, input: &str, output: &str) -> MethodDescriptorProto {
    MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(input.to_owned()),
        output_type: Some(output.to_owned()),
        ..Default::default()
    }
}
