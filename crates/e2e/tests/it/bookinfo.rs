//! What the networking samples of Istio's Bookinfo show, over real sockets: one control plane, and behind it our proxy and a
//! stock Envoy as sidecars of the same caller, which must route alike. The manifests here are our own.

mod world;

use std::time::{Duration, Instant};

use world::{Answered, World};

/// A share counts as met within four standard deviations: a fair split fails once in 16,000 runs.
fn is_share(count: usize, of: usize, share: f64) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
    let (count, of) = (count as f64, of as f64);
    (count - of * share).abs() <= 4.0 * (of * share * (1.0 - share)).sqrt()
}

fn to(version: &str) -> String {
    format!("{{destination: {{host: reviews, subset: {version}}}}}")
}

fn split(shares: &[(&str, u32)]) -> String {
    let each = shares.iter().map(|(version, weight)| {
        format!("{{destination: {{host: reviews, subset: {version}}}, weight: {weight}}}")
    });
    format!("route: [{}]", each.collect::<Vec<_>>().join(", "))
}

const JASON: &str = "match: [{headers: {end-user: {exact: jason}}}]";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bookinfo_shifts_traffic_by_weight() {
    let world = World::start().await;
    for (weights, calls) in
        [(vec![("v1", 100)], 40), (vec![("v1", 50), ("v3", 50)], 400), (vec![("v1", 90), ("v2", 10)], 400)]
    {
        world.route(&[split(&weights)]).await;
        let total: u32 = weights.iter().map(|(_, weight)| weight).sum();
        for sidecar in world.sidecars() {
            let mut seen = Vec::new();
            for _ in 0..calls {
                seen.push(world.reviews(sidecar, &[]).await.backend);
            }
            for (version, weight) in &weights {
                let count = seen.iter().filter(|backend| *backend == version).count();
                let share = f64::from(*weight) / f64::from(total);
                assert!(is_share(count, calls, share), "{sidecar:?} {version} {weight}: {count} of {calls}");
            }
            assert!(seen.iter().all(|b| weights.iter().any(|(version, _)| version == b)), "{seen:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bookinfo_routes_by_user_and_breaks_on_purpose() {
    let world = World::start().await;
    let delay = Duration::from_millis(400);
    // A proxy counts from when its loop last looked at the clock, which on a busy machine is a while ago.
    let at_least = delay / 2;
    let jason = [("end-user", "jason")];

    world.route(&[format!("{JASON}, route: [{}]", to("v2")), format!("route: [{}]", to("v1"))]).await;
    for sidecar in world.sidecars() {
        assert_eq!(world.reviews(sidecar, &jason).await.backend, "v2");
        assert_eq!(world.reviews(sidecar, &[("end-user", "jasona")]).await.backend, "v1");
        assert_eq!(world.reviews(sidecar, &[]).await.backend, "v1");
    }

    let late =
        format!("fault: {{delay: {{fixedDelay: {}ms, percentage: {{value: 100}}}}}}", delay.as_millis());
    world.route(&[format!("{JASON}, {late}, route: [{}]", to("v1")), format!("route: [{}]", to("v1"))]).await;
    for sidecar in world.sidecars() {
        let started = Instant::now();
        let answer = world.reviews(sidecar, &jason).await;
        let took = started.elapsed();
        assert!(answer.status == 200 && took >= at_least, "{sidecar:?}: {answer:?} after {took:?}");
        assert_eq!(world.reviews(sidecar, &[]).await.status, 200);
    }

    let broken = "fault: {abort: {httpStatus: 555, percentage: {value: 100}}}";
    world
        .route(&[format!("{JASON}, {broken}, route: [{}]", to("v1")), format!("route: [{}]", to("v1"))])
        .await;
    for sidecar in world.sidecars() {
        let answer = world.reviews(sidecar, &jason).await;
        let expected =
            Answered { status: 555, backend: String::new(), body: "fault filter abort".to_owned() };
        assert_eq!(answer, expected, "{sidecar:?}");
        assert_eq!(world.reviews(sidecar, &[]).await.status, 200);
    }

    world.route(&[format!("timeout: 100ms, route: [{}]", to("v2"))]).await;
    for sidecar in world.sidecars() {
        assert_eq!(world.reviews(sidecar, &[]).await.backend, "v2");
        let answer = world.reviews(sidecar, &[("x-delay-ms", "5000")]).await;
        assert_eq!((answer.status, answer.body.as_str()), (504, "upstream request timeout"), "{sidecar:?}");
    }

    world.route(&[format!("route: [{}]", to("v9"))]).await;
    for sidecar in world.sidecars() {
        assert_eq!(world.reviews(sidecar, &[]).await.status, 503, "{sidecar:?}: a subset that there is not");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bookinfo_mirrors_traffic() {
    let world = World::start().await;
    let mirror = "mirror: {host: reviews, subset: v2}, mirrorPercentage: {value: 100}";
    world.route(&[format!("{mirror}, route: [{}]", to("v1"))]).await;
    for (number, sidecar) in world.sidecars().iter().enumerate() {
        let mark = number.to_string();
        assert_eq!(world.reviews(sidecar, &[("x-mark", &mark)]).await.backend, "v1");
        let copy = world.received("v2", ("x-mark", &mark)).await;
        let host = copy.headers.iter().find(|(name, _)| name == "host").map(|(_, value)| value.as_str());
        assert_eq!(host, Some("reviews:9080"), "{sidecar:?}: a copy goes by the name of the original");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bookinfo_leaves_the_mesh_by_a_service_entry() {
    let world = World::start().await;
    world.route(&[split(&[("v1", 1)])]).await;
    for sidecar in world.sidecars() {
        assert_eq!(world.call(sidecar, "books.example", &[]).await.backend, "external", "{sidecar:?}");
        let late = world.call(sidecar, "books.example", &[("x-delay-ms", "5000")]).await;
        assert_eq!(late.status, 504, "{sidecar:?}: a VirtualService bounds calls to the outside");
        let unknown = world.call(sidecar, "nowhere.example", &[]).await;
        assert_eq!(unknown.status, 502, "{sidecar:?}: REGISTRY_ONLY");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bookinfo_shifts_connections_by_weight() {
    let world = World::start().await;
    const CALLS: usize = 300;
    for sidecar in world.sidecars() {
        let mut two = 0;
        for _ in 0..CALLS {
            match world.tcp(sidecar).await.as_str() {
                "one" => {}
                "two" => two += 1,
                other => panic!("{sidecar:?}: {other:?}"),
            }
        }
        assert!(is_share(two, CALLS, 0.2), "{sidecar:?}: {two} of {CALLS}");
    }
}
