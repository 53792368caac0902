//! A driver that answers from a script, so that the API and the command line are tested over real
//! sockets without a data plane. Tests only.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Admin, Settings};
use crate::analysis::scorecard::{Row, Sample};
use crate::analysis::verdict::{Check, Finding, Verdict, WorstRoute};
use crate::controller::handle::{Ask, Handle, Measured, Output, Refused, ServiceCounts};
use crate::controller::status::{
    DaemonStatus, DeployAccepted, DeployRequest, EventRecord, FitStatus, InstanceLogs,
    InstanceStatus, MaintenanceStatus, RolloutRecord, ServiceStatus, SideStatus, StepForecast,
    TrafficStatus, WarmStatus, Weights,
};
use crate::model::id::{RevisionId, ServiceName};
use crate::model::weight::Side;
use crate::rollout::command::Command;
use crate::rollout::strategy::Strategy;
use crate::telemetry::audit::Audit;
use crate::telemetry::traffic::{Count, Traffic};

/// The fake's levers.
#[derive(Clone)]
pub(crate) struct Levers {
    services: Arc<watch::Sender<Arc<Vec<ServiceStatus>>>>,
    daemon: Arc<watch::Sender<Arc<DaemonStatus>>>,
    events: broadcast::Sender<EventRecord>,
    recent: Arc<Mutex<VecDeque<EventRecord>>>,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    pub(crate) records: Arc<Mutex<Vec<RolloutRecord>>>,
    pub(crate) refuse: Arc<Mutex<Option<Refused>>>,
}

/// A daemon that is only a face.
pub(crate) struct Fake {
    pub(crate) levers: Levers,
    pub(crate) admin: Admin,
    pub(crate) socket: PathBuf,
    pub(crate) shutdown: CancellationToken,
    _directory: tempfile::TempDir,
}

impl Fake {
    /// Serves on a fresh socket and on a free port of loopback.
    pub(crate) async fn start() -> Self {
        Self::with_token(None).await
    }

    pub(crate) async fn with_token(token: Option<&str>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("admin.sock");
        let settings = Settings {
            socket: Some(socket.clone()),
            listen: vec![([127, 0, 0, 1], 0).into()],
            token: token.map(str::to_owned),
            rare: None,
            archivist: None,
            notifier: None,
            audit: Some(Audit::new(directory.path().join("audit"), Duration::from_secs(86_400))),
        };
        let (levers, handle) = driver();
        let traffic = Arc::new(Traffic::new(1));
        traffic.add(0, Count::Accepted);
        let shutdown = CancellationToken::new();
        let admin =
            super::serve(handle, settings, traffic, shutdown.clone(), super::Held::default()).await;
        let admin = admin.expect("the admin API");
        Self { levers, admin, socket, shutdown, _directory: directory }
    }

    /// Stops serving; the levers stay.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.admin.closed().await;
    }
}

/// A driver and its levers, without an API.
pub(crate) fn driver() -> (Levers, Handle) {
    let (asks, inbox) = mpsc::channel(8);
    let (services, services_seen) = watch::channel(Arc::new(vec![baking(), idle()]));
    let (daemon, daemon_seen) = watch::channel(Arc::new(DaemonStatus {
        version: "0.1.0".to_owned(),
        started: "2026-11-21T09:00:00Z".to_owned(),
        listen: vec!["0.0.0.0:80".to_owned()],
        docker: Some(true),
        notes: Vec::new(),
        configured: String::new(),
        reload_refused: false,
        stopping: false,
        certificates: Vec::new(),
        notify: Vec::new(),
        disk_free: None,
    }));
    let (events, _) = broadcast::channel(16);
    let recent = Arc::new(Mutex::new(VecDeque::new()));
    let handle = Handle::new(asks, services_seen, daemon_seen, events.clone(), recent.clone());
    let levers = Levers {
        services: Arc::new(services),
        daemon: Arc::new(daemon),
        events,
        recent,
        asked: Arc::default(),
        records: Arc::new(Mutex::new(vec![record(12, None)])),
        refuse: Arc::default(),
    };
    tokio::spawn(levers.clone().answer(inbox));
    (levers, handle)
}

impl Levers {
    pub(crate) fn set(&self, change: impl FnOnce(&mut Vec<ServiceStatus>)) {
        self.services.send_modify(|services| change(Arc::make_mut(services)));
    }

    pub(crate) fn set_daemon(&self, change: impl FnOnce(&mut DaemonStatus)) {
        self.daemon.send_modify(|daemon| change(Arc::make_mut(daemon)));
    }

    /// Something happens in rollout 12 of `web`.
    pub(crate) fn happen(&self, kind: &str, phase: Option<(&str, f64)>, message: &str) {
        let mut recent = self.recent.lock().expect("unpoisoned");
        let id = recent.back().map_or(1, |event| event.id + 1);
        let event = EventRecord {
            id,
            at: format!("2026-11-21T10:00:{:02}.000Z", id % 60),
            service: Some("web".to_owned()),
            rollout: Some(12),
            kind: kind.to_owned(),
            phase: phase.map(|(phase, _)| phase.to_owned()),
            weight: phase.map(|(_, weight)| weight),
            message: message.to_owned(),
        };
        recent.push_back(event.clone());
        let _ = self.events.send(event);
    }

    /// Forgets events up to an id, as a driver does whose memory is full.
    pub(crate) fn forget(&self, id: u64) {
        self.recent.lock().expect("unpoisoned").retain(|event| event.id > id);
    }

    /// The rollout ends: the record is closed, then the event goes out.
    pub(crate) fn end(&self, phase: &str, outcome: &str, cause: Option<&str>, message: &str) {
        {
            let mut records = self.records.lock().expect("unpoisoned");
            let record = records.iter_mut().find(|record| record.rollout == 12).expect("12");
            record.phase = phase.to_owned();
            record.outcome = Some(outcome.to_owned());
            record.cause = cause.map(str::to_owned);
            record.ended = Some("2026-11-21T10:01:41Z".to_owned());
        }
        self.happen("phase", Some((phase, 0.0)), message);
    }

    async fn answer(self, mut inbox: mpsc::Receiver<Ask>) {
        while let Some(ask) = inbox.recv().await {
            let refused = self.refuse.lock().expect("unpoisoned").clone();
            let accept = || {
                refused.clone().map_or(
                    Ok(DeployAccepted {
                        rollout: 12,
                        revision: 4,
                        same_image_as: None,
                        strategy: Strategy::Canary,
                    }),
                    Err,
                )
            };
            match ask {
                Ask::Deploy(name, request, told, answer) => {
                    // Who asks depends on who runs the tests.
                    let request = DeployRequest { by: None, ..*request };
                    let request = serde_json::to_string(&request).expect("JSON");
                    self.note(format!("deploy {name} {request}"));
                    if request.contains("pulled") {
                        told.count("pulling web:pulled", 5, Some(10));
                    }
                    let _ = answer.send(accept());
                }
                Ask::DeployTogether(requests, answer) => {
                    let names: Vec<&str> = requests.keys().map(ServiceName::as_str).collect();
                    self.note(format!("deploy {} together", names.join(" and ")));
                    let all = requests.keys().map(|name| accept().map(|one| (name.clone(), one)));
                    let _ = answer.send(all.collect());
                }
                Ask::Say(name, said, answer) => {
                    self.note(format!("{said:?} {name}"));
                    let status = self.services.borrow().first().cloned();
                    let none = || Refused::NotFound(format!("there is no service {name}"));
                    let _ = answer.send(refused.map_or_else(|| status.ok_or_else(none), Err));
                }
                Ask::Rollback(name, to, answer) => {
                    self.note(format!("rollback {name} {:?}", to.revision));
                    let _ = answer.send(accept());
                }
                Ask::RollbackTogether(back, answer) => {
                    let names: Vec<&str> = back.services.iter().map(ServiceName::as_str).collect();
                    self.note(format!("rollback {} together", names.join(" and ")));
                    let all = back.services.iter();
                    let all = all.map(|name| accept().map(|one| (name.clone(), one)));
                    let _ = answer.send(all.collect());
                }
                Ask::Command(name, command, _, answer) => {
                    self.note(format!("{command:?} {name}"));
                    let _ = answer.send(refused.map_or_else(|| Ok(self.obey(command)), Err));
                }
                Ask::History(name, answer) => {
                    let mut records = self.records.lock().expect("unpoisoned").clone();
                    records.retain(|record| record.service == name.as_str());
                    let _ = answer.send(Ok(records));
                }
                Ask::Rollout(id, answer) => {
                    let records = self.records.lock().expect("unpoisoned");
                    let found = records.iter().find(|record| record.rollout == id.0).cloned();
                    let mut found =
                        found.ok_or_else(|| Refused::NotFound(format!("there is no rollout {id}")));
                    if let Ok(record) = &mut found {
                        record.events =
                            self.recent.lock().expect("unpoisoned").iter().cloned().collect();
                    }
                    let _ = answer.send(found);
                }
                Ask::Fit(_, _, answer) => {
                    let (fits, sentence) = (true, None);
                    let strategy = "canary".to_owned();
                    let _ = answer.send(Ok(FitStatus { fits, strategy, sentence }));
                }
                Ask::Measure(_, answer) => {
                    let instance = crate::model::id::InstanceId::new("web-3-1");
                    let (cpu, memory) = (Some(0.125), 85_000_000);
                    let _ = answer.send(vec![Measured { instance, cpu, memory }]);
                }
                Ask::Logs(_, Output { revision, lines, .. }, answer) => {
                    let revision = revision.map_or(3, |revision| revision.0);
                    let all = ["listening on :3000", "GET / 200", "\u{1b}[31mred\u{1b}[0m"];
                    let lines = all[all.len().saturating_sub(lines)..].iter();
                    let lines = lines.map(ToString::to_string).collect();
                    let instance = format!("web-{revision}-1");
                    let logs = InstanceLogs { instance, revision, lines, times: Vec::new() };
                    let _ = answer.send(Ok(vec![logs]));
                }
                Ask::Maintain(name, request, answer) => {
                    self.note(format!("maintain {name} {:?} {:?}", request.on, request.queue));
                    let mut status = baking();
                    status.maintenance = request
                        .on
                        .filter(|on| *on)
                        .map(|_| MaintenanceStatus { queue_seconds: 30.0 });
                    let _ = answer.send(refused.map_or(Ok(status), Err));
                }
                Ask::Forecast(_, request, answer) => {
                    let weights =
                        if request.steps.is_some() { vec![10.0] } else { vec![5.0, 25.0, 50.0] };
                    let step = |weight| StepForecast {
                        weight,
                        requests: Some(890),
                        seconds: Some(178.2),
                        catches_error_rate: Some(0.012),
                        catches_slower: Some(1.34),
                    };
                    let last = StepForecast {
                        weight: 100.0,
                        requests: None,
                        seconds: None,
                        catches_error_rate: None,
                        catches_slower: None,
                    };
                    let steps = weights.into_iter().map(step).chain([last]).collect();
                    let _ = answer.send(Ok(steps));
                }
                Ask::Scorecards(answer) => {
                    let _ = answer.send(counts());
                }
                Ask::Launch(.., answer) => {
                    let _ = answer.send(accept());
                }
                Ask::Held(_, answer) => {
                    let _ = answer.send(Ok(Vec::new()));
                }
                Ask::Export(answer) => {
                    let _ = answer.send(Default::default());
                }
                Ask::Tell(name, sentence) => self.note(format!("tell {name} {sentence}")),
                Ask::Reload(answer) => {
                    let done = || Ok("configuration read again: web changed".to_owned());
                    let _ = answer.send(refused.map_or_else(done, Err));
                }
            }
        }
    }

    fn note(&self, asked: String) {
        self.asked.lock().expect("unpoisoned").push(asked);
    }

    fn obey(&self, command: Command) -> ServiceStatus {
        let mut service = baking();
        match command {
            Command::Promote { full: true } => "promoting".clone_into(&mut service.phase),
            Command::Promote { full: false } => service.step = Some(3),
            Command::Abort => "rolling_back".clone_into(&mut service.phase),
            Command::Pause => "paused".clone_into(&mut service.phase),
            Command::Resume => {}
            Command::Weight(weight) => {
                "paused".clone_into(&mut service.phase);
                service.weights =
                    Weights { stable: weight.complement().percent(), canary: weight.percent() };
            }
        }
        service
    }
}

fn counts() -> Vec<ServiceCounts> {
    let mut sample = Sample::default();
    for micros in [900, 18_000, 61_000] {
        sample.row_mut(Row::Success).record(micros);
    }
    sample.row_mut(Row::Fault).record(5_000);
    let total = Arc::new(sample);
    let service = ServiceName::new("web").expect("a name");
    let count = |revision, side| ServiceCounts {
        service: service.clone(),
        revision: RevisionId(revision),
        side,
        total: total.clone(),
    };
    vec![count(3, Side::Stable), count(4, Side::Canary)]
}

fn side(revision: u32, share: f64, healthy: bool) -> SideStatus {
    let instance = InstanceStatus {
        id: format!("web-{revision}-1"),
        address: "172.17.0.2:3000".to_owned(),
        healthy,
        in_flight: 4,
        restarts: 0,
        cpu: None,
        memory: None,
        diagnosis: (!healthy).then(|| "GET /up answered 500".to_owned()),
    };
    let traffic = TrafficStatus {
        share,
        requests_per_second: 549.0 * share / 100.0,
        requests: 18_210,
        errors: 5,
        error_rate: 0.000_3,
        p50: Some(0.018),
        p95: Some(0.061),
        p99: Some(0.104),
    };
    SideStatus {
        revision,
        image: format!("ghcr.io/acme/web:v{revision}"),
        digest: None,
        origin: None,
        instances: vec![instance],
        traffic: Some(traffic),
    }
}

/// `web`, at the second of four steps.
pub(crate) fn baking() -> ServiceStatus {
    let check = |name: &str, result, canary, stable, limit, sentence: &str| Check {
        name: name.to_owned(),
        result,
        canary: Some(canary),
        stable: Some(stable),
        limit: Some(limit),
        interval: None,
        requests: 18_210,
        sentence: sentence.to_owned(),
    };
    let verdict = Verdict {
        result: Finding::Inconclusive,
        checks: vec![
            check(
                "errors",
                Finding::Pass,
                0.000_3,
                0.000_2,
                0.01,
                "errors 0.03 % of 18210, at most 1 %",
            ),
            check(
                "p95",
                Finding::Inconclusive,
                0.066,
                0.061,
                0.0915,
                "p95 66 ms, stable 61 ms, at most 92 ms",
            ),
        ],
        sentence: "p95 needs about 400 more requests".to_owned(),
        needs_requests: Some(400),
        needs_seconds: Some(16.0),
        worst_routes: vec![WorstRoute { route: "/checkout".to_owned(), canary: 4, stable: 1 }],
        hold: None,
        failing: false,
    };
    ServiceStatus {
        service: "web".to_owned(),
        group: None,
        phase: "baking".to_owned(),
        step: Some(2),
        strategy: "canary".to_owned(),
        steps: vec![5.0, 25.0, 50.0, 100.0],
        weights: Weights { stable: 75.0, canary: 25.0 },
        stable: Some(side(3, 74.8, true)),
        canary: Some(side(4, 25.2, true)),
        mirror: None,
        shield: None,
        warm: None,
        verdict: Some(verdict),
        rollout: Some(12),
        since: "2026-11-20T10:00:00Z".to_owned(),
        seconds_left: Some(130.4),
        notes: Vec::new(),
        maintenance: None,
        freeze: None,
        confirm: None,
        webhooks: Vec::new(),
        gated: false,
        routes: vec!["app.example.com".to_owned()].into(),
        answers_alone: false,
        generation: 7,
    }
}

/// `api`, on which nothing happens.
pub(crate) fn idle() -> ServiceStatus {
    let mut stable = side(9, 100.0, true);
    "ghcr.io/acme/api:9".clone_into(&mut stable.image);
    let warm =
        WarmStatus { revision: 8, image: "ghcr.io/acme/api:8".to_owned(), seconds_left: 420.0 };
    ServiceStatus {
        service: "api".to_owned(),
        group: None,
        phase: "idle".to_owned(),
        step: None,
        weights: Weights { stable: 100.0, canary: 0.0 },
        stable: Some(stable),
        canary: None,
        warm: Some(warm),
        verdict: None,
        rollout: Some(11),
        seconds_left: None,
        routes: vec!["api.example.com".to_owned()].into(),
        ..baking()
    }
}

/// Rollout 12 of `web`, under way or ended in some way.
pub(crate) fn record(rollout: u64, outcome: Option<&str>) -> RolloutRecord {
    RolloutRecord {
        by: None,
        rollout,
        service: "web".to_owned(),
        from: Some(3),
        to: 4,
        image: "ghcr.io/acme/web:v4".to_owned(),
        digest: None,
        origin: None,
        kind: "canary".to_owned(),
        phase: "baking".to_owned(),
        outcome: outcome.map(str::to_owned),
        cause: None,
        started: "2026-11-21T10:00:00Z".to_owned(),
        ended: None,
        verdict: baking().verdict,
        events: Vec::new(),
    }
}
