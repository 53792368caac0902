//! Reads which requests are copied to a canary before it has visitors.

use super::exchange::read_strategy;
use super::reader::Section;
use crate::edge::rate::{Key, Rate};
use crate::model::mirror::MirrorSpec;
use crate::model::weight::Weight;
use crate::rollout::strategy::Strategy;
use crate::routing::mirror::Mask;

/// The mirror of a service, if it has one.
pub(super) fn read_mirror(section: &Section<'_>) -> Option<MirrorSpec> {
    section.written("mirror")?;
    if read_strategy(section) == Strategy::Recreate {
        let place = section.place_of("mirror").unwrap_or_else(|| section.place.clone());
        let title = "`mirror` has no effect with strategy = \"recreate\"";
        section.wrong("mirror", &place, title, "stable is stopped before the canary starts");
    }
    let inner = section.inner("mirror");
    let weight = |name: &str, what: &'static str| {
        inner.parsed(name, what, |text| text.parse::<Weight>().map_err(|error| error.to_string()))
    };
    let share = weight("share", "a part of the requests");
    if let Some(place) =
        share.as_ref().filter(|share| share.value == Weight::ZERO).and_then(|s| s.place.clone())
    {
        let title = "nothing would be copied";
        inner.wrong("share", &place, title, "expected for example \"10%\", or leave `mirror` out");
    }
    let rate = inner.parsed("max_rate", "a rate", |text| {
        let rate = Rate::parse(text)?;
        match (&rate.key, text.contains(" by ")) {
            (Key::ClientAddress, false) => Ok(rate),
            _ => Err("it is one for all clients: expected for example \"50/s\"".to_owned()),
        }
    });
    let mask: Vec<String> = inner.texts("mask").into_iter().map(|found| found.value).collect();
    if let Err(why) = Mask::new(&mask) {
        let place = inner.place_of("mask").unwrap_or_else(|| inner.place.clone());
        inner.wrong("mask", &place, "`mask` cannot be read", &why);
    }
    let compare_body = inner.switch("compare_body");
    for name in ["mask", "max_different"] {
        if let Some(place) = inner.place_of(name).filter(|_| !compare_body) {
            let title = format!("`{name}` has no effect where bodies are not compared");
            inner.wrong(name, &place, title, "write compare_body = true, or leave it out");
        }
    }
    let lasts = inner.time_limit("for");
    let (interval, burst) =
        rate.map_or((20_000, 50), |found| (found.value.interval.as_micros(), found.value.burst));
    let in_flight = inner.integer("max_in_flight").map_or(1, |found| found.value);
    Some(MirrorSpec {
        share: share.map_or(Weight::ZERO, |found| found.value),
        lasts,
        interval_micros: u64::try_from(interval).unwrap_or(u64::MAX),
        burst,
        in_flight: u32::try_from(in_flight).unwrap_or(u32::MAX),
        compare_body,
        mask,
        different: weight("max_different", "a part of the bodies")
            .map_or(Weight::ZERO, |found| found.value),
    })
}
