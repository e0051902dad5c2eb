//! What goes over the loopback interface in the clear, by a packet socket: whoever sits between two sidecars sees this.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use crate::peers;
use crate::process::{DEADLINE, Process, until};

/// A reader of all TCP segments of one mesh that tells where it has seen which words.
#[derive(Debug)]
pub struct Sniffer {
    process: Process,
    _temp: TempDir,
}

impl Sniffer {
    /// Watches for words that come from or go to places, all of one /24. `None` after saying SKIPPED, where this user may
    /// not open packet sockets.
    ///
    /// # Panics
    /// In CI, when it may not; or when Python is missing.
    pub async fn start(words: &[&str], places: &[SocketAddr]) -> Option<Sniffer> {
        let temp = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("python3");
        command.arg(peers::repository().join("crates/e2e/tests/peers/sniffer.py")).args(words).arg("--");
        command.args(places.iter().map(ToString::to_string));
        let mut process =
            Process::spawn(&mut command, &temp.path().join("sniffer.log")).expect("python3 starts");
        let starts = until("the sniffer starts", DEADLINE, async || {
            let is_ready = process.output().contains("sniffing");
            (is_ready || process.has_ended()).then_some(is_ready)
        });
        if starts.await.expect("it starts or ends") {
            return Some(Sniffer { process, _temp: temp });
        }
        let output = process.output();
        assert!(output.contains("PermissionError"), "{output}");
        peers::missing("packets can be read by root only, or with CAP_NET_RAW");
        None
    }

    /// Whether a word has been seen at a place by now.
    ///
    /// # Panics
    /// If the kernel had more than could be read.
    pub fn has_seen(&self, word: &str, place: SocketAddr) -> bool {
        let output = self.process.output();
        assert!(!output.contains("dropped"), "{output}");
        output.lines().any(|line| line == format!("seen {word} {place}"))
    }

    /// Waits until a word has been seen at one of the places.
    ///
    /// # Panics
    /// If it is not.
    pub async fn sees(&self, word: &str, places: &[SocketAddr]) {
        let seen = until("the word is seen", DEADLINE, async || {
            places.iter().any(|place| self.has_seen(word, *place)).then_some(())
        });
        seen.await.unwrap_or_else(|e| panic!("{e}: {word} at {places:?}: {}", self.process.output()));
    }
}
