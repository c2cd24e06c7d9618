//! Simulation of several queues with shared permits, fake workers and faults, from a seed; invariants after every event.
//!
//! `SEEDS=100000` tries more seeds, `SEED=4711` replays one. A failure names its seed.

#[path = "simulation/by_hand.rs"]
mod by_hand;
#[path = "simulation/check.rs"]
mod check;
#[path = "simulation/circles.rs"]
mod circles;
#[path = "simulation/closed_loop.rs"]
mod closed_loop;
#[path = "simulation/desk.rs"]
mod desk;
#[path = "simulation/enforced.rs"]
mod enforced;
#[path = "simulation/fairness.rs"]
mod fairness;
#[path = "simulation/fallback.rs"]
mod fallback;
#[path = "simulation/found.rs"]
mod found;
#[path = "simulation/limits.rs"]
mod limits;
#[path = "simulation/orders.rs"]
mod orders;
#[path = "simulation/promotion.rs"]
mod promotion;
#[path = "simulation/receiver.rs"]
mod receiver;
#[path = "simulation/scenario.rs"]
mod scenario;
#[path = "simulation/sender.rs"]
mod sender;
#[path = "simulation/tally.rs"]
mod tally;
#[path = "simulation/through.rs"]
mod through;
#[path = "simulation/turns.rs"]
mod turns;
#[path = "simulation/worker.rs"]
mod worker;
#[path = "simulation/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use scenario::Scenario;
use world::World;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| {
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is not a number"))
    })
}

/// Every invariant of DESIGN's dispatcher, for many small worlds.
#[test]
fn invariants_hold_after_every_event() {
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(10_000),
    };
    let (mut total, mut failed) = (tally::Tally::default(), Vec::new());
    for seed in seeds.clone() {
        let run = catch_unwind(AssertUnwindSafe(|| {
            let mut world = World::new(Scenario::small(seed));
            world.run();
            world.tally
        }));
        match run {
            Ok(tally) => total.add(&tally),
            Err(_) => failed.push(seed),
        }
    }
    assert!(
        failed.is_empty(),
        "these seeds fail; replay one with SEED=: {failed:?}"
    );
    println!("{} worlds: {total:?}", seeds.end - seeds.start);
    if number("SEED").is_none() {
        total.assert_everything_happened();
    }
}

/// Ten thousand sites, a hundred thousand envelopes: everything settles, and the work done per event stays small.
#[test]
fn a_large_batch_costs_no_more_per_event_than_a_small_one() {
    let mut world = World::new(Scenario::large(10_000, 100_000));
    world.run();
    let steps: u64 = world.steps();
    let events = world.tally.events;
    println!("{events} events, {steps} steps, {:?}", world.tally);
    assert!(
        steps <= 4 * events,
        "{steps} steps for {events} events: something scans"
    );
}
