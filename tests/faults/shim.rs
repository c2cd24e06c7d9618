//! The shim between the program and the disk: built once, put before the program by its environment, and its log read.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::lab::{Lab, Program};

/// What the shim saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Create,
    Write,
    Truncate,
    Sync,
    SyncDir,
    Rename,
    Unlink,
    Rmdir,
    Mkdir,
    Open,
}

const KINDS: [Kind; 10] = [
    Kind::Create,
    Kind::Write,
    Kind::Truncate,
    Kind::Sync,
    Kind::SyncDir,
    Kind::Rename,
    Kind::Unlink,
    Kind::Rmdir,
    Kind::Mkdir,
    Kind::Open,
];

/// One operation, as it took place. Times are nanoseconds since 1970; paths are below the directory that is watched.
#[derive(Clone, Debug)]
pub struct Op {
    pub kind: Kind,
    /// The shim made it fail, or cut it.
    pub is_injected: bool,
    pub begin: u64,
    pub end: u64,
    pub inode: u64,
    pub offset: u64,
    /// Below 0: the error.
    pub result: i64,
    pub path: String,
    /// The new name.
    pub path2: String,
    pub data: Vec<u8>,
}

/// Which operation fails, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Which operation, from 1.
    pub at: usize,
    /// How it fails; 0: a write of half of its bytes.
    pub errno: i32,
    /// How all behind it fail; 0: not at all.
    pub then: i32,
}

/// The shim as a library, built from its source by the system's C compiler.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/shim.c");
        // Two runs of the tests may build at the same time.
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let library = directory.join(format!("shim-{}.so", std::process::id()));
        let built = Command::new("cc")
            .args(["-O1", "-Wall", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .status();
        assert!(built.expect("needs cc").success());
        library
    })
}

/// Starts the program on the state directory of `lab` with the shim in between; it logs to `log`.
pub fn start(
    lab: &Lab,
    log: &Path,
    fault: Option<Fault>,
    arguments: &[&str],
    paths: &[&Path],
) -> Program {
    let state = lab.path("state").canonicalize().unwrap();
    let numbers = fault.map_or([0, 0, 0], |fault| {
        [fault.at as i64, fault.errno.into(), fault.then.into()]
    });
    let numbers = numbers.map(|number| number.to_string());
    let environment = [
        ("LD_PRELOAD", library().to_str().unwrap()),
        ("SHIM_DIR", state.to_str().unwrap()),
        ("SHIM_LOG", log.to_str().unwrap()),
        ("SHIM_FAIL", &numbers[0]),
        ("SHIM_ERRNO", &numbers[1]),
        ("SHIM_ON", &numbers[2]),
    ];
    let arguments = [&["--allow-loopback"], arguments].concat();
    lab.start_in(&environment, &arguments, paths)
}

/// Reads a log.
pub fn read_log(log: &Path, lab: &Lab) -> Vec<Op> {
    let bytes = std::fs::read(log).unwrap_or_default();
    let state = lab.path("state").canonicalize().unwrap();
    let root = state.to_str().unwrap();
    let mut parts = Parts(&bytes);
    let mut ops = Vec::new();
    while !parts.0.is_empty() {
        ops.push(parts.op(root));
    }
    ops
}

struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }

    fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.take(8).try_into().unwrap())
    }

    fn path(&mut self, len: u32, root: &str) -> String {
        let path = std::str::from_utf8(self.take(len as usize)).unwrap();
        let path = path.strip_prefix(root).unwrap_or(path);
        path.trim_start_matches('/').to_owned()
    }

    /// `struct head` of the shim, and what it says comes behind it.
    fn op(&mut self, root: &str) -> Op {
        let kind = KINDS[self.u32() as usize - 1];
        let is_injected = self.u32() != 0;
        let [begin, end, inode, offset, result] = [(); 5].map(|()| self.u64());
        let lens = [self.u32(), self.u32()];
        let data_len = self.u64() as usize;
        Op {
            kind,
            is_injected,
            begin,
            end,
            inode,
            offset,
            result: result as i64,
            path: self.path(lens[0], root),
            path2: self.path(lens[1], root),
            data: self.take(data_len).to_vec(),
        }
    }
}
