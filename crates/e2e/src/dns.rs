//! A name server for tests: UDP, A and AAAA records, answers that change from question to question.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use tokio::net::UdpSocket;

/// What is said of a name: one answer after the other, the last one for ever.
pub type Zone = BTreeMap<String, Vec<DnsAnswer>>;

/// An answer: `nxdomain`, `servfail`, or addresses.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum DnsAnswer {
    /// A response code instead of addresses.
    Code(DnsCode),
    /// The addresses of both families; each question gets those of its own.
    Addresses(Vec<IpAddr>),
}

/// A response code.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DnsCode {
    /// Something is wrong with the server.
    Servfail = 2,
    /// There is no such name.
    Nxdomain = 3,
}

/// A running name server; it stops when dropped.
#[derive(Debug)]
pub struct DnsServer {
    /// Where it listens.
    pub address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl DnsServer {
    /// Serves a zone on a free loopback port.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn start(zone: Zone) -> anyhow::Result<DnsServer> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        let address = socket.local_addr()?;
        let asked = Arc::new(Mutex::new(HashMap::new()));
        let task = tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                let Some(answer) = answer(&buffer[..length], &zone, &asked) else { continue };
                let _sent = socket.send_to(&answer, peer).await;
            }
        });
        Ok(DnsServer { address, task })
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const HEADER: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const TTL_S: u32 = 60;

/// The answer to a question (RFC 1035); none to what is no question.
fn answer(query: &[u8], zone: &Zone, asked: &Mutex<HashMap<(String, u16), usize>>) -> Option<Vec<u8>> {
    let (name, end) = question(query)?;
    let kind = u16::from_be_bytes(query.get(end..end + 2)?.try_into().ok()?);
    let question = query.get(HEADER..end + 4)?;
    let nxdomain = DnsAnswer::Code(DnsCode::Nxdomain);
    let answers = zone.get(&name).map_or(std::slice::from_ref(&nxdomain), Vec::as_slice);
    let mut asked = asked.lock().expect("nobody panics");
    let count = asked.entry((name, kind)).or_default();
    let said = answers.get(*count).or(answers.last())?;
    *count += 1;
    let (code, addresses) = match said {
        DnsAnswer::Code(code) => (*code as u8, Vec::new()),
        DnsAnswer::Addresses(addresses) => (0, addresses.iter().filter(|ip| of_kind(ip, kind)).collect()),
    };
    let mut out = query[..2].to_vec();
    out.extend([0x81, 0x80 | code, 0, 1]);
    out.extend(u16::try_from(addresses.len()).ok()?.to_be_bytes());
    out.extend([0, 0, 0, 0]);
    out.extend(question);
    for address in addresses {
        out.extend([0xc0, HEADER as u8]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        out.extend(TTL_S.to_be_bytes());
        match address {
            IpAddr::V4(ip) => out.extend([&[0, 4], &ip.octets()[..]].concat()),
            IpAddr::V6(ip) => out.extend([&[0, 16], &ip.octets()[..]].concat()),
        }
    }
    Some(out)
}

fn of_kind(ip: &IpAddr, kind: u16) -> bool {
    kind == if ip.is_ipv4() { TYPE_A } else { TYPE_AAAA }
}

/// The name asked for, and where it ends.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        let label = query.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
}
