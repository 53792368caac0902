//! What judging costs the controller.

use std::time::Instant;

use crate::analysis::criteria::Criteria;
use crate::analysis::judge::Judge;
use crate::analysis::replay;
use crate::analysis::replay::Record;
use crate::analysis::scorecard::{Row, Scorecard};
use crate::model::moment::Moment;
use crate::model::weight::Weight;
use crate::simulation::{Dice, HEALTHY, Plan};

/// The lower quartile: what it takes when nobody else wants the processor.
fn quartile(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 4).copied().unwrap_or(f64::NAN)
}

/// A poll of ten services, of which each sees 1,000 requests a second and writes down its recording:
/// reading the scorecards of two sides and eight workers, judging, and the line of the recording.
pub fn polls() -> String {
    let mut dice = Dice::new(1);
    let plan =
        Plan { rps: 1000.0, steps: &[], bake: 0.0, until: 0.0, criteria: Criteria::default() };
    let history = plan.history(&|_, _| HEALTHY, &mut dice);
    let cards: Vec<[Scorecard; 2]> =
        (0..10).map(|_| [Scorecard::new(8), Scorecard::new(8)]).collect();
    let mut judges: Vec<Judge> =
        (0..10).map(|_| Judge::new(Criteria::default(), &history, Moment(0))).collect();
    let weight = Weight::from_percent(5.0).unwrap_or_default();
    for judge in &mut judges {
        judge.begin_step(weight, Moment(0));
    }
    let mut seen = vec![[Default::default(), Default::default()]; 10];
    let (mut polls, mut slots, mut recorded) = (Vec::new(), Vec::new(), Vec::new());
    for poll in 1..=300_u64 {
        for [stable, canary] in &cards {
            for request in 0..100_u64 {
                let micros = 5_000 + (poll * 7_919 + request * 104_729) % 90_000;
                let card = if request < 5 { canary } else { stable };
                card.record((request % 8) as usize, Row::Success, micros);
            }
        }
        let began = Instant::now();
        let mut newly = Vec::with_capacity(10);
        for ((judge, cards), seen) in judges.iter_mut().zip(&cards).zip(&mut seen) {
            let now = [cards[0].sample(), cards[1].sample()];
            let since = [now[0].since(&seen[0]), now[1].since(&seen[1])];
            judge.observe(&since[0], &since[1], Moment(poll * 100));
            *seen = now;
            newly.push(since);
        }
        let took = began.elapsed().as_secs_f64() * 1e3;
        // Ten polls are a slot, at whose end the bets of the next are made.
        if poll.is_multiple_of(10) {
            slots.push(took);
        } else {
            polls.push(took);
        }
        let began = Instant::now();
        for [stable, canary] in &newly {
            let record = Record {
                at: poll * 100,
                epoch: 1,
                began: None,
                resumed: false,
                weight,
                compared: None,
                stable: replay::counts(stable),
                canary: replay::counts(canary),
                instances: Vec::new(),
                clients: None,
            };
            std::hint::black_box(serde_json::to_string(&record).unwrap_or_default());
        }
        recorded.push(began.elapsed().as_secs_f64() * 1e3);
    }
    format!(
        "A poll of 10 services at 1,000 requests/s each, scorecards of 8 workers read and judged, takes {:.2} ms, \
         and where all ten end a slot at once (one poll in ten) {:.2} ms; at most \
         2 ms are promised. Recording all ten adds {:.2} ms.",
        quartile(polls),
        quartile(slots),
        quartile(recorded)
    )
}
