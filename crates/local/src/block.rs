//! The loopback block of one mesh: 127.x.y.0/24, so that several meshes run at once and every replica has an
//! address of its own. Leaves out who gets which address (`plan`).
//!
//! A block is claimed by a listening socket on its control-plane address: the kernel grants it to one process
//! only, across users, and takes it back however that process dies. A lock file could promise neither.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

use meltemi_agent::{
    ADMIN_PORT, CONTROL_ADMIN_PORT, HTTP_PROXY_PORT, PROMETHEUS_PORT, READINESS_PORT, XDS_PORT,
};

use crate::limits::MAX_BLOCK_ATTEMPTS;

/// The port whose listener is the claim. Nothing is served on it.
const CLAIM_PORT: u16 = 15019;
/// Ports that must be free in a block; a process on `0.0.0.0` occupies them in every block.
const NEEDED_PORTS: [u16; 6] =
    [XDS_PORT, CONTROL_ADMIN_PORT, ADMIN_PORT, HTTP_PROXY_PORT, READINESS_PORT, PROMETHEUS_PORT];
/// Blocks start here: clear of 127.0.0.1, of 127.0.0.53 (systemd-resolved) and of what people pick by hand.
const FIRST_SECOND_OCTET: u8 = 64;
const SECOND_OCTETS: u16 = 64;
const THIRD_OCTETS: u16 = 254;
const BLOCKS: u16 = SECOND_OCTETS * THIRD_OCTETS;

/// A claimed block. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Block {
    second: u8,
    third: u8,
    _claim: TcpListener,
}

impl Block {
    /// Claims a free block, starting the search at one chosen by `preference`, so that the same directory tends
    /// to get the same addresses.
    pub(crate) fn claim(preference: u64) -> io::Result<Block> {
        let start = (preference % u64::from(BLOCKS)) as u16;
        let mut last = io::Error::from(ErrorKind::AddrInUse);
        for attempt in 0..MAX_BLOCK_ATTEMPTS {
            match try_claim((start + attempt) % BLOCKS) {
                Ok(block) => return Ok(block),
                Err(error) if error.kind() == ErrorKind::AddrInUse => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(
            last.kind(),
            format!("no free block 127.x.y.0/24 in {MAX_BLOCK_ATTEMPTS}: {last}"),
        ))
    }

    /// Where the control plane lives.
    pub(crate) fn control_plane(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// The address with this host number.
    pub(crate) fn address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.second, self.third, host)
    }

    /// The first number for `$PORT`s: apart from those of the neighbouring blocks, for programs that listen on
    /// every address whatever `$HOST` says. Below the ephemeral ports (32768 and up).
    pub(crate) fn first_port(&self) -> u16 {
        20_000 + u16::from(self.third) * 40
    }
}

fn try_claim(index: u16) -> io::Result<Block> {
    let second = FIRST_SECOND_OCTET + (index / THIRD_OCTETS) as u8;
    let third = 1 + (index % THIRD_OCTETS) as u8;
    let address = Ipv4Addr::new(127, second, third, 1);
    let claim = bind(address, CLAIM_PORT)?;
    for port in NEEDED_PORTS {
        bind(address, port)?;
    }
    Ok(Block { second, third, _claim: claim })
}

fn bind(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(SocketAddrV4::new(address, port))
        .map_err(|error| io::Error::new(error.kind(), format!("{address}:{port}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_claims_never_share_and_a_dropped_one_returns() {
        let first = Block::claim(4_000).unwrap();
        let second = Block::claim(4_000).unwrap();
        assert_ne!((first.second, first.third), (second.second, second.third));
        let wanted = first.control_plane();
        drop(first);
        assert_eq!(Block::claim(4_000).unwrap().control_plane(), wanted);
    }

    #[test]
    fn a_block_whose_ports_are_taken_is_passed_over() {
        let taken = try_claim(5_000).map(|block| block.control_plane()).unwrap();
        let _squatter = bind(taken, XDS_PORT).unwrap();
        assert_ne!(Block::claim(5_000).unwrap().control_plane(), taken);
    }

    #[test]
    fn every_block_is_inside_loopback_and_off_the_usual_addresses() {
        for index in [0, 1, BLOCKS / 2, BLOCKS - 1] {
            let second = FIRST_SECOND_OCTET + (index / THIRD_OCTETS) as u8;
            assert!((64..128).contains(&second));
        }
        let ports = 20_000 + 254 * 40 + 40;
        assert!(ports < 32_768, "clear of the ephemeral ports");
    }
}
