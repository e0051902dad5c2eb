//! What a case says: its backends and its calls.

use serde::Deserialize;

use crate::backend::BackendSpec;
use crate::client;
use crate::dns::Zone;
use crate::tls_client::TlsCall;

/// `calls.yaml`, or the same keys of `case.yaml`.
#[derive(Debug, Deserialize)]
pub struct Calls {
    /// The backends to start.
    pub backends: Vec<BackendSpec>,
    /// Arguments of both proxies besides those of every case, default `--drain-time-s 5`.
    #[serde(default = "default_arguments")]
    pub arguments: Vec<String>,
    /// Names that a name server of the case knows; `${dns}` is its port.
    #[serde(default)]
    pub dns: Zone,
    /// The calls, one after the other.
    pub calls: Vec<Call>,
}

fn default_arguments() -> Vec<String> {
    super::proxy::ARGUMENTS.map(str::to_owned).into()
}

/// One call. By default a `GET /` for `shop.example` over HTTP/1.1 on a connection of its own.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Call {
    /// What it shows.
    pub name: String,
    /// Listener to call, default `main`.
    pub listener: Option<String>,
    /// Listeners to call one after the other in place of `listener`, with one memory of TLS sessions.
    pub listeners: Vec<String>,
    /// Call the admin interface instead of a listener.
    pub admin: bool,
    /// Of the answer's body, only the lines that hold one of these texts, sorted.
    pub keep: Vec<String>,
    /// Ask again until a line of the body holds this text (10 s at most): for what takes its time to show.
    pub until: Option<String>,
    /// Ask again until the status is this (10 s at most).
    pub until_status: Option<u16>,
    /// Wait so long before the call.
    pub pause_ms: u64,
    /// Speak TLS.
    pub tls: Option<TlsCall>,
    /// Speak HTTP/2.
    pub http2: bool,
    /// Default GET.
    pub method: Option<String>,
    /// Default `/`.
    pub path: Option<String>,
    /// Default `shop.example`.
    pub host: Option<String>,
    /// Request headers.
    pub headers: Vec<(String, String)>,
    /// Request body.
    pub body: String,
    /// A body of so many bytes instead.
    pub body_size: usize,
    /// Request trailers.
    pub trailers: Vec<(String, String)>,
    /// Give up and reset after so many milliseconds; the answer is then status 0.
    pub cancel_after_ms: Option<u64>,
    /// Bytes to send as they are, instead of all the above.
    pub raw: Option<String>,
    /// Bytes to send, each piece after the peer said something or was quiet for 300 ms.
    pub raw_steps: Vec<String>,
    /// Keep what came back for raw bytes, not only its status codes.
    pub raw_text: bool,
    /// After the preface and empty SETTINGS, send these HTTP/2 bytes (hexadecimal, blanks are free).
    pub frames: Option<String>,
    /// Send the frames so often.
    pub frames_repeat: Option<usize>,
    /// How often, default once.
    pub repeat: Option<usize>,
    /// So many at the same time; the answers are sorted.
    pub parallel: Option<usize>,
    /// Only which answers occurred, by status and backend: the choice is random.
    pub count_only: bool,
    /// Wait until the backends have received so many requests (3 s at most): for what they know only once its connection
    /// has ended. Without this, so many as in the recording.
    pub received: usize,
    /// Whether backends hear of it is a matter of timing, and not compared. For the last call of a case: what comes late
    /// would be taken for the next one's.
    pub ignore_upstream: bool,
    /// Headers of the answer that are not compared.
    pub ignore_headers: Vec<String>,
    /// Where we differ from Envoy on purpose.
    pub differs: Option<Differs>,
}

impl Call {
    /// Whether bytes are written as they are.
    pub fn is_raw(&self) -> bool {
        self.raw.is_some() || !self.raw_steps.is_empty() || self.frames.is_some()
    }
}

/// A deliberate difference: why, and for raw bytes what our proxy answers instead. Without `instead` the call
/// is made but not compared.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Differs {
    /// The reason, for the reader.
    pub because: String,
    /// What our proxy does; the backends receive nothing.
    #[serde(default)]
    pub instead: Option<client::RawAnswer>,
}
