//! The targets: what is played with an input, and what must hold whatever it is.
//!
//! Where a stream may be cut anywhere, the input is played whole and in pieces, and both must mean the same; how it is cut follows
//! from the input, so that a finding stays one.

use std::hash::{DefaultHasher, Hash, Hasher};

mod addresses;
mod conversation;
mod dots;
mod mbox;
mod replies;
mod server;

/// One target.
pub struct Target {
    /// Its name, and that of its folder of seeds.
    pub name: &'static str,
    /// Plays an input; panics if something does not hold.
    pub play: fn(&[u8], &mut Seen),
    /// Words that mutations put in.
    pub words: &'static [&'static [u8]],
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "replies",
        play: replies::replies,
        words: replies::WORDS,
    },
    Target {
        name: "capabilities",
        play: replies::capabilities,
        words: replies::OFFERS,
    },
    Target {
        name: "addresses",
        play: addresses::play,
        words: addresses::WORDS,
    },
    Target {
        name: "dots",
        play: dots::play,
        words: dots::WORDS,
    },
    Target {
        name: "mbox",
        play: mbox::play,
        words: mbox::WORDS,
    },
    Target {
        name: "conversation",
        play: conversation::play,
        words: conversation::WORDS,
    },
    Target {
        name: "server",
        play: server::play,
        words: server::WORDS,
    },
];

/// What happened, in coarse terms: inputs that lead to something not seen before are worth mutating.
#[derive(Default)]
pub struct Seen(DefaultHasher);

impl Seen {
    /// Notes an event; not for anything that differs with every input.
    pub fn note(&mut self, what: impl Hash) {
        what.hash(&mut self.0);
    }

    /// All of it.
    pub fn digest(&self) -> u64 {
        self.0.finish()
    }
}

/// `bytes` cut into pieces of 1 to 40 bytes, or of one byte, as the bytes themselves decide.
fn pieces(bytes: &[u8]) -> Vec<&[u8]> {
    let mut rng = fastrand::Rng::with_seed(fnv(bytes));
    let most = [1, 3, 40][rng.usize(..3)];
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rng.usize(1..=most).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
