//! Every metric, once: name, type, labels and help, and how they are written for Prometheus.
//!
//! Two kinds of numbers meet on a page. What the data plane counts lives in cells (scorecards and
//! [`Traffic`]) that the verdict reads too; a [`Page`] renders them at the moment they are asked for.
//! What happens rarely (rollouts that end, reloads) goes through the `metrics` facade and is appended
//! by [`Rare::render`]. Nothing here listens on a socket.
//!
//! Labels have few values by construction: services, revisions and instances that exist now, and
//! words from closed lists. Nothing that a visitor sends becomes a label.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use metrics::Label;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::traffic::{Count, Reason, Traffic};
use crate::analysis::histogram::{Histogram, lower_bound, upper_bound};
use crate::analysis::scorecard::{Row, Sample};
use crate::model::id::{RevisionId, ServiceName};
use crate::model::weight::Side;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the daemon.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// A metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name, with the unit and `_total` where Prometheus wants them.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it says, in one sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident $kind:ident $name:literal $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Metric =
                Metric { name: concat!("switchback_", $name), kind: Kind::$kind, help: $help };
        )*
        /// All metrics, in the order of the page.
        pub const ALL: &[&Metric] = &[$(&$constant),*];
    };
}

metrics! {
    REQUESTS Counter "requests_total" "Requests that ended, by service, revision, side and outcome.";
    DURATION Histogram "request_duration_seconds" "Time from the arrival of a request to the header of its response, abandoned requests left out.";
    IN_FLIGHT Gauge "requests_in_flight" "Requests that an instance is working on, by service, revision and side.";
    WEIGHT Gauge "rollout_weight_ratio" "The weight of a side, 0 to 1.";
    SHARE Gauge "delivered_share_ratio" "The share of requests that a side got over the last seconds, 0 to 1.";
    PHASE Gauge "rollout_phase" "1 for the phase that a service is in, 0 for the others.";
    STEP Gauge "rollout_step" "The step that a rollout is at, counted from 1; absent outside the steps.";
    CHECK Gauge "rollout_check" "1 for what a check of the verdict says now, 0 for the other answers.";
    ROLLOUTS Counter "rollouts_total" "Rollouts that ended, by service and result.";
    STALE Counter "rollout_stale_events_total" "Completions that came for an attempt that is over.";
    INSTANCE_UP Gauge "instance_up" "1 when an instance is healthy, by service, revision and instance.";
    ACCEPTED Counter "connections_accepted_total" "Connections accepted from visitors.";
    ACCEPT_FAILURES Counter "accept_failures_total" "Times that a connection could not be accepted, for want of files or memory.";
    OPEN Gauge "connections_open" "Connections from visitors that are open.";
    TLS_HANDSHAKES Counter "tls_handshakes_total" "TLS handshakes, by result.";
    TLS_RESUMED Counter "tls_resumed_total" "TLS handshakes that resumed an earlier session, by a ticket.";
    RECEIVED Counter "received_requests_total" "Requests received, of any kind.";
    UNROUTED Counter "unrouted_requests_total" "Requests that matched no route.";
    REFUSED Counter "refused_total" "Requests and connections refused as malformed or over a limit, by reason.";
    DENIED Counter "denied_requests_total" "Requests that a policy turned away: by address, method, header or for want of credentials.";
    LIMITED Counter "limited_requests_total" "Requests turned away by a rate limit or a limit on requests in flight.";
    AUTH_BUSY Counter "forward_auth_busy_total" "Requests answered 503 because as many as may be waited for the word of `forward_auth` already.";
    ANSWERED Counter "answered_requests_total" "Requests that a policy answered itself: redirects and fixed responses.";
    LOST_LINES Counter "access_log_lost_lines_total" "Lines of the access log that were dropped, because whoever takes them fell behind or the disk refused them.";
    CONNECTS Counter "upstream_connects_total" "Connections to instances, by result.";
    RETRIES Counter "retries_total" "Requests tried again on another endpoint.";
    RETRIES_REFUSED Counter "retries_refused_total" "Requests that were not tried again, because `retry_budget` was spent.";
    RESCUED Counter "rescued_requests_total" "Failures of a canary that no visitor saw, because stable answered instead.";
    ASSETS Counter "assets_found_total" "Assets that one revision did not have and the other one did.";
    SHIELDED Counter "shielded_requests_total" "Failures of a canary that the shield sent to stable, and those beyond its budget, by result.";
    MIRRORED Counter "mirrored_requests_total" "Copies of requests for a canary without visitors, by result: sent, left_out by a cap; and of those that were compared: compared, failed on the canary, different in their bodies.";
    SYNTHETIC Counter "synthetic_responses_total" "Answers that the proxy made itself: 502, 503, 504.";
    TUNNELS Counter "tunnels_total" "Tunnels opened, such as WebSockets.";
    PANICS Counter "panics_total" "Panics caught in a connection; each is a mistake of ours.";
    GENERATION Gauge "routing_generation" "The number of the routing table that carries a service.";
    RELOADED Gauge "config_last_reload_success" "1 when the last reload of the configuration succeeded.";
    RELOADED_AT Gauge "config_last_reload_success_timestamp_seconds" "When the configuration was last loaded.";
    RELOADS Counter "config_reloads_total" "Reloads of the configuration, by result.";
    FROZEN Gauge "frozen" "1 while no deploy of a service may begin.";
    GATED Gauge "gate_waiting" "1 while a rollout waits for somebody at a gate.";
    UNCONFIRMED Gauge "confirm_waiting" "1 while a promotion waits to be confirmed.";
    HOOKS Counter "hooks_total" "Hooks that ran around rollouts, by service, hook and result.";
    WEBHOOKS Counter "webhook_calls_total" "Programs elsewhere that were asked about a rollout, by service, type and result.";
    CHECKPOINTS Counter "checkpoints_total" "Checkpoints that were to be archived, by service and result.";
    NOTIFICATIONS Counter "notifications_total" "Messages to people and programs: sent, failed (a try) and lost, by recipient and result.";
    NOTIFY_WAITING Gauge "notifications_waiting" "Messages that a recipient has yet to take.";
    NOTIFY_UP Gauge "notify_up" "0 while a recipient takes no messages.";
    LINKS Counter "notify_links_total" "Links of messages that were used, by result.";
    AUDITED Counter "audit_entries_total" "Entries of the audit log, by result.";
    DISK_FREE Gauge "state_disk_free_bytes" "Bytes that are free where the state lies.";
    NOT_AFTER Gauge "tls_certificate_not_after_timestamp_seconds" "When a certificate expires, by its first name and by where it comes from: its file, acme or local.";
    CERTIFICATE_OK Gauge "tls_certificate_ok" "0 when a certificate could not be read, had or renewed, or is about to expire; else 1.";
    ORDERS Counter "acme_orders_total" "Certificates asked of the certificate authority, by result.";
    DOCKER_UP Gauge "docker_up" "1 when the Docker Engine answers.";
    STARTED Gauge "start_time_seconds" "When the daemon started.";
    BUILD Gauge "build_info" "Always 1; the version is a label.";
}

/// Upper bounds of the duration buckets: 2^9 to 2^26 µs, 0.5 ms to 67 s. Powers of two, because the
/// scorecard's buckets end there, so that counts are exact; see [`crate::analysis::histogram`].
const BOUNDS: std::ops::RangeInclusive<u32> = 9..=26;

type Labels<'a> = &'a [(&'a str, &'a str)];

/// One scrape, as it is put together. Samples may be added in any order; they are written by metric.
#[derive(Debug, Default)]
pub struct Page {
    families: BTreeMap<usize, String>,
}

impl Page {
    /// An empty page.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one sample. `value` is a number.
    pub fn add(&mut self, metric: &Metric, labels: &[(&str, &str)], value: impl Display) {
        self.line(metric, "", labels, value);
    }

    /// Adds 1 for the current one of some words and 0 for the others, under the label `label`.
    pub fn state(
        &mut self,
        metric: &Metric,
        labels: &[(&str, &str)],
        label: &str,
        words: &[&str],
        current: &str,
    ) {
        for word in words {
            let labels: Vec<_> = labels.iter().copied().chain([(label, *word)]).collect();
            self.add(metric, &labels, u8::from(*word == current));
        }
    }

    /// Adds what one revision did since the daemon started: requests by outcome, and durations.
    /// `sample` must be the sum over all epochs, so that counters never fall.
    pub fn revision(
        &mut self,
        service: &ServiceName,
        revision: RevisionId,
        side: Side,
        sample: &Sample,
    ) {
        let revision = revision.to_string();
        let labels =
            [("service", service.as_str()), ("revision", &revision), ("side", side.as_str())];
        // That a client met an error before matters to the analysis only.
        for row in Row::ALL.into_iter().filter(|row| *row != Row::Repeated) {
            let [service, revision, side] = labels;
            let labels = [service, revision, side, ("outcome", row.as_str())];
            let repeated = if row == Row::Failure { sample.count(Row::Repeated) } else { 0 };
            self.add(&REQUESTS, &labels, sample.count(row) + repeated);
        }
        let mut durations = Histogram::default();
        for row in Row::ALL.into_iter().filter(|row| *row != Row::Abandoned) {
            durations.merge(sample.row(row));
        }
        self.histogram(&DURATION, &labels, &durations);
    }

    /// Adds a histogram of microseconds as seconds. The sum is that of the buckets' middles, within
    /// 1.6 % of the truth.
    pub fn histogram(&mut self, metric: &Metric, labels: &[(&str, &str)], histogram: &Histogram) {
        let mut buckets = histogram.counts().iter().enumerate().peekable();
        let mut seen = 0;
        for power in BOUNDS {
            let bound = 1_u64 << power;
            while let Some((_, count)) = buckets.next_if(|(at, _)| upper_bound(*at) <= bound) {
                seen += count;
            }
            let le = (bound as f64 / 1e6).to_string();
            let labels: Vec<_> = labels.iter().copied().chain([("le", le.as_str())]).collect();
            self.line(metric, "_bucket", &labels, seen);
        }
        let total = histogram.total();
        let labels_inf: Vec<_> = labels.iter().copied().chain([("le", "+Inf")]).collect();
        self.line(metric, "_bucket", &labels_inf, total);
        let middle = |at: usize| (lower_bound(at) + upper_bound(at) - 1) as f64 / 2.0;
        let counts = histogram.counts().iter().enumerate();
        let sum: f64 = counts.map(|(at, count)| middle(at) * *count as f64).sum();
        self.line(metric, "_sum", labels, sum / 1e6);
        self.line(metric, "_count", labels, total);
    }

    /// Adds the counters of the data plane that belong to no revision.
    pub fn traffic(&mut self, traffic: &Traffic) {
        let ok = [("result", "ok")];
        let failed = [("result", "failed")];
        let counters: [(&Metric, Labels<'_>, Count); 20] = [
            (&ACCEPTED, &[], Count::Accepted),
            (&ACCEPT_FAILURES, &[], Count::AcceptFailures),
            (&TLS_HANDSHAKES, &ok, Count::TlsHandshakes),
            (&TLS_HANDSHAKES, &failed, Count::TlsFailures),
            (&TLS_RESUMED, &[], Count::TlsResumed),
            (&RECEIVED, &[], Count::Requests),
            (&UNROUTED, &[], Count::Unrouted),
            (&DENIED, &[], Count::Denied),
            (&LIMITED, &[], Count::Limited),
            (&AUTH_BUSY, &[], Count::AuthBusy),
            (&ANSWERED, &[], Count::Answered),
            (&CONNECTS, &ok, Count::UpstreamConnects),
            (&CONNECTS, &failed, Count::UpstreamConnectFailures),
            (&RETRIES, &[], Count::Retries),
            (&RETRIES_REFUSED, &[], Count::RetriesRefused),
            (&RESCUED, &[], Count::Rescued),
            (&ASSETS, &[], Count::AssetsFound),
            (&SYNTHETIC, &[], Count::Synthetic),
            (&TUNNELS, &[], Count::Tunnels),
            (&PANICS, &[], Count::Panics),
        ];
        // Closed is read first: a connection that opens in between must not make the gauge wrap.
        let closed = traffic.total(Count::Closed);
        self.add(&OPEN, &[], traffic.total(Count::Accepted).saturating_sub(closed));
        self.add(&LOST_LINES, &[], traffic.lost_lines());
        for (metric, labels, count) in counters {
            self.add(metric, labels, traffic.total(count));
        }
        for reason in Reason::ALL {
            self.add(&REFUSED, &[("reason", reason.label())], traffic.refused(reason));
        }
    }

    /// Adds the version.
    pub fn build(&mut self) {
        self.add(&BUILD, &[("version", env!("CARGO_PKG_VERSION"))], 1);
    }

    /// The page in the text format 0.0.4, to be served as
    /// `text/plain; version=0.0.4; charset=utf-8`.
    #[must_use]
    pub fn render(self) -> String {
        let mut text = String::new();
        for (at, lines) in self.families {
            let Some(metric) = ALL.get(at) else { continue };
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {} {}", metric.name, metric.help);
            let _ = writeln!(text, "# TYPE {} {kind}", metric.name);
            text.push_str(&lines);
        }
        text
    }

    fn line(
        &mut self,
        metric: &Metric,
        suffix: &str,
        labels: &[(&str, &str)],
        value: impl Display,
    ) {
        let at = ALL.iter().position(|known| known.name == metric.name).unwrap_or(ALL.len());
        let family = self.families.entry(at).or_default();
        family.push_str(metric.name);
        family.push_str(suffix);
        for (n, (name, value)) in labels.iter().enumerate() {
            let before = if n == 0 { '{' } else { ',' };
            let _ = write!(family, "{before}{name}=\"{}\"", escape(value));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(family, "{close} {value}");
    }
}

/// Escapes the value of a label.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// What is counted through the facade.
const RARE: [&Metric; 9] = [
    &ROLLOUTS,
    &RELOADS,
    &STALE,
    &HOOKS,
    &WEBHOOKS,
    &CHECKPOINTS,
    &NOTIFICATIONS,
    &LINKS,
    &AUDITED,
];

/// The counters of rare events, behind the `metrics` facade.
#[derive(Clone)]
pub struct Rare {
    handle: PrometheusHandle,
}

impl std::fmt::Debug for Rare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rare")
    }
}

impl Rare {
    /// Makes them the process's recorder. `None` when there is one already.
    #[must_use]
    pub fn install() -> Option<Self> {
        let recorder = PrometheusBuilder::new().build_recorder();
        let rare = Self { handle: recorder.handle() };
        metrics::set_global_recorder(recorder).ok()?;
        for metric in RARE {
            metrics::describe_counter!(metric.name, metric.help);
        }
        Some(rare)
    }

    /// What was counted, to stand after a [`Page`].
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Frees what is no longer needed; to be called every few seconds.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// Counts a rare event.
pub fn count(metric: &'static Metric, labels: &[(&'static str, &str)]) {
    count_more(metric, labels, 1);
}

/// Counts so many of them.
pub fn count_more(metric: &'static Metric, labels: &[(&'static str, &str)], more: u64) {
    let labels: Vec<Label> =
        labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    metrics::counter!(metric.name, labels).increment(more);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn full_page() -> String {
        let web = ServiceName::new("web").expect("a name");
        let mut sample = Sample::default();
        for micros in [300, 511, 512, 1_000, 70_000_000] {
            sample.row_mut(Row::Success).record(micros);
        }
        sample.row_mut(Row::Fault).record(2_000_000);
        sample.row_mut(Row::Abandoned).record(5);
        let mut page = Page::new();
        page.build();
        page.revision(&web, RevisionId(3), Side::Stable, &sample);
        page.add(&WEIGHT, &[("service", "web"), ("side", "canary")], 0.05);
        page.state(&PHASE, &[("service", "web")], "phase", &["idle", "baking"], "baking");
        page.add(&INSTANCE_UP, &[("instance", "a\"b\\c\nd")], 1);
        page.traffic(&Traffic::new(2));
        page.revision(&web, RevisionId(4), Side::Canary, &Sample::default());
        page.render()
    }

    #[test]
    fn names_are_unique_and_named_as_prometheus_wants() {
        let names: HashSet<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{metric:?}");
            assert!(metric.help.ends_with('.') && !metric.help.contains(['\\', '\n']));
        }
    }

    #[test]
    fn samples_stand_below_their_metric() {
        let page = full_page();
        for line in [
            "# TYPE switchback_requests_total counter",
            r#"switchback_requests_total{service="web",revision="3",side="stable",outcome="success"} 5"#,
            r#"switchback_requests_total{service="web",revision="4",side="canary",outcome="success"} 0"#,
            r#"switchback_request_duration_seconds_bucket{service="web",revision="3",side="stable",le="0.000512"} 2"#,
            r#"switchback_request_duration_seconds_bucket{service="web",revision="3",side="stable",le="0.001024"} 4"#,
            r#"switchback_request_duration_seconds_bucket{service="web",revision="3",side="stable",le="67.108864"} 5"#,
            r#"switchback_request_duration_seconds_bucket{service="web",revision="3",side="stable",le="+Inf"} 6"#,
            r#"switchback_request_duration_seconds_count{service="web",revision="3",side="stable"} 6"#,
            r#"switchback_rollout_weight_ratio{service="web",side="canary"} 0.05"#,
            r#"switchback_rollout_phase{service="web",phase="baking"} 1"#,
            r#"switchback_rollout_phase{service="web",phase="idle"} 0"#,
            r#"switchback_instance_up{instance="a\"b\\c\nd"} 1"#,
            "switchback_connections_open 0",
            r#"switchback_upstream_connects_total{result="failed"} 0"#,
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
        // Every family in one piece.
        let mut families: Vec<&str> = Vec::new();
        for line in page.lines().filter(|line| line.starts_with("# TYPE")) {
            let name = line.split(' ').nth(2).expect("a name");
            assert!(!families.contains(&name), "{name} twice");
            families.push(name);
        }
    }

    #[test]
    fn rare_events_are_counted() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let rare = Rare { handle: recorder.handle() };
        metrics::with_local_recorder(&recorder, || {
            count(&ROLLOUTS, &[("service", "web"), ("result", "promoted")]);
            count(&ROLLOUTS, &[("service", "web"), ("result", "promoted")]);
        });
        let text = rare.render();
        let line = r#"switchback_rollouts_total{service="web",result="promoted"} 2"#;
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn promtool_finds_nothing_wrong() {
        use std::io::Write as _;
        use std::process::{Command, Stdio};

        let tool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut tool) = tool else {
            assert!(std::env::var_os("CI").is_none(), "promtool is missing: install prometheus");
            eprintln!(
                "promtool is not on PATH (Debian package prometheus): the page was not checked by it"
            );
            return;
        };
        let mut input = tool.stdin.take().expect("a pipe");
        input.write_all(full_page().as_bytes()).expect("promtool reads");
        drop(input);
        let output = tool.wait_with_output().expect("promtool ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}");
    }
}
