//! Whether the machine has room for what a strategy runs at a time, looked at before anything starts.
//!
//! An instance needs its memory limit, if it has one, and else what the largest of stable's uses now.
//! What is not known refuses nothing.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::driver::Driver;
use super::handle::Refused;
use super::status::{DeployRequest, FitStatus};
use crate::model::id::ServiceName;
use crate::model::instance::Instance;
use crate::model::revision::{RevisionSpec, Source};
use crate::rollout::plan::{Fit, Plan};
use crate::rollout::strategy::Strategy;
use crate::runtime::Runtime;
use crate::runtime::room::{Room, Usage};

/// What the first minutes of a container take besides what stable's wrote: its layer, its output, the
/// engine's own records. An engine begins to fail when there is less.
const DISK_LEAST: u64 = 64 << 20;

/// What serves while a deploy is prepared.
pub(super) struct Serving {
    pub runtime: Arc<dyn Runtime>,
    pub instances: Vec<Instance>,
}

/// What is compared.
#[derive(Debug, Clone, Copy)]
struct Compared {
    /// What an instance of the new revision needs.
    each: Usage,
    /// Its memory is what its limit allows.
    is_limit: bool,
    /// Whether memory is known at all.
    knows_memory: bool,
    /// What stable uses, all of it together.
    stable: Usage,
    /// What is left.
    room: Room,
}

/// Looks whether a revision fits by its plan. Chooses another strategy where the plan says so, and
/// says that; the error says what is missing.
pub(super) async fn look(
    runtime: &Arc<dyn Runtime>,
    spec: &RevisionSpec,
    plan: &mut Plan,
    serving: Option<Serving>,
    may_wait: bool,
) -> Result<Option<String>, String> {
    if plan.fit == Fit::Off || matches!(spec.source, Source::Endpoints(_)) {
        return Ok(None);
    }
    let room = runtime.room().await;
    if room == Room::default() {
        return Ok(None);
    }
    let mut used = Vec::new();
    if let Some(serving) = &serving {
        for instance in &serving.instances {
            used.extend(serving.runtime.usage(&instance.id).await);
        }
    }
    let compared = compare(spec, &used, room);
    let beside = serving.is_some();
    let strategy = if beside { plan.strategy } else { Strategy::BlueGreen };
    let Some(short) = compared.shortage(strategy, plan, spec.instances(), beside) else {
        return Ok(None);
    };
    let others = [Strategy::Rolling, Strategy::Recreate].into_iter().filter(|other| {
        let may = match other {
            Strategy::Rolling => spec.instances() > 1,
            _ => may_wait,
        };
        let mut plan = plan.clone();
        plan.strategy = *other;
        beside
            && may
            && *other != strategy
            && compared.shortage(*other, &plan, spec.instances(), beside).is_none()
    });
    let fits = others.min_by_key(|other| *other == Strategy::Recreate);
    match (fits, plan.fit) {
        (Some(other), Fit::Auto) => {
            let note = format!("{short}: {other} instead of {strategy}, which fits");
            plan.strategy = other;
            Ok(Some(note))
        }
        (Some(other), _) => Err(format!(
            "{short}; {other} would fit: deploy it with --strategy {other}, or write fit = \"auto\""
        )),
        (None, _) => Err(format!(
            "{short}; no strategy fits: free some, or write fit = \"off\" if you know better"
        )),
    }
}

impl Driver {
    /// Asks whether what is configured would fit, without doing anything.
    pub(super) fn fits(
        &self,
        name: &ServiceName,
        request: &DeployRequest,
        answer: oneshot::Sender<Result<FitStatus, Refused>>,
    ) {
        let asked = self.known(name).and_then(|service| {
            let spec = super::settings::spec_of(&service.config, request)?;
            let plan = super::settings::plan_of(&service.config, request)?;
            Ok((service, spec, plan))
        });
        let (service, mut spec, mut plan) = match asked {
            Ok(asked) => asked,
            Err(refused) => {
                let _ = answer.send(Err(refused));
                return;
            }
        };
        if let Some(stable) = service.stable_spec() {
            super::settings::inherit(&mut spec, stable);
        }
        let (runtime, serving) = (self.runtimes.of(&spec.source), self.serving(name));
        let may_wait = service.config.listen.is_empty();
        let images = self.images.clone();
        self.tasks.spawn(async move {
            let looked = look(&runtime, &spec, &mut plan, serving, may_wait).await;
            let (fits, sentence) = match looked {
                Ok(note) => (true, note),
                Err(short) => (false, Some(short)),
            };
            let sentence = match (images, &spec.source) {
                (Some(images), Source::Image(image)) if sentence.is_none() => {
                    let size = images.image_size(image).await;
                    let is_missing = matches!(size, Ok(None));
                    is_missing.then(|| {
                        format!(
                            "{image} is not here yet: pulling it takes room that is not counted"
                        )
                    })
                }
                _ => sentence,
            };
            let strategy = plan.strategy.to_string();
            let _ = answer.send(Ok(FitStatus { fits, strategy, sentence }));
        });
    }
}

fn compare(spec: &RevisionSpec, used: &[Usage], room: Room) -> Compared {
    let largest = |of: fn(&Usage) -> u64| used.iter().map(of).max().unwrap_or(0);
    let all = |of: fn(&Usage) -> u64| used.iter().map(of).sum();
    let limit = spec.container.memory;
    let is_container = matches!(spec.source, Source::Image(_));
    let is_limit = limit > 0 && is_container;
    let disk_least = if is_container { DISK_LEAST } else { 0 };
    Compared {
        each: Usage {
            memory: if is_limit { limit } else { largest(|usage| usage.memory) },
            disk: largest(|usage| usage.disk).max(disk_least),
            files: largest(|usage| usage.files),
        },
        is_limit,
        knows_memory: is_limit || !used.is_empty(),
        stable: Usage {
            memory: all(|usage| usage.memory),
            disk: all(|usage| usage.disk),
            files: all(|usage| usage.files),
        },
        room,
    }
}

impl Compared {
    /// What is missing, in a sentence; nothing where it fits.
    fn shortage(
        &self,
        strategy: Strategy,
        plan: &Plan,
        instances: u32,
        beside: bool,
    ) -> Option<String> {
        let carried_out = Plan { strategy, ..plan.clone() }.carried_out(instances);
        let at_a_time = match strategy {
            Strategy::Rolling => carried_out.instances_at(0),
            _ => instances + u32::from(carried_out.fresh_baseline && beside),
        };
        // What stable's instances give back before the first one starts.
        let back = if strategy == Strategy::Recreate { self.stable } else { Usage::default() };
        let needs = |of: fn(&Usage) -> u64| of(&self.each).saturating_mul(u64::from(at_a_time));
        let noun = if at_a_time == 1 { "instance" } else { "instances" };
        let beside = match (beside, strategy) {
            (true, Strategy::Recreate) => " in place of what serves",
            (true, _) => " beside what serves",
            (false, _) => "",
        };
        let memory = needs(|usage| usage.memory);
        if let Some(left) = self.room.memory.filter(|_| self.knows_memory)
            && memory > left.saturating_add(back.memory)
        {
            let each = show_size(self.each.memory);
            let why = if self.is_limit {
                format!("{each} each, which is their limit")
            } else {
                format!("{each} each, as stable's do now")
            };
            let total = self
                .room
                .memory_total
                .map_or(String::new(), |total| format!(" of {}", show_size(total)));
            return Some(format!(
                "there is no room for {at_a_time} {noun}{beside}: they need {} of memory ({why}), and \
                 {}{total} can be had",
                show_size(memory),
                show_size(left.saturating_add(back.memory)),
            ));
        }
        let disk = needs(|usage| usage.disk);
        if let Some(left) = self.room.disk
            && disk > left.saturating_add(back.disk)
        {
            return Some(format!(
                "there is no room for {at_a_time} {noun}{beside}: they need {} on disk, and {} are free",
                show_size(disk),
                show_size(left)
            ));
        }
        let files = needs(|usage| usage.files);
        if let Some(left) = self.room.files
            && files > left.saturating_add(back.files)
        {
            return Some(format!(
                "there is no room for {at_a_time} {noun}{beside}: they open {files} files, and {left} \
                 more may be opened (sysctl fs.file-max)"
            ));
        }
        None
    }
}

/// As people say it: `512MiB`, `1.5GiB`.
fn show_size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes < 1024 * MIB {
        return format!("{}MiB", bytes.div_ceil(MIB));
    }
    let text = format!("{:.1}", bytes as f64 / (1024 * MIB) as f64);
    format!("{}GiB", text.trim_end_matches(".0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn compared(limit: u64, uses: u64, left: u64) -> Compared {
        Compared {
            each: Usage { memory: if limit > 0 { limit } else { uses }, disk: MIB, files: 10 },
            is_limit: limit > 0,
            knows_memory: true,
            stable: Usage { memory: uses * 3, disk: 0, files: 30 },
            room: Room {
                memory: Some(left),
                memory_total: Some(1024 * MIB),
                disk: Some(1024 * MIB),
                files: Some(1_000),
            },
        }
    }

    #[test]
    fn each_strategy_needs_its_own_room() {
        let plan = Plan::default();
        let fits = |compared: Compared| {
            [Strategy::Canary, Strategy::BlueGreen, Strategy::Rolling, Strategy::Recreate]
                .map(|strategy| compared.shortage(strategy, &plan, 3, true).is_none())
        };
        // Three instances of 200 MiB that use 200 MiB.
        assert_eq!(fits(compared(0, 200 * MIB, 600 * MIB)), [true, true, true, true]);
        assert_eq!(fits(compared(0, 200 * MIB, 599 * MIB)), [false, false, true, true]);
        assert_eq!(fits(compared(0, 200 * MIB, 199 * MIB)), [false, false, false, true]);
        // What they may use is more than what they do.
        assert_eq!(fits(compared(500 * MIB, 100 * MIB, 600 * MIB)), [false, false, true, false]);
        assert_eq!(fits(compared(2_000 * MIB, 100 * MIB, 900 * MIB)), [false; 4]);
        // Disk and files.
        let mut disk = compared(0, 0, 600 * MIB);
        disk.room.disk = Some(2 * MIB);
        assert_eq!(fits(disk), [false, false, true, false]);
        let mut files = compared(0, 0, 600 * MIB);
        files.room.files = Some(5);
        assert_eq!(fits(files), [false, false, false, true]);
    }

    #[test]
    fn what_is_not_known_refuses_nothing() {
        let nothing = Compared { room: Room::default(), ..compared(9 << 40, 0, 0) };
        assert_eq!(nothing.shortage(Strategy::Canary, &Plan::default(), 3, true), None);
        let unmeasured = Compared { knows_memory: false, ..compared(0, 9 << 40, 0) };
        assert_eq!(unmeasured.shortage(Strategy::Canary, &Plan::default(), 1, true), None);
    }

    #[test]
    fn the_figures_are_said() {
        let short = compared(512 * MIB, 100 * MIB, 600 * MIB);
        let said = short.shortage(Strategy::Canary, &Plan::default(), 2, true);
        assert_eq!(
            said.as_deref(),
            Some(
                "there is no room for 2 instances beside what serves: they need 1GiB of memory \
                 (512MiB each, which is their limit), and 600MiB of 1GiB can be had"
            )
        );
    }
}
