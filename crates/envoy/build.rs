//! Generates the Rust types of the Envoy API, and a pruned descriptor set for protobuf JSON.
//!
//! The interface definitions are the ones that the `envoy-types` package ships (`types.bin`, a descriptor
//! set made by protoc); nothing of them is copied into this repository. The package is listed in
//! `Cargo.toml` under a target that never holds, so it is locked and downloaded but never compiled.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use prost::Message;
use prost_types::FileDescriptorSet;

use described::{istio_ca, istio_names, spiffe_workload, typed_struct};

#[path = "build/described.rs"]
mod described;

/// The files that the mesh uses; what they import comes along.
const ROOTS: &[&str] = &[
    "envoy/admin/v3/certs.proto",
    "envoy/admin/v3/clusters.proto",
    "envoy/admin/v3/config_dump.proto",
    "envoy/admin/v3/listeners.proto",
    "envoy/admin/v3/memory.proto",
    "envoy/admin/v3/server_info.proto",
    "envoy/config/bootstrap/v3/bootstrap.proto",
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/config/route/v3/route.proto",
    "envoy/extensions/access_loggers/file/v3/file.proto",
    "envoy/extensions/access_loggers/stream/v3/stream.proto",
    "envoy/extensions/filters/http/buffer/v3/buffer.proto",
    "envoy/extensions/filters/http/cors/v3/cors.proto",
    "envoy/extensions/filters/http/fault/v3/fault.proto",
    "envoy/extensions/filters/http/grpc_stats/v3/config.proto",
    "envoy/extensions/filters/http/header_mutation/v3/header_mutation.proto",
    "envoy/extensions/filters/http/health_check/v3/health_check.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/http/set_filter_state/v3/set_filter_state.proto",
    "envoy/extensions/filters/listener/http_inspector/v3/http_inspector.proto",
    "envoy/extensions/filters/listener/original_dst/v3/original_dst.proto",
    "envoy/extensions/filters/listener/original_src/v3/original_src.proto",
    "envoy/extensions/filters/listener/proxy_protocol/v3/proxy_protocol.proto",
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto",
    "envoy/extensions/filters/network/connection_limit/v3/connection_limit.proto",
    "envoy/extensions/filters/network/direct_response/v3/config.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/filters/network/set_filter_state/v3/set_filter_state.proto",
    "envoy/extensions/filters/network/sni_cluster/v3/sni_cluster.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/http/header_formatters/preserve_case/v3/preserve_case.proto",
    "envoy/extensions/http/original_ip_detection/custom_header/v3/custom_header.proto",
    "envoy/extensions/http/original_ip_detection/xff/v3/xff.proto",
    "envoy/extensions/internal_redirect/allow_listed_routes/v3/allow_listed_routes_config.proto",
    "envoy/extensions/internal_redirect/previous_routes/v3/previous_routes_config.proto",
    "envoy/extensions/internal_redirect/safe_cross_scheme/v3/safe_cross_scheme_config.proto",
    "envoy/extensions/load_balancing_policies/cluster_provided/v3/cluster_provided.proto",
    "envoy/extensions/health_check/event_sinks/file/v3/file.proto",
    "envoy/extensions/formatter/req_without_query/v3/req_without_query.proto",
    "envoy/extensions/load_balancing_policies/least_request/v3/least_request.proto",
    "envoy/extensions/load_balancing_policies/maglev/v3/maglev.proto",
    "envoy/extensions/load_balancing_policies/override_host/v3/override_host.proto",
    "envoy/extensions/load_balancing_policies/random/v3/random.proto",
    "envoy/extensions/load_balancing_policies/ring_hash/v3/ring_hash.proto",
    "envoy/extensions/load_balancing_policies/round_robin/v3/round_robin.proto",
    "envoy/extensions/load_balancing_policies/subset/v3/subset.proto",
    "envoy/extensions/matching/common_inputs/network/v3/network_inputs.proto",
    "envoy/extensions/matching/common_inputs/ssl/v3/ssl_inputs.proto",
    "envoy/extensions/network/dns_resolver/cares/v3/cares_dns_resolver.proto",
    "envoy/extensions/network/dns_resolver/getaddrinfo/v3/getaddrinfo_dns_resolver.proto",
    "envoy/extensions/path/match/uri_template/v3/uri_template_match.proto",
    "envoy/extensions/path/rewrite/uri_template/v3/uri_template_rewrite.proto",
    "envoy/extensions/request_id/uuid/v3/uuid.proto",
    "envoy/extensions/resource_monitors/downstream_connections/v3/downstream_connections.proto",
    "envoy/extensions/retry/host/omit_canary_hosts/v3/omit_canary_hosts.proto",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto",
    "envoy/extensions/retry/priority/previous_priorities/v3/previous_priorities_config.proto",
    "envoy/extensions/transport_sockets/proxy_protocol/v3/upstream_proxy_protocol.proto",
    "envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
    "envoy/service/discovery/v3/ads.proto",
    "envoy/service/discovery/v3/discovery.proto",
    "envoy/service/secret/v3/sds.proto",
    "envoy/service/status/v3/csds.proto",
    "google/rpc/status.proto",
    "xds/type/matcher/v3/matcher.proto",
];

/// The services that the mesh serves or calls; stubs of the others would only cost compile time.
const SERVICES: &[&str] = &[
    "envoy.service.discovery.v3.AggregatedDiscoveryService",
    "envoy.service.secret.v3.SecretDiscoveryService",
];

/// Packages that carry only options for other compilers; the messages do not depend on them.
const ANNOTATIONS: &[&str] =
    &["validate/", "udpa/annotations/", "xds/annotations/", "envoy/annotations/", "google/api/annotations"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=build/described.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let bytes = fs::read(types_bin()).expect("read types.bin of envoy-types");
    let all = FileDescriptorSet::decode(bytes.as_slice()).expect("types.bin is a FileDescriptorSet");
    fs::write(out.join("whole.bin"), whole(&all).encode_to_vec()).expect("write whole.bin");
    let mut pruned = prune(all);
    pruned.file.extend(["udpa.type.v1", "xds.type.v3"].map(typed_struct));
    pruned.file.extend([istio_ca(), istio_names(), spiffe_workload()]);
    fs::write(out.join("descriptors.bin"), pruned.encode_to_vec()).expect("write descriptors.bin");
    generate(&out, pruned);
}

/// Where cargo has put the file of the locked `envoy-types` package.
fn types_bin() -> PathBuf {
    let cargo = env::var_os("CARGO").expect("cargo sets CARGO");
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--manifest-path"])
        .arg(
            Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"))
                .join("Cargo.toml"),
        )
        .output()
        .expect("run cargo metadata");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("packages is a list");
    let package = packages.iter().find(|p| p["name"] == "envoy-types").expect("envoy-types is locked");
    let manifest = Path::new(package["manifest_path"].as_str().expect("manifest_path is a string"));
    manifest.with_file_name("src").join("generated/types.bin")
}

/// Everything, for values of extensions that nothing here has code for.
fn whole(all: &FileDescriptorSet) -> FileDescriptorSet {
    let files = all.file.iter().filter(|file| !is_annotation(file.name())).cloned();
    let mut set = FileDescriptorSet { file: files.map(without_annotations).collect() };
    let known: BTreeSet<String> = set.file.iter().map(|file| file.name().to_owned()).collect();
    let own = ["udpa.type.v1", "xds.type.v3"].map(typed_struct).into_iter().chain([
        istio_ca(),
        istio_names(),
        spiffe_workload(),
    ]);
    set.file.extend(own.filter(|file| !known.contains(file.name())));
    set
}

/// Keeps the roots and what they import, without comments, options and annotation packages.
fn prune(all: FileDescriptorSet) -> FileDescriptorSet {
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    let mut queue: Vec<String> = ROOTS.iter().map(|name| (*name).to_owned()).collect();
    while let Some(name) = queue.pop() {
        if is_annotation(&name) || wanted.contains(&name) {
            continue;
        }
        let file = all.file.iter().find(|file| file.name() == name);
        let file = file.unwrap_or_else(|| panic!("types.bin has no file {name}"));
        queue.extend(file.dependency.iter().cloned());
        wanted.insert(name);
    }
    let files = all.file.into_iter().filter(|file| wanted.contains(file.name()));
    FileDescriptorSet { file: files.map(without_annotations).collect() }
}

fn is_annotation(name: &str) -> bool {
    ANNOTATIONS.iter().any(|prefix| name.starts_with(prefix)) || name == "google/protobuf/descriptor.proto"
}

fn without_annotations(mut file: prost_types::FileDescriptorProto) -> prost_types::FileDescriptorProto {
    file.source_code_info = None;
    file.options = None;
    file.dependency.retain(|name| !is_annotation(name));
    file.public_dependency.clear();
    file.weak_dependency.clear();
    file.service.retain(|s| {
        SERVICES.contains(&format!("{}.{}", file.package.as_deref().unwrap_or(""), s.name()).as_str())
    });
    file
}

fn generate(out: &Path, set: FileDescriptorSet) {
    let mut config = prost_build::Config::new();
    config
        .btree_map(["."])
        .bytes(["."])
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com")
        .extern_path(".google.protobuf.Any", "crate::Any")
        .include_file("messages.rs")
        .out_dir(out);
    tonic_prost_build::configure()
        .build_transport(false)
        .compile_fds_with_config(set, config)
        .expect("generate the Envoy messages");
}
