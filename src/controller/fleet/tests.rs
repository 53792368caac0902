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
