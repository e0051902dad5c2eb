//! The mesh as files: services with their endpoints, routes for some of them, and the three edits that are measured.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Endpoints of each service.
pub(crate) const ENDPOINTS: usize = 10;
/// Services of a namespace.
pub(crate) const SERVICES_PER_NAMESPACE: usize = 50;
/// Of so many services one has a VirtualService and a DestinationRule with two subsets.
const ONE_ROUTED_IN: usize = 10;

/// A folder with a mesh.
pub(crate) struct World {
    folder: PathBuf,
    services: usize,
}

impl World {
    /// Writes a mesh of so many services, a file each.
    pub(crate) fn write(folder: &Path, services: usize) -> anyhow::Result<World> {
        let world = World { folder: folder.to_owned(), services };
        for index in 0..services {
            world.save(index, &service(index, false, 5))?;
        }
        Ok(world)
    }

    /// One endpoint of a service moves; it is another service each time, so that nothing is put back.
    pub(crate) fn move_endpoint(&self, round: usize) -> anyhow::Result<()> {
        let index = (round * 7 + 1) % self.services;
        self.save(index, &service(index, true, 5))
    }

    /// A route of a service gets another timeout.
    pub(crate) fn change_route(&self, round: usize) -> anyhow::Result<()> {
        self.save(0, &service(0, false, 6 + round))
    }

    /// A service appears.
    pub(crate) fn add_service(&self, round: usize) -> anyhow::Result<()> {
        let index = self.services + round;
        self.save(index, &service(index, false, 5))
    }

    fn save(&self, index: usize, text: &str) -> anyhow::Result<()> {
        let (temporary, path) =
            (self.folder.join(".new"), self.folder.join(format!("service-{index:05}.yaml")));
        std::fs::write(&temporary, text).context("write a manifest")?;
        std::fs::rename(temporary, path).context("put a manifest in place")
    }
}

/// The namespace of a service or of a client.
pub(crate) fn namespace(index: usize) -> String {
    format!("team-{}", index / SERVICES_PER_NAMESPACE)
}

fn service(index: usize, has_moved: bool, timeout: usize) -> String {
    let (name, namespace) = (format!("service-{index}"), namespace(index));
    let mut text = format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
"
    );
    for number in 0..ENDPOINTS {
        let (high, low) = (index / 250, index % 250);
        let last = if has_moved && number == 0 { 100 } else { number + 1 };
        let version = number % 2 + 1;
        let _infallible = write!(
            text,
            "---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}-{number}, namespace: {namespace}}}
spec:
  address: 10.{high}.{low}.{last}
  labels: {{app: {name}, version: v{version}}}
  serviceAccount: {name}
  locality: region-1/zone-{version}
"
        );
    }
    if index.is_multiple_of(ONE_ROUTED_IN) {
        let _infallible = write!(
            text,
            "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  host: {name}
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  hosts: [{name}]
  http:
  - timeout: {timeout}s
    route:
    - {{destination: {{host: {name}, subset: v1}}, weight: 90}}
    - {{destination: {{host: {name}, subset: v2}}, weight: 10}}
"
        );
    }
    text
}
