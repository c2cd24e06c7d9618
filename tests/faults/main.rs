//! Faults of our own machine: the power goes, the disk is full or broken, the state directory is read-only or vanishes,
//! limits are small, nobody answers or reads. Whatever it is, nobody is lost, and nobody gets mail twice who is not in doubt.
//!
//! A shim of C, preloaded into the real binary, logs what it does to its state directory and makes any operation fail
//! (`shim`). From such a log disks are rebuilt as they may be found after a loss of power (`disk`, `power`); operations fail one
//! by one (`full`). Who runs the tests may be root or not: where that matters, root becomes somebody else (`machine`).
//!
//! `FAULTS_FULL=1` looks at every state and every fault; without it a part of them, spread evenly, in about a minute.

#[path = "../delivery/batch.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod batch;
mod disk; // what a log of operations leaves, and what a loss of power leaves of it
mod full; // each operation fails in turn: no room, a broken disk, a short write
mod history; // who got mail and what was recorded of it, and when
#[path = "../delivery/lab.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod lab;
mod machine; // limits, state directories that are none, no DNS, no reader
mod power; // a loss of power after each operation
mod shim; // between the program and the disk

/// True if all there is to try is to be tried.
fn is_full() -> bool {
    std::env::var_os("FAULTS_FULL").is_some_and(|value| value != "0")
}

/// Carries out `work` for each item, by as many threads as there are processors.
fn each<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(item) =
                    items.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                {
                    work(item);
                }
            });
        }
    });
}
