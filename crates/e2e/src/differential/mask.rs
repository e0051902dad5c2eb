//! What differs from run to run: ports, dates, identifiers.

use crate::backend::Received;

/// Replaces what differs from run to run.
pub(super) struct Mask {
    pub(super) ports: Vec<(String, u16)>,
    own_address: String,
    /// Of certificates.
    pub(super) texts: Vec<(String, String)>,
}

impl Mask {
    pub(super) fn new(ports: Vec<(String, u16)>) -> Mask {
        Mask { ports, own_address: own_address(), texts: Vec::new() }
    }

    pub(super) fn received(&self, mut received: Received) -> Received {
        for (name, value) in &mut received.headers {
            *value = self.header(name, value).1;
        }
        received.body = self.text(&received.body);
        received
    }

    pub(super) fn header(&self, name: &str, value: &str) -> (String, String) {
        let masked = match name {
            "date" => "<date>".to_owned(),
            "x-request-id" if value.len() == 36 => "<uuid>".to_owned(),
            "x-envoy-upstream-service-time" => "<ms>".to_owned(),
            "x-envoy-expected-rq-timeout-ms" => rounded_up(value),
            "set-cookie" => without_digest(value),
            "x-forwarded-port" => self.text(&format!(":{value}")),
            _ => self.text(value),
        };
        (name.to_owned(), masked)
    }

    /// A line of raw text; a header line is masked as that header is.
    pub(super) fn line(&self, line: &str) -> String {
        match line.split_once(": ") {
            Some((name, value)) if !name.contains(' ') => {
                let end = &value[value.trim_end().len()..];
                let masked = self.header(&name.to_ascii_lowercase(), value.trim_end()).1;
                format!("{name}: {masked}{end}")
            }
            _ => self.text(line),
        }
    }

    pub(super) fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (found, name) in &self.texts {
            text = text.replace(found, name);
        }
        for (name, port) in &self.ports {
            text = text.replace(&format!(":{port}"), &format!(":<{name}>"));
        }
        without_times(&text.replace(&self.own_address, "<own address>"))
    }
}

/// A cookie of a hash policy holds the digest of the client's address and port.
fn without_digest(cookie: &str) -> String {
    let is_digest = |text: &&str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match cookie.split('"').nth(1).filter(is_digest) {
        Some(digest) => cookie.replace(digest, "<digest>"),
        None => cookie.to_owned(),
    }
}

/// A retry announces what is left of the timeout: whole seconds are the same in every run.
fn rounded_up(milliseconds: &str) -> String {
    match milliseconds.parse::<u64>() {
        Ok(ms) if ms > 1000 => (ms.div_ceil(1000) * 1000).to_string(),
        _ => milliseconds.to_owned(),
    }
}

/// The address of this machine that Envoy puts into x-forwarded-for instead of a loopback one. Connecting a
/// datagram socket sends nothing; it only asks the kernel which address it would use.
fn own_address() -> String {
    let route = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    route.map_or_else(|_| "127.0.0.1".to_owned(), |address| address.ip().to_string())
}

/// Events of health checks and ejections hold the time of day.
fn without_times(text: &str) -> String {
    const KEY: &str = "\"timestamp\":\"";
    let mut parts = text.split(KEY);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(KEY);
        out.push_str("<time>");
        out.push_str(part.find('"').map_or("", |end| &part[end..]));
    }
    out
}
