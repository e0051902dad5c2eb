//! The end of a mesh: gateways first, so that nothing new comes in, then programs, then their proxies, then the control
//! plane. Bounded; a second request to stop ends it at once.

use tokio::time::timeout;

use crate::limits::{SHUTDOWN, SHUTDOWN_STEP};
use crate::mark;
use crate::mesh::{Inbox, Mesh, Stop};
use crate::terminal::Happening;
use crate::unit::Unit;

impl Mesh {
    pub(super) async fn shut_down(mut self, why: String, mut inbox: Inbox, stop: &mut Stop) {
        self.terminal.tell(&Happening::Stopping { why });
        self.rollouts.clear();
        let ordered = timeout(SHUTDOWN, self.stop_in_order());
        tokio::select! {
            _ = ordered => {}
            () = inbox.drain() => {}
            _ = stop.requested() => {}
        }
        mark::kill_all(&format!("{}/", self.mesh));
        self.terminal.tell(&Happening::Stopped);
    }

    async fn stop_in_order(&mut self) {
        let (gateways, sidecars): (Vec<_>, Vec<_>) =
            self.instances.values_mut().partition(|instance| instance.is_gateway());
        let gateways = gateways.into_iter().filter_map(|instance| instance.take_proxy()).collect();
        let (programs, proxies): (Vec<_>, Vec<_>) =
            sidecars.into_iter().map(|instance| (instance.take_app(), instance.take_proxy())).unzip();
        let control = self.control.unit.take().into_iter().collect();
        for step in [
            gateways,
            programs.into_iter().flatten().collect(),
            proxies.into_iter().flatten().collect(),
            control,
        ] {
            stop_together(step).await;
        }
    }
}

async fn stop_together(units: Vec<Unit>) {
    let mut stopping = tokio::task::JoinSet::new();
    for unit in units {
        stopping.spawn(unit.stop(SHUTDOWN_STEP));
    }
    stopping.join_all().await;
}

impl Inbox {
    /// Takes in what nobody needs any more, so that no process waits with its news while it should end.
    async fn drain(&mut self) {
        loop {
            tokio::select! {
                Some(_) = self.notices.recv() => {}
                Some(_) = self.verdicts.recv() => {}
                Some(_) = self.departures.recv() => {}
                else => std::future::pending().await,
            }
        }
    }
}
