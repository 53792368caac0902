//! One line of the access log.
//!
//! What a client sent is never trusted to be text: in JSON it is escaped as JSON demands, in the
//! combined format as nginx and Apache do, so that no request can forge a line.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One object per line.
    #[default]
    Json,
    /// Apache's and nginx's combined format.
    Combined,
}

/// Fields that are not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hidden(u8);

impl Hidden {
    /// The names of fields that can be hidden.
    pub const NAMES: [&str; 6] = ["client", "host", "query", "referer", "user", "user_agent"];
    const CLIENT: u8 = 1;
    const HOST: u8 = 1 << 1;
    const QUERY: u8 = 1 << 2;
    const REFERER: u8 = 1 << 3;
    const USER: u8 = 1 << 4;
    const USER_AGENT: u8 = 1 << 5;

    /// Hides a field as well; `None` when there is none of this name.
    #[must_use]
    pub fn with(self, name: &str) -> Option<Self> {
        let at = Self::NAMES.iter().position(|known| *known == name)?;
        Some(Self(self.0 | 1 << at))
    }

    fn has(self, field: u8) -> bool {
        self.0 & field != 0
    }
}

/// What is written about one request.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// When it came, in milliseconds since the Unix epoch.
    pub at: i64,
    /// Who asked.
    pub client: IpAddr,
    /// Who that has shown to be.
    pub user: Option<&'a str>,
    /// The method.
    pub method: &'a str,
    /// `https` or `http`.
    pub scheme: &'a str,
    /// The host that was asked for.
    pub host: &'a [u8],
    /// The path.
    pub path: &'a str,
    /// The query, without its question mark.
    pub query: Option<&'a str>,
    /// `HTTP/1.1`
    pub protocol: &'a str,
    /// The response's status.
    pub status: u16,
    /// Bytes of the response's body that were sent.
    pub bytes: u64,
    /// From the request's arrival to the response's last byte.
    pub duration: Duration,
    /// From the request's arrival to the response's header.
    pub header: Duration,
    /// Whether the response was sent to its end.
    pub is_complete: bool,
    /// Which service it was for.
    pub service: Option<&'a str>,
    /// Which revision and instance answered, and whether that was the canary; `None` when the proxy
    /// answered itself.
    pub served: Option<Served<'a>>,
    /// The request's id.
    pub request_id: &'a [u8],
    /// `Referer`
    pub referer: Option<&'a [u8]>,
    /// `User-Agent`
    pub user_agent: Option<&'a [u8]>,
}

/// Who answered.
#[derive(Debug, Clone, Copy)]
pub struct Served<'a> {
    /// The revision.
    pub revision: u32,
    /// `stable` or `canary`.
    pub side: &'a str,
    /// The instance.
    pub instance: &'a str,
}

/// Times as text, made once per second.
#[derive(Debug, Default)]
pub struct Clock {
    second: i64,
    text: String,
}

impl Clock {
    fn second(&mut self, at: i64, format: Format) -> &str {
        let second = at.div_euclid(1_000);
        if self.text.is_empty() || self.second != second {
            self.second = second;
            let time = jiff::Timestamp::from_second(second).unwrap_or_default();
            let format = match format {
                Format::Json => "%Y-%m-%dT%H:%M:%S",
                Format::Combined => "%d/%b/%Y:%H:%M:%S +0000",
            };
            self.text = time.strftime(format).to_string();
        }
        &self.text
    }
}

/// Writes a line, with its end.
pub fn write(
    out: &mut Vec<u8>,
    record: &Record<'_>,
    format: Format,
    hidden: Hidden,
    clock: &mut Clock,
) {
    match format {
        Format::Json => json(out, record, hidden, clock),
        Format::Combined => combined(out, record, hidden, clock),
    }
}

fn json(out: &mut Vec<u8>, record: &Record<'_>, hidden: Hidden, clock: &mut Clock) {
    put(out, "{\"time\":\"");
    put(out, clock.second(record.at, Format::Json));
    out.push(b'.');
    thousandths(out, record.at.rem_euclid(1_000) as u64);
    put(out, "Z\"");
    if !hidden.has(Hidden::CLIENT) {
        put(out, ",\"client\":\"");
        address(out, record.client);
        out.push(b'"');
    }
    if let Some(user) = record.user.filter(|_| !hidden.has(Hidden::USER)) {
        text(out, ",\"user\":", user.as_bytes());
    }
    text(out, ",\"method\":", record.method.as_bytes());
    put(out, ",\"scheme\":\"");
    put(out, record.scheme);
    out.push(b'"');
    if !hidden.has(Hidden::HOST) {
        text(out, ",\"host\":", record.host);
    }
    text(out, ",\"path\":", record.path.as_bytes());
    if let Some(query) = record.query.filter(|_| !hidden.has(Hidden::QUERY)) {
        text(out, ",\"query\":", query.as_bytes());
    }
    put(out, ",\"protocol\":\"");
    put(out, record.protocol);
    put(out, "\",\"status\":");
    number(out, record.status.into());
    put(out, ",\"bytes\":");
    number(out, record.bytes);
    put(out, ",\"duration_ms\":");
    milliseconds(out, record.duration);
    put(out, ",\"header_ms\":");
    milliseconds(out, record.header);
    if !record.is_complete {
        put(out, ",\"aborted\":true");
    }
    if let Some(service) = record.service {
        put(out, ",\"service\":\"");
        put(out, service);
        out.push(b'"');
    }
    if let Some(Served { revision, side, instance }) = record.served {
        put(out, ",\"revision\":");
        number(out, revision.into());
        put(out, ",\"side\":\"");
        put(out, side);
        out.push(b'"');
        text(out, ",\"instance\":", instance.as_bytes());
    }
    text(out, ",\"request_id\":", record.request_id);
    if let Some(referer) = record.referer.filter(|_| !hidden.has(Hidden::REFERER)) {
        text(out, ",\"referer\":", referer);
    }
    if let Some(agent) = record.user_agent.filter(|_| !hidden.has(Hidden::USER_AGENT)) {
        text(out, ",\"user_agent\":", agent);
    }
    put(out, "}\n");
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn number(out: &mut Vec<u8>, number: u64) {
    put(out, itoa::Buffer::new().format(number));
}

/// Three digits.
fn thousandths(out: &mut Vec<u8>, number: u64) {
    let digit = |place: u64| b'0' + (number / place % 10) as u8;
    out.extend_from_slice(&[digit(100), digit(10), digit(1)]);
}

/// With the microseconds behind the point.
fn milliseconds(out: &mut Vec<u8>, time: Duration) {
    let micros = time.as_secs() * 1_000_000 + u64::from((time.subsec_nanos() + 500) / 1_000);
    number(out, micros / 1_000);
    out.push(b'.');
    thousandths(out, micros % 1_000);
}

fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            for (at, part) in address.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                number(out, part.into());
            }
        }
        // Writing to memory cannot fail.
        IpAddr::V6(address) => {
            let _ = write!(out, "{address}");
        }
    }
}

/// A field of text; its name comes with what stands around it.
fn text(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    put(out, name);
    // All of them are looked at, which is faster than to stop at the first.
    let is_special = |byte: u8| !(b' '..=b'~').contains(&byte) | (byte == b'"') | (byte == b'\\');
    if value.iter().fold(false, |found, byte| found | is_special(*byte)) {
        // Into memory, of a string: it cannot fail.
        let _ = serde_json::to_writer(&mut *out, &String::from_utf8_lossy(value));
        return;
    }
    out.push(b'"');
    out.extend_from_slice(value);
    out.push(b'"');
}

fn combined(out: &mut Vec<u8>, record: &Record<'_>, hidden: Hidden, clock: &mut Clock) {
    match hidden.has(Hidden::CLIENT) {
        true => out.push(b'-'),
        false => address(out, record.client),
    }
    out.extend_from_slice(b" - ");
    match record.user.filter(|_| !hidden.has(Hidden::USER)) {
        Some(user) => escaped(out, user.as_bytes()),
        None => out.push(b'-'),
    }
    put(out, " [");
    put(out, clock.second(record.at, Format::Combined));
    put(out, "] \"");
    escaped(out, record.method.as_bytes());
    out.push(b' ');
    escaped(out, record.path.as_bytes());
    if let Some(query) = record.query.filter(|_| !hidden.has(Hidden::QUERY)) {
        out.push(b'?');
        escaped(out, query.as_bytes());
    }
    out.push(b' ');
    put(out, record.protocol);
    put(out, "\" ");
    number(out, record.status.into());
    out.push(b' ');
    number(out, record.bytes);
    put(out, " \"");
    escaped(out, record.referer.filter(|_| !hidden.has(Hidden::REFERER)).unwrap_or(b"-"));
    out.extend_from_slice(b"\" \"");
    escaped(out, record.user_agent.filter(|_| !hidden.has(Hidden::USER_AGENT)).unwrap_or(b"-"));
    out.extend_from_slice(b"\"\n");
}

/// As nginx writes what a client sent: quotes, backslashes and what is not visible as `\xHH`.
fn escaped(out: &mut Vec<u8>, value: &[u8]) {
    for byte in value {
        match byte {
            b'"' | b'\\' | 0..=31 | 127..=255 => {
                // Writing to memory cannot fail.
                let _ = write!(out, "\\x{byte:02X}");
            }
            byte => out.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record<'static> {
        Record {
            at: 1_763_719_200_042,
            client: [203, 0, 113, 7].into(),
            user: None,
            method: "GET",
            scheme: "https",
            host: b"app.example",
            path: "/x",
            query: Some("token=1"),
            protocol: "HTTP/2",
            status: 200,
            bytes: 12,
            duration: Duration::from_micros(1_500),
            header: Duration::from_micros(1_250),
            is_complete: true,
            service: Some("web"),
            served: Some(Served { revision: 4, side: "canary", instance: "web-4-1" }),
            request_id: b"id",
            referer: None,
            user_agent: Some(b"curl/8"),
        }
    }

    fn line(record: &Record<'_>, format: Format, hidden: Hidden) -> String {
        let mut out = Vec::new();
        write(&mut out, record, format, hidden, &mut Clock::default());
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_line_of_json_says_who_served() {
        let expected = "{\"time\":\"2025-11-21T10:00:00.042Z\",\"client\":\"203.0.113.7\",\
            \"method\":\"GET\",\"scheme\":\"https\",\"host\":\"app.example\",\"path\":\"/x\",\
            \"query\":\"token=1\",\"protocol\":\"HTTP/2\",\"status\":200,\"bytes\":12,\
            \"duration_ms\":1.500,\"header_ms\":1.250,\"service\":\"web\",\"revision\":4,\
            \"side\":\"canary\",\"instance\":\"web-4-1\",\"request_id\":\"id\",\
            \"user_agent\":\"curl/8\"}\n";
        assert_eq!(line(&record(), Format::Json, Hidden::default()), expected);
    }

    #[test]
    fn figures_are_written_as_they_are() {
        for (nanos, expected) in [
            (0, "0.000"),
            (499, "0.000"),
            (500, "0.001"),
            (999_499, "0.999"),
            (999_500, "1.000"),
            (61_002_003_000, "61002.003"),
        ] {
            let mut out = Vec::new();
            milliseconds(&mut out, Duration::from_nanos(nanos));
            assert_eq!(out, expected.as_bytes());
        }
        for client in ["203.0.113.7", "0.0.0.0", "255.255.255.255", "2001:db8::1"] {
            let mut out = Vec::new();
            address(&mut out, client.parse().expect("an address"));
            assert_eq!(out, client.as_bytes());
        }
        let mut out = Vec::new();
        address(&mut out, "::ffff:10.1.2.3".parse().expect("an address"));
        assert_eq!(out, b"10.1.2.3");
    }

    #[test]
    fn a_combined_line_is_what_tools_read() {
        let expected = "203.0.113.7 - - [21/Nov/2025:10:00:00 +0000] \"GET /x?token=1 HTTP/2\" \
            200 12 \"-\" \"curl/8\"\n";
        assert_eq!(line(&record(), Format::Combined, Hidden::default()), expected);
    }

    #[test]
    fn what_is_hidden_is_nowhere() {
        let hidden =
            Hidden::NAMES.iter().try_fold(Hidden::default(), |hidden, name| hidden.with(name));
        let hidden = hidden.expect("known names");
        let secret = Record { user: Some("ann"), referer: Some(b"http://r"), ..record() };
        for format in [Format::Json, Format::Combined] {
            let line = line(&secret, format, hidden);
            for part in ["203.0.113", "token", "ann", "http://r", "curl", "app.example"] {
                assert!(!line.contains(part), "{part}: {line}");
            }
            assert!(line.contains("/x"));
        }
        assert_eq!(Hidden::default().with("path"), None);
    }

    #[test]
    fn no_request_forges_a_line() {
        let evil = b"a\"\\\n\xff\x1b{\"status\":200}";
        let record = Record {
            user_agent: Some(evil),
            referer: Some(evil),
            host: evil,
            user: Some("a\nb"),
            is_complete: false,
            ..record()
        };
        for format in [Format::Json, Format::Combined] {
            let line = line(&record, format, Hidden::default());
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert!(!line.contains('\u{1b}'));
        }
        let json: serde_json::Value =
            serde_json::from_str(&line(&record, Format::Json, Hidden::default())).expect("JSON");
        assert_eq!(json["user_agent"], String::from_utf8_lossy(evil).as_ref());
        assert_eq!(json["aborted"], true);
    }

    #[test]
    fn the_clock_goes_on() {
        let mut clock = Clock::default();
        assert_eq!(clock.second(999, Format::Json), "1970-01-01T00:00:00");
        assert_eq!(clock.second(1_000, Format::Json), "1970-01-01T00:00:01");
        assert_eq!(clock.second(1_999, Format::Json), "1970-01-01T00:00:01");
    }
}
