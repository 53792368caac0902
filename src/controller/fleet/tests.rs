//! What is placed, and what of it is live.

use super::*;
use crate::analysis::scorecard::Row;

fn instance(number: u16) -> Instance {
    let id = InstanceId::new(&format!("web-{number}"));
    Instance { id, address: ([127, 0, 0, 1], number).into() }
}

#[test]
fn a_revision_is_returned_to_while_its_former_instances_drain() {
    let (live, web) = (Live::default(), ServiceName::new("web").unwrap());
    let mut fleet = Fleet::new(live.clone(), 1);
    let (one, two) = (RevisionId(1), RevisionId(2));
    let stable = |live: &Live| {
        let table = Arc::clone(live.reader().load());
        let side = table.services[0].stable.as_ref().unwrap();
        (side.revision, side.pool.endpoints[0].instance.clone(), Arc::clone(&side.scorecard))
    };
    let http1 = crate::model::revision::UpstreamProtocol::Http1.into();
    fleet.set_service(&web, Vec::new(), ServiceSettings::default(), Spec::default());
    fleet.place(&web, Side::Stable, one, &[instance(1)], http1);
    fleet.place(&web, Side::Canary, two, &[instance(2)], http1);
    fleet.switch(&web);
    assert_eq!(stable(&live).0, two);
    let former = fleet.endpoints(&web, one);
    former[0].begin_drain();

    fleet.place(&web, Side::Canary, one, &[instance(3)], http1);
    assert!(!former[0].is_cut(), "what drains is left alone");
    fleet.switch(&web);
    let (revision, there, card) = stable(&live);
    assert_eq!((revision, there), (one, instance(3).id));
    card.record(0, Row::Success, 1);
    // Two groups of one revision are told as one.
    assert_eq!(fleet.totals().iter().filter(|(_, revision, ..)| *revision == one).count(), 1);
    fleet.remove_drained(&web, one);
    assert_eq!(stable(&live).1, instance(3).id);
    assert!(!fleet.has(&instance(1).id) && fleet.has(&instance(2).id));
    // A warm one does not go when another of its revision is done.
    fleet.remove_drained(&web, two);
    assert!(fleet.has(&instance(2).id));
}

#[test]
fn joined_canaries_have_one_weight() {
    let (live, names) = (Live::default(), ["api", "web"].map(|n| ServiceName::new(n).unwrap()));
    let mut fleet = Fleet::new(live.clone(), 1);
    let weights = || {
        let table = Arc::clone(live.reader().load());
        [0, 1].map(|at| table.services[at].canary_weight.percent())
    };
    let http1 = crate::model::revision::UpstreamProtocol::Http1.into();
    for (name, number) in names.iter().zip([10, 20]) {
        fleet.set_service(name, Vec::new(), ServiceSettings::default(), Spec::default());
        fleet.place(name, Side::Stable, RevisionId(1), &[instance(number)], http1);
        fleet.join(name, Some(7));
        fleet.place(name, Side::Canary, RevisionId(2), &[instance(number + 1)], http1);
    }
    let [api, web] = &names;
    let percent = |percent| Weight::from_percent(percent).unwrap();
    // Up with the last, down with the first, each in one publish.
    fleet.shift(api, percent(5.0), 7);
    assert_eq!((weights(), fleet.weight(api)), ([0.0, 0.0], percent(5.0)));
    fleet.shift(web, percent(5.0), 7);
    assert_eq!(weights(), [5.0, 5.0]);
    fleet.shift(web, Weight::ZERO, 7);
    assert_eq!(weights(), [0.0, 0.0]);
    fleet.remove(web, RevisionId(2));
    assert_eq!(weights(), [0.0, 0.0], "the other one is still on its way back");
    // Who has become stable holds nobody back.
    fleet.place(web, Side::Canary, RevisionId(3), &[instance(22)], http1);
    for name in [api, web] {
        fleet.shift(name, Weight::FULL, 7);
    }
    fleet.switch(web);
    assert_eq!(weights(), [100.0, 0.0]);
    // Another deploy goes by itself.
    fleet.join(api, None);
    fleet.shift(api, percent(30.0), 8);
    assert_eq!(weights(), [30.0, 0.0]);
}
