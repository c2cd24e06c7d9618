//! What this machine lets one process have: how many workers that makes.
//!
//! A worker needs a descriptor for its connection, and a thread. Where descriptors run out, look-ups and connections fail
//! in ways that look like somebody else's fault; where memory mappings run out, starting a thread does not fail but ends
//! the process. So the configured maximum of workers is cut down to what there is room for before anything starts.
//!
//! [`look`] reads the limits (and raises the soft one of descriptors to the hard one), [`allowed`] decides.
//!
//! Limits: what other processes of the same user take away meanwhile is not foreseen; then a thread or a descriptor is
//! missing, which defers mail and is called local.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

/// Descriptors that are not workers': standard streams, batch, spool, ledger, report, name servers' sockets.
const DESCRIPTORS_RESERVED: u64 = 40;
/// Threads that are not workers': queues, resolvers, intake, router, ledger, and some for whoever else runs here.
const THREADS_RESERVED: u64 = 64;
/// Mappings that a thread takes, with a wide margin: its stack, its guard page, its part of the heap.
const MAPPINGS_PER_THREAD: u64 = 4;
/// With fewer workers than this nothing is begun.
const WORKERS_MIN: u64 = 4;
/// Descriptors for each thread that looks up destinations: it may hold a handful of sockets.
const DESCRIPTORS_PER_RESOLVER: u64 = 16;

/// One limit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limit {
    /// What it is called, with its value.
    pub name: String,
    /// How many workers it leaves room for.
    pub workers: u64,
    /// What to do about it.
    pub remedy: &'static str,
}

impl Limit {
    fn descriptors(count: u64) -> Limit {
        Limit {
            name: format!("the limit of open files ({count})"),
            workers: count.saturating_sub(DESCRIPTORS_RESERVED),
            remedy: "raise it with ulimit -n",
        }
    }

    fn threads(what: &str, count: u64, room: u64, remedy: &'static str) -> Limit {
        Limit {
            name: format!("the limit of {what} ({count})"),
            workers: room.saturating_sub(THREADS_RESERVED),
            remedy,
        }
    }
}

/// How many of `wanted` workers there may be, and, if that is fewer, why: the tightest of `limits`.
///
/// # Errors
/// One line that names the limit, if it leaves no room for a useful number.
pub fn allowed(wanted: u32, limits: &[Limit]) -> Result<(u32, Option<String>), String> {
    let Some(limit) = limits.iter().min_by_key(|limit| limit.workers) else {
        return Ok((wanted, None));
    };
    let (name, room, remedy) = (&limit.name, limit.workers, limit.remedy);
    if room >= u64::from(wanted) {
        return Ok((wanted, None));
    }
    if room < WORKERS_MIN {
        return Err(format!("{name} is too low: {remedy}"));
    }
    let why = format!("{name} leaves room for {room} workers, not {wanted}; {remedy}");
    Ok((room as u32, Some(why)))
}

/// How many workers there is room for at all, at least 1.
pub fn room(limits: &[Limit]) -> u32 {
    let room = limits.iter().map(|limit| limit.workers).min();
    let room = room.unwrap_or(u64::MAX).max(1);
    u32::try_from(room).unwrap_or(u32::MAX)
}

/// The limits that this process has. The soft limit of descriptors is raised as far as it may be.
pub fn look() -> Vec<Limit> {
    let mut limits = Vec::new();
    limits.extend(raise_descriptors().map(Limit::descriptors));
    // Processes of the superuser are not counted (setrlimit(2)).
    if !geteuid().is_root()
        && let Some(count) = getrlimit(Resource::Nproc).current
    {
        let remedy = "raise it with ulimit -u";
        limits.push(Limit::threads(
            "processes of this user",
            count,
            count,
            remedy,
        ));
    }
    if let Some(count) = number_in(Path::new("/proc/sys/vm/max_map_count")) {
        let remedy = "raise it with sysctl vm.max_map_count";
        let room = count / MAPPINGS_PER_THREAD;
        limits.push(Limit::threads("memory mappings", count, room, remedy));
    }
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    for directory in directories_of(&groups) {
        if let Some(count) = number_in(&directory.join("pids.max")) {
            let taken = number_in(&directory.join("pids.current")).unwrap_or(0);
            let remedy = "raise pids.max, or TasksMax of the unit";
            let room = count.saturating_sub(taken);
            limits.push(Limit::threads("tasks of the group", count, room, remedy));
        }
    }
    limits
}

/// How many look-ups may be under way at once.
pub fn resolvers() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(descriptors / DESCRIPTORS_PER_RESOLVER)
        .unwrap_or(usize::MAX)
        .max(2)
}

/// Returns the limit that holds in the end; `None` if there is none.
fn raise_descriptors() -> Option<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: maximum,
        maximum,
    };
    // If it may not be raised, what there is has to do.
    let _ = setrlimit(Resource::Nofile, most);
    getrlimit(Resource::Nofile).current
}

/// The number in a file of the kernel's; `None` if it says "max", or is not there.
fn number_in(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The directories of the control groups that count tasks, up to the root: a limit of any of them holds. `groups` is what
/// /proc/self/cgroup says.
fn directories_of(groups: &str) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let root = match fields.next() {
            Some("") => "/sys/fs/cgroup",
            Some(names) if names.split(',').any(|name| name == "pids") => "/sys/fs/cgroup/pids",
            _ => continue,
        };
        let path = fields.next().unwrap_or("/").trim_start_matches('/');
        let own = Path::new(root).join(path);
        let above = own.ancestors().take_while(|path| path.starts_with(root));
        directories.extend(above.map(Path::to_owned));
    }
    directories
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_decides_and_is_named() {
        let limits = [
            Limit::descriptors(256),
            Limit::threads("tasks of the group", 200, 150, "raise it"),
        ];
        assert_eq!(allowed(80, &limits), Ok((80, None)));
        let (workers, why) = allowed(256, &limits).unwrap();
        assert_eq!(workers, 86);
        let why = why.unwrap();
        assert!(
            why.starts_with(
                "the limit of tasks of the group (200) leaves room for 86 workers, not 256"
            ),
            "{why}"
        );
    }

    #[test]
    fn too_few_are_none_unless_no_more_are_wanted() {
        let limits = [Limit::descriptors(43)];
        assert_eq!(allowed(3, &limits), Ok((3, None)));
        assert_eq!(
            allowed(4, &limits),
            Err("the limit of open files (43) is too low: raise it with ulimit -n".into())
        );
        assert_eq!(allowed(9, &[Limit::descriptors(44)]).unwrap().0, 4);
    }

    #[test]
    fn a_limit_of_any_group_above_counts() {
        let both = "8:pids:/a/b\n4:memory:/elsewhere\n0::/user.slice/x\n";
        let expected = [
            "/sys/fs/cgroup/pids/a/b",
            "/sys/fs/cgroup/pids/a",
            "/sys/fs/cgroup/pids",
            "/sys/fs/cgroup/user.slice/x",
            "/sys/fs/cgroup/user.slice",
            "/sys/fs/cgroup",
        ];
        assert_eq!(directories_of(both), expected.map(PathBuf::from));
        assert!(directories_of("").is_empty());
    }
}
