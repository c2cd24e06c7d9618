//! Inputs made of other inputs: a few random changes to a seed, with words of the target's language among them.

use fastrand::Rng;

/// Bytes that mean something to somebody.
const SPECIAL: &[u8] = b"\r\n.\0 \t<>@,;:()\"\\-=\x7f\x80\xff0249";

/// A new input.
pub fn input(rng: &mut Rng, corpus: &[Vec<u8>], words: &[&[u8]], bytes_max: usize) -> Vec<u8> {
    let mut input = corpus[rng.usize(..corpus.len())].clone();
    for _ in 0..1 << rng.usize(0..5) {
        change(&mut input, rng, corpus, words);
    }
    input.truncate(bytes_max);
    input
}

fn change(input: &mut Vec<u8>, rng: &mut Rng, corpus: &[Vec<u8>], words: &[&[u8]]) {
    let at = rng.usize(..=input.len());
    match rng.u8(..10) {
        0..3 => insert(input, at, words[rng.usize(..words.len())]),
        3 => insert(input, at, &[SPECIAL[rng.usize(..SPECIAL.len())]]),
        4 if at < input.len() => input[at] = SPECIAL[rng.usize(..SPECIAL.len())],
        5 if at < input.len() => input[at] ^= 1 << rng.u8(..8),
        6 => {
            let part = part(input, rng);
            input.drain(part);
        }
        7 => {
            // Twice, or a hundred times: limits are beyond what seeds hold.
            let part = part(input, rng);
            let times = if rng.u8(..8) == 0 { 100 } else { 1 };
            let copy = input[part].repeat(times);
            insert(input, at, &copy[..copy.len().min(6000)]);
        }
        8 => {
            let other = &corpus[rng.usize(..corpus.len())];
            let part = part(other, rng);
            insert(input, at, &other[part]);
        }
        _ => insert(input, at, &[rng.u8(..)]),
    }
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    input.splice(at..at, bytes.iter().copied());
}

/// A random part of `of`, short ones more often.
fn part(of: &[u8], rng: &mut Rng) -> std::ops::Range<usize> {
    let start = rng.usize(..=of.len());
    let most = (of.len() - start).min(1 << rng.usize(0..12));
    start..start + rng.usize(..=most)
}
