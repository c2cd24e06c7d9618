//! One target of `tests/fuzz/targets` under libFuzzer; `FUZZ_TARGET` names it.
#![no_main]

use std::sync::LazyLock;

#[path = "../../targets/mod.rs"]
mod targets;

use targets::{Seen, TARGETS, Target};

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let target = TARGETS.iter().find(|target| target.name == name);
    target.unwrap_or_else(|| panic!("FUZZ_TARGET is the name of a target, not `{name}`"))
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.play)(input, &mut Seen::default()));
