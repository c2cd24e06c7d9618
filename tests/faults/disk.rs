//! A disk as the log of operations leaves it, and the disks that may be found after the power has gone.
//!
//! What was synced stays. What was not may be there, or not, or a part of it: contents by `fsync` of their file, names (new,
//! renamed and removed) by `fsync` of their directory. [`Disk::remains`] makes the combinations that are looked at.
//!
//! Limits: of several writes to one file that were not synced, all are lost or none, but for the last one.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::shim::{Kind, Op};

/// Files with their contents; directories have none.
pub type Tree = BTreeMap<String, Option<Vec<u8>>>;

type Names = BTreeMap<String, usize>;

#[derive(Clone, Debug)]
enum Node {
    File { live: Vec<u8>, synced: Vec<u8> },
    Dir { live: Names, synced: Names },
}

/// The state directory and all below it; the directory itself is always there.
#[derive(Clone, Debug)]
pub struct Disk {
    nodes: Vec<Node>,
    by_inode: HashMap<u64, usize>,
}

impl Disk {
    /// An empty one.
    pub fn new() -> Disk {
        Disk {
            nodes: vec![Node::dir()],
            by_inode: HashMap::new(),
        }
    }

    /// Carries out an operation that succeeded.
    pub fn apply(&mut self, op: &Op) {
        if op.result < 0 {
            return;
        }
        match op.kind {
            Kind::Create => {
                let node = self.add(&op.path, Node::file());
                self.by_inode.insert(op.inode, node);
            }
            Kind::Mkdir => {
                self.add(&op.path, Node::dir());
            }
            Kind::Write => put(self.live(op), op.offset as usize, &op.data),
            Kind::Truncate => self.live(op).resize(op.offset as usize, 0),
            Kind::Sync => {
                let node = self.by_inode[&op.inode];
                if let Node::File { live, synced } = &mut self.nodes[node] {
                    synced.clone_from(live);
                }
            }
            Kind::SyncDir => {
                // A directory that is gone by now has no names to keep.
                if let Some(node) = self.find(&op.path)
                    && let Node::Dir { live, synced } = &mut self.nodes[node]
                {
                    synced.clone_from(live);
                }
            }
            Kind::Rename => {
                let node = self.remove(&op.path);
                let (above, name) = self.above(&op.path2);
                above.insert(name, node);
            }
            // A socket is made by bind(2), which is not logged: it holds no data, and none is left behind.
            Kind::Unlink if op.path.ends_with("/ctl") => {}
            Kind::Unlink | Kind::Rmdir => {
                self.remove(&op.path);
            }
            Kind::Open => {}
        }
    }

    fn add(&mut self, path: &str, node: Node) -> usize {
        self.nodes.push(node);
        let number = self.nodes.len() - 1;
        if path.is_empty() {
            return 0;
        }
        let (above, name) = self.above(path);
        above.insert(name, number);
        number
    }

    fn remove(&mut self, path: &str) -> usize {
        let (above, name) = self.above(path);
        above
            .remove(&name)
            .unwrap_or_else(|| panic!("{path} is not there"))
    }

    /// The names of the directory that `path` is in, and its last part.
    fn above(&mut self, path: &str) -> (&mut Names, String) {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let node = self
            .find(above)
            .unwrap_or_else(|| panic!("{above} is not there"));
        match &mut self.nodes[node] {
            Node::Dir { live, .. } => (live, name.to_owned()),
            Node::File { .. } => panic!("{above} is a file"),
        }
    }

    fn find(&self, path: &str) -> Option<usize> {
        let mut node = 0;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            match &self.nodes[node] {
                Node::Dir { live, .. } => node = *live.get(part)?,
                Node::File { .. } => return None,
            }
        }
        Some(node)
    }

    fn live(&mut self, op: &Op) -> &mut Vec<u8> {
        match &mut self.nodes[self.by_inode[&op.inode]] {
            Node::File { live, .. } => live,
            Node::Dir { .. } => panic!("{op:?}"),
        }
    }

    /// What may be found if the power goes right behind `op`, which was carried out on the disk `before`; with words for each.
    pub fn remains(&self, op: &Op, before: &Disk) -> Vec<(String, Tree)> {
        let mut found = vec![
            ("all is kept".to_owned(), self.tree(false, |_, live| live)),
            (
                "contents not synced are lost".to_owned(),
                self.tree(false, |node, _| self.synced(node)),
            ),
            (
                "contents and names not synced are lost".to_owned(),
                self.tree(true, |node, _| self.synced(node)),
            ),
            (
                "names not synced are lost".to_owned(),
                self.tree(true, |_, live| live),
            ),
        ];
        for (path, dirty) in self.dirty() {
            let is_it = move |node| node == dirty;
            found.push((
                format!("what {path} has not synced is lost"),
                self.tree(
                    false,
                    |node, live| if is_it(node) { self.synced(node) } else { live },
                ),
            ));
            found.push((
                format!("of all that is not synced only {path} is kept"),
                self.tree(
                    false,
                    |node, live| if is_it(node) { live } else { self.synced(node) },
                ),
            ));
        }
        found.extend(self.torn(op, before));
        found
    }

    /// A part of the last write is there.
    fn torn(&self, op: &Op, before: &Disk) -> Vec<(String, Tree)> {
        if op.kind != Kind::Write || op.result <= 0 {
            return Vec::new();
        }
        let torn = self.by_inode[&op.inode];
        let Node::File { live: old, .. } = &before.nodes[torn] else {
            return Vec::new();
        };
        let (len, at) = (op.data.len(), op.offset as usize);
        let with = |kept: &[u8]| {
            let mut content = old.clone();
            put(&mut content, at, kept);
            self.tree(
                false,
                |node, live| if node == torn { content.clone() } else { live },
            )
        };
        let mut found = Vec::new();
        for kept in [len / 2, len - 1] {
            let what = format!(
                "of the last write, to {}, {kept} of {len} bytes are kept",
                op.path
            );
            found.push((what, with(&op.data[..kept])));
        }
        if at >= old.len() {
            let what = format!("the last write, to {}, left only zeros", op.path);
            found.push((what, with(&vec![0; len])));
        }
        found
    }

    /// Files with contents that are not synced.
    fn dirty(&self) -> Vec<(String, usize)> {
        let mut dirty = Vec::new();
        self.walk(0, "", false, &mut |path, node| {
            if let Node::File { live, synced } = &self.nodes[node]
                && live != synced
            {
                dirty.push((path.to_owned(), node));
            }
        });
        dirty
    }

    fn synced(&self, node: usize) -> Vec<u8> {
        match &self.nodes[node] {
            Node::File { synced, .. } => synced.clone(),
            Node::Dir { .. } => Vec::new(),
        }
    }

    fn tree(&self, synced_names: bool, content: impl Fn(usize, Vec<u8>) -> Vec<u8>) -> Tree {
        let mut tree = Tree::new();
        self.walk(0, "", synced_names, &mut |path, node| {
            let content = match &self.nodes[node] {
                Node::File { live, .. } => Some(content(node, live.clone())),
                Node::Dir { .. } => None,
            };
            tree.insert(path.to_owned(), content);
        });
        tree
    }

    fn walk(&self, node: usize, path: &str, synced_names: bool, f: &mut impl FnMut(&str, usize)) {
        let Node::Dir { live, synced } = &self.nodes[node] else {
            return;
        };
        for (name, node) in if synced_names { synced } else { live } {
            let path = match path {
                "" => name.clone(),
                _ => format!("{path}/{name}"),
            };
            f(&path, *node);
            self.walk(*node, &path, synced_names, f);
        }
    }
}

impl Node {
    fn file() -> Node {
        Node::File {
            live: Vec::new(),
            synced: Vec::new(),
        }
    }

    fn dir() -> Node {
        Node::Dir {
            live: Names::new(),
            synced: Names::new(),
        }
    }
}

fn put(file: &mut Vec<u8>, at: usize, data: &[u8]) {
    if file.len() < at + data.len() {
        file.resize(at + data.len(), 0);
    }
    file[at..at + data.len()].copy_from_slice(data);
}

/// Makes the directory `root` as a disk would have it.
pub fn restore(tree: &Tree, root: &Path) {
    make_dir(root);
    for (path, content) in tree {
        let path = root.join(path);
        match content {
            None => make_dir(&path),
            Some(content) => {
                let mut options = fs::OpenOptions::new();
                let mut file = options
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)
                    .unwrap();
                std::io::Write::write_all(&mut file, content).unwrap();
            }
        }
    }
}

/// A directory that nobody else may write into.
pub fn make_dir(path: &Path) {
    fs::DirBuilder::new().mode(0o700).create(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(kind: Kind, path: &str, inode: u64, data: &[u8]) -> Op {
        Op {
            kind,
            is_injected: false,
            begin: 0,
            end: 0,
            inode,
            offset: 0,
            result: data.len() as i64,
            path: path.into(),
            path2: String::new(),
            data: data.into(),
        }
    }

    #[test]
    fn what_was_synced_stays_and_the_rest_need_not() {
        let mut disk = Disk::new();
        let rename = Op {
            path2: "d/c".into(),
            ..op(Kind::Rename, "d/b", 0, b"")
        };
        let steps = [
            op(Kind::Mkdir, "d", 0, b""),
            op(Kind::SyncDir, "", 0, b""),
            op(Kind::Create, "d/b", 7, b""),
            op(Kind::Write, "d/b", 7, b"old"),
            op(Kind::Sync, "d/b", 7, b""),
            op(Kind::SyncDir, "d", 0, b""),
            op(Kind::Write, "d/b", 7, b"newer"),
            rename,
        ];
        steps.iter().for_each(|step| disk.apply(step));
        let remains = disk.remains(steps.last().unwrap(), &Disk::new());
        let mut found: Vec<(String, String)> = remains
            .iter()
            .map(|(_, tree)| {
                let (path, content) = tree.iter().find(|(_, content)| content.is_some()).unwrap();
                let content = content.clone().unwrap();
                (path.clone(), String::from_utf8(content).unwrap())
            })
            .collect();
        found.sort();
        found.dedup();
        let all = [
            ("d/b", "newer"),
            ("d/b", "old"),
            ("d/c", "newer"),
            ("d/c", "old"),
        ];
        assert_eq!(
            found,
            all.map(|(path, text)| (path.to_owned(), text.to_owned()))
        );
    }
}
