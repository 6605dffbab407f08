//! Sets of paths (R5.2).
//!
//! # Invariants
//! The nodes of a set are sorted by their elements, each element once. A node is a member
//! or has children, so that an empty set has no nodes.

use super::path::{Element, Place};

/// A set of paths, as a tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set {
    nodes: Vec<Node>,
}

/// What a set has at one element, and below it.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The last step of the path.
    pub element: Element,
    /// Whether the path that ends here is in the set.
    pub member: bool,
    /// The paths that go on.
    pub children: Set,
}

impl Node {
    /// A path that ends here.
    pub fn leaf(element: Element) -> Self {
        Self {
            element,
            member: true,
            children: Set::default(),
        }
    }

    /// Whether it stands for anything.
    fn is_something(&self) -> bool {
        self.member || !self.children.is_empty()
    }
}

impl Set {
    /// No path.
    pub const EMPTY: Self = Self { nodes: Vec::new() };

    /// A set of nodes in any order; nodes of equal elements become one.
    pub fn of(mut nodes: Vec<Node>) -> Self {
        nodes.retain(Node::is_something);
        if !nodes.is_sorted_by(|a, b| a.element < b.element) {
            nodes.sort_by(|a, b| a.element.cmp(&b.element));
            nodes = joined(nodes);
        }
        Self { nodes }
    }

    /// A set of field names below each other.
    pub fn path(names: &[&str]) -> Self {
        let mut set = Self::default();
        for (position, name) in names.iter().rev().enumerate() {
            set = Self {
                nodes: vec![Node {
                    element: Element::Field((*name).to_owned()),
                    member: position == 0,
                    children: set,
                }],
            };
        }
        set
    }

    /// What is in any of the sets.
    pub fn union_of(sets: impl IntoIterator<Item = Self>) -> Self {
        let nodes = sets.into_iter().flat_map(|set| set.nodes);
        Self::of(nodes.collect())
    }

    /// What is in either.
    pub fn union(self, other: Self) -> Self {
        match (self.nodes.is_empty(), other.nodes.is_empty()) {
            (true, _) => other,
            (_, true) => self,
            _ => Self::union_of([self, other]),
        }
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let (few, many) = match self.nodes.len() <= other.nodes.len() {
            true => (self, other),
            false => (other, self),
        };
        let nodes = few.nodes.iter().filter_map(|node| {
            let other = many.node(&node.element)?;
            let both = Node {
                element: node.element.clone(),
                member: node.member && other.member,
                children: node.children.intersection(&other.children),
            };
            both.is_something().then_some(both)
        });
        Self {
            nodes: nodes.collect(),
        }
    }

    /// What is not in the other.
    pub fn difference(mut self, other: &Self) -> Self {
        self.subtract(other, false);
        self
    }

    /// What is not in the other, nor below a member of it.
    pub fn recursive_difference(mut self, other: &Self) -> Self {
        self.subtract(other, true);
        self
    }

    fn subtract(&mut self, other: &Self, recursive: bool) {
        if other.is_empty() {
            return;
        }
        self.nodes.retain_mut(|node| {
            let Some(other) = other.node(&node.element) else {
                return true;
            };
            if recursive && other.member {
                return false;
            }
            node.member &= !other.member;
            node.children.subtract(&other.children, recursive);
            node.is_something()
        });
    }

    /// Whether there is no path in it.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The node of an element.
    pub fn node(&self, element: &Element) -> Option<&Node> {
        let found = self
            .nodes
            .binary_search_by(|node| node.element.cmp(element));
        found.ok().map(|position| &self.nodes[position])
    }

    /// Its nodes, sorted.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Its nodes, whose elements are not to be changed.
    pub(super) fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// Whether it has a path of field names.
    pub fn has(&self, names: &[&str]) -> bool {
        let Some((first, rest)) = names.split_first() else {
            return false;
        };
        let Some(node) = self.node(&Element::Field((*first).to_owned())) else {
            return false;
        };
        match rest.is_empty() {
            true => node.member,
            false => node.children.has(rest),
        }
    }

    /// Calls `tell` for each path until it says no: at each level first the members, then
    /// what is below each element, which is the order in which conflicts are told.
    pub fn each(&self, tell: &mut dyn FnMut(&Place<'_>) -> bool) -> bool {
        self.each_in(&Place::Root, tell)
    }

    fn each_in(&self, around: &Place<'_>, tell: &mut dyn FnMut(&Place<'_>) -> bool) -> bool {
        let mut members = self.nodes.iter().filter(|node| node.member);
        members.all(|node| tell(&Place::In(around, &node.element)))
            && self.nodes.iter().all(|node| {
                node.children
                    .each_in(&Place::In(around, &node.element), tell)
            })
    }

    /// The number of its paths.
    pub fn len(&self) -> usize {
        let sizes = self.nodes.iter();
        sizes
            .map(|node| usize::from(node.member) + node.children.len())
            .sum()
    }
}

/// Joins neighbours of equal elements.
fn joined(nodes: Vec<Node>) -> Vec<Node> {
    let mut all: Vec<Node> = Vec::with_capacity(nodes.len());
    // The children of equal elements are joined at once, however many there are.
    let mut pending: Vec<Node> = Vec::new();
    for node in nodes {
        match all.last_mut() {
            Some(last) if last.element == node.element => {
                last.member |= node.member;
                pending.extend(node.children.nodes);
            }
            _ => {
                settle(&mut all, &mut pending);
                all.push(node);
            }
        }
    }
    settle(&mut all, &mut pending);
    all
}

fn settle(all: &mut [Node], pending: &mut Vec<Node>) {
    if let Some(last) = all.last_mut().filter(|_| !pending.is_empty()) {
        let mut nodes = std::mem::take(&mut last.children.nodes);
        nodes.append(pending);
        last.children = Set::of(nodes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::managed::fields;
    use serde_json::{Value, json};

    fn set(value: Value) -> Set {
        fields::decode(&value).unwrap()
    }

    #[test]
    fn sets_are_added_and_subtracted() {
        let a = json!({"f:a": {}, "f:b": {".": {}, "f:c": {}}, "f:d": {"v:1": {}}});
        let b = json!({"f:a": {"f:x": {}}, "f:b": {}, "f:d": {"v:1": {}, "v:2": {}}});
        let (a, b) = (set(a), set(b));
        let all = json!({
            "f:a": {".": {}, "f:x": {}}, "f:b": {".": {}, "f:c": {}},
            "f:d": {"v:1": {}, "v:2": {}},
        });
        assert_eq!(a.clone().union(b.clone()), set(all));
        assert_eq!(
            a.intersection(&b),
            set(json!({"f:b": {}, "f:d": {"v:1": {}}}))
        );
        assert_eq!(
            a.clone().difference(&b),
            set(json!({"f:a": {}, "f:b": {"f:c": {}}}))
        );
        assert_eq!(a.clone().recursive_difference(&b), set(json!({"f:a": {}})));
        assert!(a.clone().difference(&a).is_empty());
        assert_eq!(a.len(), 4);
        assert!(a.has(&["b", "c"]) && !b.has(&["b", "c"]) && !a.has(&["d"]));
        assert_eq!(Set::path(&["b", "c"]), set(json!({"f:b": {"f:c": {}}})));
    }

    #[test]
    fn members_are_told_before_what_is_below() {
        let set = set(json!({"f:a": {"f:b": {}}, "f:z": {}}));
        let mut told = Vec::new();
        set.each(&mut |place| {
            told.push(place.to_string());
            true
        });
        assert_eq!(told, [".z", ".a.b"]);
    }

    #[test]
    fn many_sets_are_joined_in_one_go() {
        let one = |n: usize| set(json!({"f:spec": {format!("f:{}", n % 50_000): {}}}));
        let began = std::time::Instant::now();
        let all = Set::union_of((0..100_000).rev().map(one));
        assert_eq!(all.len(), 50_000);
        assert!(began.elapsed() < std::time::Duration::from_secs(5));
    }
}
