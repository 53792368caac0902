//! What instances take of processors and memory, measured when somebody asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::driver::Driver;
use super::status::ServiceStatus;
use crate::model::id::{InstanceId, ServiceName};
use crate::runtime::room::Spent;

/// Over how long processors are watched, at least: ticks of the kernel are 10 ms.
const WATCHED: Duration = Duration::from_millis(250);
/// A former look that is older says nothing about now.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// What one instance takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Which.
    pub instance: InstanceId,
    /// Processors: 1 is one of them, all the time.
    pub cpu: Option<f64>,
    /// Bytes of memory.
    pub memory: u64,
}

/// What was seen when somebody last asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Former(Arc<Mutex<HashMap<InstanceId, (Instant, Duration)>>>);

impl Former {
    /// What was seen long enough ago, and not too long.
    fn of(&self, instance: &InstanceId, now: Instant) -> Option<(Instant, Duration)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = |at: &Instant| now.saturating_duration_since(*at);
        let fits = |(at, _): &&(Instant, Duration)| (WATCHED..FORGOTTEN).contains(&age(at));
        known.get(instance).filter(fits).copied()
    }

    fn note(&self, instance: &InstanceId, now: Instant, cpu: Duration) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (at, _)| now.saturating_duration_since(*at) < FORGOTTEN);
        known.insert(instance.clone(), (now, cpu));
    }
}

impl Driver {
    /// Measures the instances of one service, or of all. Who asks waits a moment, the driver does not.
    pub(super) fn measure(
        &self,
        name: Option<&ServiceName>,
        answer: oneshot::Sender<Vec<Measured>>,
    ) {
        let mut asked = Vec::new();
        let wanted =
            self.services.values().filter(|one| name.is_none_or(|name| one.config.name == *name));
        for service in wanted {
            for placed in service.placed() {
                let (runtime, _) = self.launcher(service, placed.revision);
                asked
                    .extend(placed.instances.into_iter().map(|one| (Arc::clone(&runtime), one.id)));
            }
        }
        let former = self.measured.clone();
        self.tasks.spawn(async move {
            let each = asked.into_iter().map(|(runtime, instance)| {
                let former = former.clone();
                async move {
                    let look = async || Some((Instant::now(), runtime.spent(&instance).await?));
                    let (mut at, mut now) = look().await?;
                    let mut before = former.of(&instance, at);
                    if before.is_none() {
                        before = Some((at, now.cpu));
                        tokio::time::sleep(WATCHED).await;
                        (at, now) = look().await?;
                    }
                    former.note(&instance, at, now.cpu);
                    let cpu = before.and_then(|before| rate(before, (at, now)));
                    Some(Measured { instance, cpu, memory: now.memory })
                }
            });
            let measured = join_all(each).await.into_iter().flatten().collect();
            // An asker who went away needs no answer.
            let _ = answer.send(measured);
        });
    }
}

/// Processors between two looks; none where it is another process than before.
fn rate(before: (Instant, Duration), now: (Instant, Spent)) -> Option<f64> {
    let lasted = now.0.saturating_duration_since(before.0).as_secs_f64();
    let spent = now.1.cpu.checked_sub(before.1)?.as_secs_f64();
    (lasted > 0.0).then(|| spent / lasted)
}

/// Writes what was measured beside the instances.
pub fn fill(services: &mut [ServiceStatus], measured: Vec<Measured>) {
    let mut measured: HashMap<String, Measured> =
        measured.into_iter().map(|one| (one.instance.to_string(), one)).collect();
    for service in services {
        for side in [&mut service.stable, &mut service.canary].into_iter().flatten() {
            for instance in &mut side.instances {
                if let Some(one) = measured.remove(&instance.id) {
                    (instance.cpu, instance.memory) = (one.cpu, Some(one.memory));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_time_over_time() {
        let begin = Instant::now();
        let later = begin + Duration::from_secs(2);
        let spent = |seconds| Spent { cpu: Duration::from_secs(seconds), memory: 0 };
        let before = (begin, Duration::from_secs(7));
        assert_eq!(rate(before, (later, spent(10))), Some(1.5));
        assert_eq!(rate(before, (begin, spent(10))), None, "no time has passed");
        assert_eq!(rate(before, (later, spent(1))), None, "another process");
    }

    #[test]
    fn a_former_look_counts_when_it_is_neither_new_nor_old() {
        let (former, begin) = (Former::default(), Instant::now());
        let id = InstanceId::new("web-1");
        former.note(&id, begin, Duration::ZERO);
        let of = |millis| former.of(&id, begin + Duration::from_millis(millis)).is_some();
        assert_eq!([0, 249, 250, 9_999, 10_000].map(of), [false, false, true, true, false]);
    }
}
