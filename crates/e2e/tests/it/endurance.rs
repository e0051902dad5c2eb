//! Identity over time in a running shop of our own sidecars: certificates of seconds rotate, the root changes, the
//! authority is away, and no request notices.
//!
//! `ENDURANCE_SECONDS=300` lets certificates rotate under load for longer.

mod shop;

use std::process::Command;
use std::time::Duration;

use meltemi_e2e::peers;
use meltemi_e2e::process::{DEADLINE, Process, until};

use self::shop::{Shop, caller};

/// Life of a certificate, in seconds.
const TTL: u64 = 10;

/// What the proxies may grow by, all together: rotations leave nothing behind.
const GROWTH_LIMIT_KIB: u64 = 24 << 10;

fn seconds() -> u64 {
    std::env::var("ENDURANCE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(25)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_rotate_under_load_and_nothing_is_dropped() {
    let shop = Shop::start(&["--cert-ttl", &TTL.to_string()]).await;
    shop.shake_hands_for_each_request_to_product_info().await;
    let time = Duration::from_secs(seconds());
    let load = shop.mesh.load(50, time).expect("load runs");
    shop.until_warm().await;
    let (closed, rotations, kib) = (shop.closed().await, shop.rotations(), shop.resident_kib());
    let report = load.report().await.expect("a report");
    let rotated = shop.rotations() - rotations;
    let kib_late = shop.resident_kib();
    eprintln!(
        "{} requests in {} s, {} failed; each proxy renewed at least {rotated} times; proxies hold {kib} KiB, then {kib_late} KiB",
        report.completed(),
        time.as_secs(),
        report.failed()
    );
    assert_eq!(report.failed(), 0, "{report:?}");
    assert!(report.completed() > 50 * time.as_secs() / 2, "{report:?}");
    // Renewal is at half of the life; a busy machine may be late by a part of that.
    assert!(rotated >= time.as_secs() / TTL, "{rotated} rotations in {time:?}");
    assert_eq!(shop.closed().await, closed, "connections were closed: {report:?}");
    assert_eq!(shop.refused().await, 0);
    assert!(kib_late < kib + GROWTH_LIMIT_KIB, "memory grows: {kib} KiB, then {kib_late} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_root_changes_under_load_and_the_old_one_opens_nothing_any_more() {
    let shop = Shop::start(&["--cert-ttl", "6"]).await;
    shop.shake_hands_for_each_request_to_product_info().await;
    shop.demand_mutual_tls().await;
    let old = shop.issue("old");
    assert!(caller(shop.sidecar("product-info-v1-0"), &old), "of the root in force");
    let load = shop.mesh.load(50, Duration::from_secs(20)).expect("load runs");
    let mut rotation = Command::new(peers::meltemi());
    rotation
        .args(["cert", "rotate-root", "--wait", "--cert-ttl", "6s", "--ca-directory"])
        .arg(shop.authority());
    let mut rotation = Process::spawn(&mut rotation, &shop.scratch("rotation.log")).expect("it starts");
    let status = rotation.wait(2 * DEADLINE).await.expect("it ends");
    assert!(status.success(), "{}", rotation.output());
    for name in ["product-info-v1-0", "frontend-v1-0"] {
        let refused = until("the old root is forgotten", DEADLINE, async || {
            (!caller(shop.sidecar(name), &old)).then_some(())
        });
        refused.await.unwrap_or_else(|e| panic!("{e}: {name}: {}", rotation.output()));
        assert!(caller(shop.sidecar(name), &shop.issue(name)), "of the new root");
    }
    let report = load.report().await.expect("a report");
    assert_eq!(report.failed(), 0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_authority_a_mesh_serves_until_its_certificates_end_and_recovers() {
    let shop = Shop::start(&["--cert-ttl", &TTL.to_string()]).await;
    shop.shake_hands_for_each_request_to_product_info().await;
    let end = shop.end_control_plane();
    // Renewed at half of their life, all certificates are good for that long at least.
    let load = shop.mesh.load(50, Duration::from_secs(TTL / 2 - 1)).expect("load runs");
    let report = load.report().await.expect("a report");
    assert_eq!(report.failed(), 0, "{report:?}");
    let ended =
        until("certificates end", DEADLINE, async || shop.mesh.served(1).await.is_err().then_some(()));
    ended.await.expect("nobody is believed with a certificate that has ended");
    end.undo();
    let recovered = until("the shop serves again", 3 * DEADLINE, async || {
        shop.mesh.served(20).await.is_ok().then_some(())
    });
    recovered.await.unwrap_or_else(|e| panic!("{e}\n{}", shop.mesh.up.output()));
}
