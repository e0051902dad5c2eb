//! What the parts of a worker share: its configuration of the moment, statistics, logs.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use meltemi_compile::program::Reporter;

use crate::access_log::{LogSink, WorkerLogs};
use crate::admission::Admission;
use crate::generation::Generation;
use crate::istio_stats::{IstioReporter, NodeFacts};
use crate::lifecycle::Lifecycle;
use crate::peer::Peers;
use crate::stats::WorkerStats;
use crate::tls::Contexts;
use crate::upstream::shared::HostStates;

/// What a worker is made with.
#[derive(Debug)]
pub struct WorkerContext {
    /// 0-based; also in the thread's name, as in Envoy (`wrk:worker_0`).
    pub id: usize,
    /// Host and breaker state that all workers share; one per process.
    pub hosts: Arc<HostStates>,
    /// The worker's part of the registry (`registry.worker(id)`).
    pub stats: WorkerStats,
    /// Where access log lines go.
    pub logs: LogSink,
    /// The own node, for Istio's metrics.
    pub node: Arc<NodeFacts>,
    /// Where the process is in its life.
    pub lifecycle: Arc<Lifecycle>,
    /// How many connections the process may have, if that is limited; one per process.
    pub admission: Option<Arc<Admission>>,
    /// TLS contexts and their secrets; one per process.
    pub tls: Arc<Contexts>,
}

/// What the parts of a worker share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: usize,
    pub(crate) stats: WorkerStats,
    pub(crate) logs: WorkerLogs,
    /// Open downstream connections, for whoever waits for their end.
    pub(crate) connections: Arc<AtomicUsize>,
    /// What stands in `x-forwarded-for` for clients on this machine.
    pub(crate) own_address: IpAddr,
    pub(crate) node: Arc<NodeFacts>,
    /// Who the other ends of calls said they are.
    pub(crate) peers: Peers,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) states: Arc<HostStates>,
    pub(crate) admission: Option<Arc<Admission>>,
    pub(crate) tls: Arc<Contexts>,
    generation: RefCell<Rc<Generation>>,
    reporters: RefCell<[Option<Rc<IstioReporter>>; 2]>,
}

impl Shared {
    pub(crate) fn new(context: WorkerContext, connections: Arc<AtomicUsize>) -> Shared {
        Shared {
            id: context.id,
            stats: context.stats,
            logs: WorkerLogs::new(context.logs),
            connections,
            own_address: own_address(),
            node: context.node,
            peers: Peers::default(),
            lifecycle: context.lifecycle,
            states: context.hosts,
            admission: context.admission,
            tls: context.tls,
            generation: RefCell::default(),
            reporters: RefCell::default(),
        }
    }

    /// What is served now.
    pub(crate) fn generation(&self) -> Rc<Generation> {
        self.generation.borrow().clone()
    }

    /// Requests that come from now on see this.
    pub(crate) fn serve(&self, generation: Rc<Generation>) {
        self.generation.replace(generation);
    }

    /// `node.cluster` of the bootstrap.
    pub(crate) fn service_cluster(&self) -> &str {
        self.node.service_cluster()
    }

    /// The reporter of Istio's metrics for one side of calls.
    pub(crate) fn istio(&self, reporter: Reporter) -> Rc<IstioReporter> {
        let slot = match reporter {
            Reporter::Source => 0,
            Reporter::Destination => 1,
        };
        let make = || Rc::new(IstioReporter::new(self.stats.clone(), self.node.clone(), reporter));
        self.reporters.borrow_mut()[slot].get_or_insert_with(make).clone()
    }
}

/// The address of this machine towards others; loopback when it has none. Connecting a datagram socket only asks the
/// routing table (192.0.2.0/24 is for documentation, RFC 5737); nothing is sent.
fn own_address() -> IpAddr {
    let ask = || -> io::Result<IpAddr> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    ask().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
