//! Chance that can be repeated: SplitMix64 (Steele, Lea, Flood 2014), from a seed.

use std::time::Duration;

use super::Plan;
use crate::model::hook::{Smoke, SmokeAct};
use crate::model::mirror::MirrorSpec;
use crate::model::weight::Weight;
use crate::rollout::plan::OnInconclusive;
use crate::rollout::strategy::Strategy;

pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The bias of a remainder is nothing against a bound of a few hundred.
        (z ^ (z >> 31)) % bound
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let bound = u64::try_from(of.len()).unwrap_or(1);
        &of[usize::try_from(self.below(bound)).unwrap_or(0)]
    }
}

/// A smoke test.
pub(super) fn smoke() -> Smoke {
    let act = SmokeAct::Command(vec!["true".to_owned()]);
    Smoke { act, timeout: Duration::from_secs(5), retries: 1 }
}

/// A mirror.
pub(super) fn mirror() -> MirrorSpec {
    MirrorSpec {
        share: Weight::FULL,
        lasts: Duration::from_secs(20),
        interval_micros: 20_000,
        burst: 50,
        in_flight: 10,
        compare_body: false,
        mask: Vec::new(),
        different: Weight::ZERO,
    }
}

/// Some plan.
pub(super) fn plan(chance: &mut Chance) -> Plan {
    let steps = ["5% 25% 50% 100%", "100%", "1% 100%", "0.5% 10% 99% 100%"];
    let on_inconclusive = [OnInconclusive::Hold, OnInconclusive::Advance, OnInconclusive::Rollback];
    let strategies = [
        Strategy::Canary,
        Strategy::Canary,
        Strategy::BlueGreen,
        Strategy::Rolling,
        Strategy::Recreate,
    ];
    let plan = Plan {
        strategy: *chance.pick(&strategies),
        steps: chance.pick(&steps).parse().expect("steps"),
        bake: Duration::from_secs(chance.below(30)),
        bake_max: Duration::from_secs(30 + chance.below(60)),
        on_inconclusive: *chance.pick(&on_inconclusive),
        gates: if chance.one_in(4) {
            vec![Weight::from_basis_points(1_000).expect("a weight")]
        } else {
            Vec::new()
        },
        gate_timeout: Duration::from_secs(60 + chance.below(600)),
        on_gate_timeout: *chance.pick(&on_inconclusive),
        smoke: if chance.one_in(3) { vec![smoke()] } else { Vec::new() },
        mirror: chance.one_in(3).then(mirror),
        ..Plan::default()
    };
    plan.carried_out(u32::try_from(1 + chance.below(4)).unwrap_or(1))
}
