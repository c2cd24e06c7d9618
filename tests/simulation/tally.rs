//! What happened in the simulated worlds, counted.

/// What happened, to know that the scenarios cover it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    pub events: u64,
    pub assigned: u64,
    pub ahead: u64,
    pub recalled: u64,
    pub retried: u64,
    pub forwarded: u64,
    pub refused: u64,
    pub left: u64,
    pub notices: u64,
    pub deaths: u64,
    pub expired: u64,
    pub held: u64,
    pub delivered: u64,
    pub sites_stopped: u64,
    pub fell_back: u64,
    pub promoted: u64,
    pub promotions_failed: u64,
    pub handed_back: u64,
    pub demoted: u64,
    pub moved_delayed: u64,
    pub rehosted: u64,
    pub orders: u64,
    pub held_back: u64,
    pub given_back: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        for (sum, part) in self.fields().into_iter().zip(other.clone().fields()) {
            *sum += *part;
        }
    }

    fn fields(&mut self) -> [&mut u64; 24] {
        [
            &mut self.events,
            &mut self.assigned,
            &mut self.ahead,
            &mut self.recalled,
            &mut self.retried,
            &mut self.forwarded,
            &mut self.refused,
            &mut self.left,
            &mut self.notices,
            &mut self.deaths,
            &mut self.expired,
            &mut self.held,
            &mut self.delivered,
            &mut self.sites_stopped,
            &mut self.fell_back,
            &mut self.promoted,
            &mut self.promotions_failed,
            &mut self.handed_back,
            &mut self.demoted,
            &mut self.moved_delayed,
            &mut self.rehosted,
            &mut self.orders,
            &mut self.held_back,
            &mut self.given_back,
        ]
    }

    pub fn assert_everything_happened(&mut self) {
        let shown = format!("{self:?}");
        assert!(self.fields().iter().all(|count| **count > 0), "{shown}");
    }
}
