//! Where the programs under test and the foreign programs are.
//!
//! A peer that is missing makes a test say SKIPPED with the reason on a laptop, and fail in CI (`CI=true`).

use std::path::{Path, PathBuf};

/// The `meltemi` binary that cargo built beside this test, or `$MELTEMI_BIN`.
///
/// # Panics
/// If it has not been built (`cargo build -p meltemi`).
pub fn meltemi() -> PathBuf {
    if let Some(path) = std::env::var_os("MELTEMI_BIN") {
        return path.into();
    }
    let exe = std::env::current_exe().expect("a running test has a path");
    let built = exe.ancestors().map(|dir| dir.join("meltemi")).find(|path| path.is_file());
    built.expect("build the binary first: cargo build -p meltemi")
}

/// Envoy 1.40: `$MELTEMI_ENVOY`, else what `scripts/peers` installed. `None` after saying SKIPPED.
///
/// # Panics
/// In CI, when it is missing.
pub fn envoy() -> Option<PathBuf> {
    let installed = || repository().join("target/peers/envoy/_bin/envoy");
    let path = std::env::var_os("MELTEMI_ENVOY").map_or_else(installed, PathBuf::from);
    if path.is_file() {
        return Some(path);
    }
    missing(&format!("Envoy is not at {}; scripts/peers installs it", path.display()));
    None
}

/// The folder to put into `PYTHONPATH` for a Python package that `scripts/peers` installed. `None` after saying SKIPPED.
///
/// # Panics
/// In CI, when it is missing.
pub fn python_package(name: &str) -> Option<PathBuf> {
    let folder = repository().join("target/peers");
    if folder.join(name).is_dir() {
        return Some(folder);
    }
    missing(&format!("the Python package {name} is not installed; scripts/peers does it"));
    None
}

/// The program with go-spiffe that `scripts/peers` builds from `testdata/go-spiffe`. `None` after saying SKIPPED.
///
/// # Panics
/// In CI, when it is missing.
pub fn go_spiffe() -> Option<PathBuf> {
    let path = repository().join("target/peers/go-spiffe");
    if path.is_file() {
        return Some(path);
    }
    missing("the program with go-spiffe is not built; scripts/peers does it, with go 1.24");
    None
}

/// Says SKIPPED with the reason.
///
/// # Panics
/// In CI.
pub fn missing(reason: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "a peer is missing in CI: {reason}");
    eprintln!("SKIPPED: {reason}");
}

/// The root of the checkout.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("invariant: this crate is two folders below the root").to_path_buf()
}
