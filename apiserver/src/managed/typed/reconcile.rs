//! What was owned under another schema.

use crate::managed::path::Element;
use crate::managed::schema::{ListKind, TypeId, Types};
use crate::managed::set::{Node, Set};

impl Types {
    /// Fits a set to the schema of today: who owned parts of what is owned as a whole by
    /// now owns the whole of it.
    pub fn reconcile(&self, set: &mut Set) {
        self.reconcile_in(self.root(), set);
    }

    fn reconcile_in(&self, id: TypeId, set: &mut Set) {
        let kind = self.get(id);
        let fields = |element: &Element| {
            let map = kind.map.as_ref().filter(|map| !map.deduced)?;
            match element {
                Element::Field(name) => map.field(name),
                _ => map.others,
            }
        };
        let items = kind.list.as_ref().map(|list| list.items);
        for node in set.nodes_mut() {
            let below = match kind.map.is_some() {
                true => fields(&node.element),
                false => items.filter(|_| kind.scalar.is_none()),
            };
            if let Some(id) = below {
                self.reconcile_node(id, node);
            }
        }
    }

    fn reconcile_node(&self, id: TypeId, node: &mut Node) {
        if node.children.is_empty() {
            return;
        }
        let kind = self.get(id);
        let whole = match (&kind.map, kind.scalar, &kind.list) {
            (Some(map), ..) => map.atomic && !map.deduced,
            (None, None, Some(list)) => list.kind == ListKind::Atomic,
            _ => false,
        };
        match whole {
            true => {
                node.member = true;
                node.children = Set::EMPTY;
            }
            false => self.reconcile_in(id, &mut node.children),
        }
    }
}
