//! Sets of paths to fields.

use std::cmp::Ordering;

/// A set of paths into an object. Each step of a path is an element in the encoding of `fieldsV1`: `f:NAME` is a
/// field, `k:{...}` an item of a list with keys, `v:VALUE` an item of a set, `i:NUMBER` an index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// In the order of their elements; none is empty.
    nodes: Vec<Node>,
}

/// What a set has at and below one element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub element: Box<str>,
    /// Whether the path that ends here is in the set.
    pub member: bool,
    pub children: FieldSet,
}

/// What a set has at and below a place: a [`Node`] that doesn't know its own element.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub member: bool,
    pub children: FieldSet,
}

impl Part {
    pub fn member() -> Self {
        Part { member: true, children: FieldSet::default() }
    }

    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }
}

impl FieldSet {
    /// Whether there is no path in it.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many paths there are.
    pub fn len(&self) -> usize {
        self.nodes.iter().map(|node| usize::from(node.member) + node.children.len()).sum()
    }

    /// Whether the path of these elements is in it.
    pub fn has(&self, path: &[&str]) -> bool {
        let Some((last, parents)) = path.split_last() else { return false };
        let parent = parents.iter().try_fold(self, |set, element| set.below(element));
        parent.and_then(|set| set.node(last)).is_some_and(|node| node.member)
    }

    /// Puts a path in.
    pub fn insert(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        let at = match self.find(first) {
            Ok(at) => at,
            Err(at) => {
                let node = Node { element: (*first).into(), member: false, children: FieldSet::default() };
                self.nodes.insert(at, node);
                at
            }
        };
        if rest.is_empty() {
            self.nodes[at].member = true;
        } else {
            self.nodes[at].children.insert(rest);
        }
    }

    /// The set of these paths.
    pub fn of(paths: &[&[&str]]) -> Self {
        let mut set = FieldSet::default();
        paths.iter().for_each(|path| set.insert(path));
        set
    }

    /// Paths of either.
    pub fn union(self, other: Self) -> Self {
        if other.is_empty() {
            return self;
        }
        zip(self, other, |ours, theirs| match (ours, theirs) {
            (Some(ours), Some(theirs)) => Some(Node {
                member: ours.member || theirs.member,
                children: ours.children.union(theirs.children),
                element: ours.element,
            }),
            (ours, theirs) => ours.or(theirs),
        })
    }

    /// Paths of this set that are not in `other`.
    pub fn difference(self, other: &Self) -> Self {
        self.less(other, false)
    }

    /// Paths of this set that are neither in `other` nor below a path of it.
    pub fn recursive_difference(self, other: &Self) -> Self {
        self.less(other, true)
    }

    fn less(self, other: &Self, below: bool) -> Self {
        if other.is_empty() {
            return self;
        }
        let nodes = self.nodes.into_iter().filter_map(|mut node| {
            if let Some(theirs) = other.node(&node.element) {
                if below && theirs.member {
                    return None;
                }
                node.member &= !theirs.member;
                node.children = node.children.less(&theirs.children, below);
            }
            node.kept()
        });
        FieldSet { nodes: nodes.collect() }
    }

    /// Paths of both.
    pub fn intersection(&self, other: &Self) -> Self {
        let nodes = self.nodes.iter().filter_map(|node| {
            let theirs = other.node(&node.element)?;
            Node {
                element: node.element.clone(),
                member: node.member && theirs.member,
                children: node.children.intersection(&theirs.children),
            }
            .kept()
        });
        FieldSet { nodes: nodes.collect() }
    }

    /// Every path, each as its elements.
    pub fn paths(&self) -> Vec<Vec<&str>> {
        let (mut paths, mut path) = (Vec::new(), Vec::new());
        self.collect_paths(&mut path, &mut paths);
        paths
    }

    fn collect_paths<'a>(&'a self, path: &mut Vec<&'a str>, paths: &mut Vec<Vec<&'a str>>) {
        for node in &self.nodes {
            path.push(&node.element);
            if node.member {
                paths.push(path.clone());
            }
            node.children.collect_paths(path, paths);
            path.pop();
        }
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The set of nodes in any order.
    pub(super) fn of_nodes(mut nodes: Vec<Node>) -> Self {
        nodes.retain(|node| node.member || !node.children.is_empty());
        nodes.sort_unstable_by(|a, b| a.element.cmp(&b.element));
        FieldSet { nodes }
    }

    /// Makes one node of those with the same element.
    pub(super) fn join_twins(&mut self) {
        self.nodes.dedup_by(|twin, first| {
            let same = twin.element == first.element;
            if same {
                first.member |= twin.member;
                first.children =
                    std::mem::take(&mut first.children).union(std::mem::take(&mut twin.children));
            }
            same
        });
    }

    pub(super) fn node(&self, element: &str) -> Option<&Node> {
        self.find(element).ok().map(|at| &self.nodes[at])
    }

    /// The paths below an element.
    pub(super) fn below(&self, element: &str) -> Option<&FieldSet> {
        self.node(element).map(|node| &node.children)
    }

    fn find(&self, element: &str) -> Result<usize, usize> {
        self.nodes.binary_search_by(|node| (*node.element).cmp(element))
    }
}

impl Node {
    fn kept(self) -> Option<Self> {
        (self.member || !self.children.is_empty()).then_some(self)
    }
}

/// Goes through two sets at once, in the order of their elements.
fn zip(
    ours: FieldSet,
    theirs: FieldSet,
    both: impl Fn(Option<Node>, Option<Node>) -> Option<Node>,
) -> FieldSet {
    let mut nodes = Vec::with_capacity(ours.nodes.len().max(theirs.nodes.len()));
    let (mut ours, mut theirs) = (ours.nodes.into_iter().peekable(), theirs.nodes.into_iter().peekable());
    loop {
        let order = match (ours.peek(), theirs.peek()) {
            (None, None) => return FieldSet { nodes },
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.element.cmp(&b.element),
        };
        nodes.extend(match order {
            Ordering::Less => both(ours.next(), None),
            Ordering::Equal => both(ours.next(), theirs.next()),
            Ordering::Greater => both(None, theirs.next()),
        });
    }
}
