//! The bounds of what one file may ask of the parser. Generous for any real manifest, small against an attack.

/// Longest text parsed. A Kubernetes object is at most 1.5 MiB (etcd's request limit); ten of them fit in a file.
pub(crate) const MAX_TEXT_BYTES: usize = 16 << 20;
/// Deepest nesting of mappings and sequences. The deepest Istio field is 12 levels down.
pub(crate) const MAX_DEPTH: usize = 64;
/// Most nodes in one file, counted after alias expansion, so that an alias bomb stops here.
pub(crate) const MAX_NODES: usize = 1 << 20;
/// Most documents in one file, members of a `List` included.
pub(crate) const MAX_OBJECTS: usize = 20_000;
/// Most diagnostics kept for one file: a file that is not YAML of ours at all should not flood a terminal.
pub(crate) const MAX_DIAGNOSTICS: usize = 1_000;
/// Largest compiled size of one user regex, in bytes: ten times what a route regex needs.
pub(crate) const MAX_REGEX_BYTES: usize = 1 << 20;
/// Most broken documents of one file after which reading goes on; a file with more is not YAML.
pub(crate) const MAX_BROKEN_DOCUMENTS: usize = 100;
/// Largest body of a direct response, Istio's bound; translation lets proxies take as much.
pub(crate) const MAX_RESPONSE_BODY_BYTES: usize = 1 << 20;
