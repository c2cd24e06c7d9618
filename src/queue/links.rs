//! Doubly linked lists over small indices: constant-time push and removal from anywhere.
//!
//! A site stands in a ring, a destination in its site's list, a worker in the ready list and in its site's; each may
//! have to leave from the middle at any event, with a hundred thousand others beside it. [`Links`] holds the two
//! neighbours of every index, [`List`] the two ends of one list; many lists may share one `Links`.
//!
//! INVARIANTS: an index stands in at most one list of a `Links` (debug assertions); `remove` must be given the list it
//! stands in. Nothing here is reachable from the outside with bytes of a peer.

/// No index.
const NIL: u32 = u32::MAX;
/// The mark of an index that stands in no list.
const LOOSE: u32 = u32::MAX - 1;

/// The neighbours of every index.
#[derive(Default, Debug)]
pub(super) struct Links {
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    prev: u32,
    next: u32,
}

/// The ends of one list.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    head: u32,
    tail: u32,
    len: u32,
}

impl Default for List {
    fn default() -> List {
        List {
            head: NIL,
            tail: NIL,
            len: 0,
        }
    }
}

impl List {
    /// The first index.
    pub(super) fn front(&self) -> Option<u32> {
        (self.head != NIL).then_some(self.head)
    }

    /// The last index.
    pub(super) fn back(&self) -> Option<u32> {
        (self.tail != NIL).then_some(self.tail)
    }

    /// How many stand in it.
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    /// True if nobody stands in it.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Links {
    /// True if `index` stands in a list.
    pub(super) fn is_linked(&self, index: u32) -> bool {
        self.nodes
            .get(index as usize)
            .is_some_and(|node| node.prev != LOOSE)
    }

    /// The one before `index` in its list.
    pub(super) fn before(&self, index: u32) -> Option<u32> {
        let prev = self.nodes.get(index as usize)?.prev;
        (prev != NIL && prev != LOOSE).then_some(prev)
    }

    /// Puts `index` at the end of `list`.
    pub(super) fn push_back(&mut self, list: &mut List, index: u32) {
        debug_assert!(!self.is_linked(index), "{index} stands in a list already");
        let loose = Node {
            prev: LOOSE,
            next: LOOSE,
        };
        if self.nodes.len() <= index as usize {
            self.nodes.resize(index as usize + 1, loose);
        }
        self.nodes[index as usize] = Node {
            prev: list.tail,
            next: NIL,
        };
        match list.back() {
            Some(tail) => self.nodes[tail as usize].next = index,
            None => list.head = index,
        }
        list.tail = index;
        list.len += 1;
    }

    /// Takes `index` out of `list`, in which it stands. False if it stands nowhere.
    pub(super) fn remove(&mut self, list: &mut List, index: u32) -> bool {
        if !self.is_linked(index) {
            return false;
        }
        let Node { prev, next } = self.nodes[index as usize];
        match prev {
            NIL => list.head = next,
            prev => self.nodes[prev as usize].next = next,
        }
        match next {
            NIL => list.tail = prev,
            next => self.nodes[next as usize].prev = prev,
        }
        self.nodes[index as usize].prev = LOOSE;
        list.len -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn lists_that_share_links_behave_like_deques() {
        let mut rng = fastrand::Rng::with_seed(11);
        let mut links = Links::default();
        let mut lists = [List::default(), List::default()];
        let mut model = [VecDeque::new(), VecDeque::new()];
        for _ in 0..5000 {
            let which = rng.usize(0..2);
            let index = rng.u32(0..40);
            let stands_in = (0..2).find(|&l| model[l].contains(&index));
            assert_eq!(links.is_linked(index), stands_in.is_some());
            match (rng.u8(0..3), stands_in) {
                (0, Some(l)) => {
                    assert!(links.remove(&mut lists[l], index));
                    model[l].retain(|&i| i != index);
                }
                (1, _) => {
                    let first = lists[which].front();
                    assert_eq!(first, model[which].pop_front());
                    first.map(|first| links.remove(&mut lists[which], first));
                }
                (_, None) => {
                    links.push_back(&mut lists[which], index);
                    model[which].push_back(index);
                }
                _ => {}
            }
            for l in 0..2 {
                assert_eq!(lists[l].len(), model[l].len());
                assert_eq!(lists[l].is_empty(), model[l].is_empty());
                assert_eq!(lists[l].front(), model[l].front().copied());
                assert_eq!(lists[l].back(), model[l].back().copied());
                for pair in 1..model[l].len() {
                    assert_eq!(links.before(model[l][pair]), Some(model[l][pair - 1]));
                }
            }
        }
    }

    #[test]
    fn removing_what_stands_nowhere_changes_nothing() {
        let (mut links, mut list) = (Links::default(), List::default());
        assert!(!links.remove(&mut list, 3));
        links.push_back(&mut list, 3);
        assert!(links.remove(&mut list, 3));
        assert!(!links.remove(&mut list, 3));
        assert!(list.is_empty());
    }
}
