//! How many requests a service's instances may be sent once more.
//!
//! A request whose instance fails goes to another one. When all of them fail, what should help makes it
//! worse: each request is work twice, or as often as `retries` says. So within a window of ten seconds there
//! may be a share of the requests that came, a small reserve for services with little traffic, and as many
//! as are on their way: whoever is on the way to an instance that dies may go elsewhere, however long that
//! takes to be answered and however many they are. Share, window and reserve are those of Finagle's
//! `RetryBudget` (20 %, 10 s, ten a second), which Linkerd has too; Envoy's counts what is on its way.
//!
//! What was never sent costs no instance anything, and is not counted: a request that was refused a
//! connection is tried elsewhere in any case.
//!
//! Each worker has its own, which nobody looks at before something fails: the requests that came are read
//! off a counter that is there anyway, when a window begins and when one of its retries is wanted.

use std::collections::HashMap;

use crate::model::id::ServiceName;
use crate::model::weight::Weight;

/// Seconds over which shares are taken.
const WINDOW: u32 = 10;
/// Retries a second that there may be in any case, of one service and over all workers.
const RESERVE: u64 = 10;

/// What a worker sent again, by service.
#[derive(Debug, Default)]
pub struct Retries {
    windows: HashMap<ServiceName, Window>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    since: u32,
    /// The worker's requests when it began.
    requests: u64,
    /// The most that were on their way when a retry was wanted.
    in_flight: u64,
    spent: u64,
}

/// What a worker has to do, when a retry is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// The second of its clock.
    pub second: u32,
    /// All requests that it ever had.
    pub requests: u64,
    /// Those on their way.
    pub in_flight: u64,
    /// Workers beside it, and itself.
    pub workers: u64,
}

impl Retries {
    /// Whether one more request of a service may be sent again; counts it if so.
    pub fn spend(&mut self, service: &ServiceName, share: Weight, load: Load) -> bool {
        let Load { second, requests, in_flight, workers } = load;
        let new = Window { since: second, requests, in_flight, spent: 0 };
        if !self.windows.contains_key(service) {
            // What is over is nobody's any more.
            self.windows.retain(|_, window| window.is_open(second));
            self.windows.insert(service.clone(), new);
        }
        let Some(window) = self.windows.get_mut(service) else { return true };
        if !window.is_open(second) {
            *window = new;
        }
        let came = requests.saturating_sub(window.requests);
        let earned = came.saturating_mul(share.basis_points().into()) / u64::from(Weight::WHOLE);
        let reserve = (RESERVE * u64::from(WINDOW)).div_ceil(workers.max(1));
        // Those that went elsewhere already are perhaps answered.
        window.in_flight = window.in_flight.max(in_flight);
        if window.spent >= earned + reserve + window.in_flight {
            return false;
        }
        window.spent += 1;
        true
    }
}

impl Window {
    fn is_open(&self, second: u32) -> bool {
        second.wrapping_sub(self.since) < WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIFTH: fn() -> Weight = || Weight::from_basis_points(2_000).expect("a weight");

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).expect("a name")
    }

    fn load(second: u32, requests: u64, in_flight: u64) -> Load {
        Load { second, requests, in_flight, workers: 2 }
    }

    #[test]
    fn who_is_on_the_way_to_what_dies_goes_elsewhere() {
        let mut retries = Retries::default();
        // Five thousand wait for an answer that takes long, on two instances; hardly anybody comes.
        assert!(retries.spend(&name("web"), FIFTH(), load(3, 90, 1)));
        let mut spend = |left| retries.spend(&name("web"), FIFTH(), load(7, 90, left));
        assert!((0..5_000).all(|gone| spend(5_000 - gone)));
    }

    #[test]
    fn what_fails_everything_gets_hardly_more_than_was_asked() {
        let mut retries = Retries::default();
        let (mut requests, mut spent) = (1_000_000, 0);
        // A thousand a second, twenty on their way, each of them failing.
        for second in 0..60 {
            for _ in 0..1_000 {
                requests += 1;
                spent +=
                    u64::from(retries.spend(&name("web"), FIFTH(), load(second, requests, 20)));
            }
        }
        assert!((12_000..=12_000 + 6 * (50 + 20)).contains(&spent), "{spent}");
    }

    #[test]
    fn a_part_that_fails_is_covered() {
        let mut retries = Retries::default();
        let mut requests = 0;
        for second in 0..30 {
            for request in 0..5_000 {
                requests += 1;
                let fails = request % 6 == 0;
                assert!(!fails || retries.spend(&name("web"), FIFTH(), load(second, requests, 50)));
            }
        }
    }

    #[test]
    fn services_have_windows_of_their_own_and_little_is_remembered() {
        let mut retries = Retries::default();
        let mut spend = |service: &str, second| {
            (0..200)
                .filter(|_| retries.spend(&name(service), Weight::ZERO, load(second, 0, 0)))
                .count()
        };
        assert_eq!([spend("a", 0), spend("a", 9), spend("b", 9), spend("a", 10)], [50, 0, 50, 50]);
        // The clock goes round.
        assert_eq!([spend("c", u32::MAX), spend("c", 3)], [50, 0]);
        spend("d", 100);
        assert_eq!(retries.windows.len(), 1);
    }
}
