//! The tree that layers form: each but a base stands on a sealed one, and one leaf is the head.

use std::collections::{BTreeMap, BTreeSet};

use ankole_proto::LayerId;
use ankole_proto::wire::body::{LayerLink, SEALED_LAYERS_MAX};

/// A shape that no replica has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TreeShapeError {
    /// INV-7.
    #[error("more than 254 sealed layers")]
    TooMany,
    /// Twice the same id.
    #[error("a layer is listed twice")]
    Twice,
    /// A parent is missing, or stands behind its child; so there can be no cycle.
    #[error("a layer is listed before its parent, or without it")]
    Orphan,
    /// No head, or layers stand on it.
    #[error("the head is not a leaf of the tree")]
    Head,
}

/// The layers of a replica and how they stand on one another (INV-7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    parents: BTreeMap<LayerId, Option<LayerId>>,
    head: LayerId,
}

impl Tree {
    /// A tree of one empty head.
    pub fn of_base(head: LayerId) -> Self {
        Self {
            parents: BTreeMap::from([(head, None)]),
            head,
        }
    }

    /// The tree of these links, parents first.
    ///
    /// # Errors
    ///
    /// [`TreeShapeError`] when they form none.
    pub fn from_links(links: &[LayerLink], head: LayerId) -> Result<Self, TreeShapeError> {
        if links.len() > SEALED_LAYERS_MAX + 1 {
            return Err(TreeShapeError::TooMany);
        }
        let mut parents = BTreeMap::new();
        for link in links {
            if link
                .parent
                .is_some_and(|parent| !parents.contains_key(&parent))
            {
                return Err(TreeShapeError::Orphan);
            }
            if parents.insert(link.layer, link.parent).is_some() {
                return Err(TreeShapeError::Twice);
            }
        }
        let tree = Self { parents, head };
        if !tree.contains(head) || tree.children(head).next().is_some() {
            return Err(TreeShapeError::Head);
        }
        Ok(tree)
    }

    /// Every link, a parent before its children, the head last.
    pub fn links(&self) -> Vec<LayerLink> {
        let mut done = BTreeSet::new();
        let mut out = Vec::with_capacity(self.parents.len());
        while out.len() < self.parents.len() {
            let before = out.len();
            for (&layer, &parent) in &self.parents {
                let last = layer != self.head || out.len() + 1 == self.parents.len();
                let ready = parent.is_none_or(|parent| done.contains(&parent));
                if last && ready && done.insert(layer) {
                    out.push(LayerLink { layer, parent });
                }
            }
            assert!(out.len() > before, "a cycle among the layers: {self:?}");
        }
        out
    }

    /// The writable layer.
    pub const fn head(&self) -> LayerId {
        self.head
    }

    /// Whether the layer is in it.
    pub fn contains(&self, layer: LayerId) -> bool {
        self.parents.contains_key(&layer)
    }

    /// What a layer stands on.
    pub fn parent(&self, layer: LayerId) -> Option<LayerId> {
        self.parents.get(&layer).copied().flatten()
    }

    /// What stands on a layer.
    pub fn children(&self, layer: LayerId) -> impl Iterator<Item = LayerId> + '_ {
        self.parents
            .iter()
            .filter(move |(_, parent)| **parent == Some(layer))
            .map(|(child, _)| *child)
    }

    /// The head and what it stands on, newest first.
    pub fn chain(&self) -> Vec<LayerId> {
        self.chain_from(self.head)
    }

    /// A layer and what it stands on, newest first.
    pub fn chain_from(&self, layer: LayerId) -> Vec<LayerId> {
        std::iter::successors(Some(layer), |layer| self.parent(*layer))
            .take(SEALED_LAYERS_MAX + 1)
            .collect()
    }

    /// How many layers it has.
    pub fn layers(&self) -> impl Iterator<Item = LayerId> + '_ {
        self.parents.keys().copied()
    }

    /// How many layers are sealed.
    pub fn sealed_count(&self) -> usize {
        self.parents.len() - 1
    }

    /// The tree with an empty head on the old one.
    pub fn with_sealed_head(&self, new_head: LayerId) -> Self {
        let mut tree = self.clone();
        tree.parents.insert(new_head, Some(self.head));
        tree.head = new_head;
        tree
    }

    /// The tree with an empty head on `to`, without the old head.
    pub fn with_head_on(&self, to: LayerId, new_head: LayerId) -> Self {
        let mut tree = self.clone();
        tree.parents.remove(&self.head);
        tree.parents.insert(new_head, Some(to));
        tree.head = new_head;
        tree
    }

    /// The tree without a sealed layer; what stood on it stands on its parent.
    pub fn without(&self, layer: LayerId) -> Self {
        let mut tree = self.clone();
        let parent = tree.parents.remove(&layer).flatten();
        for of_child in tree.parents.values_mut() {
            if *of_child == Some(layer) {
                *of_child = parent;
            }
        }
        tree
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(raw: u64) -> LayerId {
        LayerId::from_raw(raw).unwrap()
    }

    fn link(layer: u64, parent: u64) -> LayerLink {
        LayerLink {
            layer: id(layer),
            parent: LayerId::from_raw(parent),
        }
    }

    #[test]
    fn links_that_form_no_tree_are_refused() {
        let cases = [
            (vec![link(1, 2), link(2, 1)], 1, TreeShapeError::Orphan),
            (vec![link(1, 0), link(1, 0)], 1, TreeShapeError::Twice),
            (vec![link(1, 0), link(2, 1)], 1, TreeShapeError::Head),
            (vec![link(1, 0)], 2, TreeShapeError::Head),
        ];
        for (links, head, error) in cases {
            assert_eq!(Tree::from_links(&links, id(head)), Err(error), "{links:?}");
        }
        let many: Vec<_> = (1..=256).map(|raw| link(raw, raw - 1)).collect();
        assert_eq!(
            Tree::from_links(&many, id(256)),
            Err(TreeShapeError::TooMany)
        );
    }

    #[test]
    fn links_list_parents_first_and_the_head_last() {
        // The parents' ids are greater than their children's.
        let links = [link(9, 0), link(5, 9), link(2, 5), link(7, 9)];
        let tree = Tree::from_links(&links, id(2)).unwrap();
        let listed = tree.links();
        assert_eq!(Tree::from_links(&listed, id(2)), Ok(tree));
        assert_eq!(listed.last(), Some(&link(2, 5)));
    }

    #[test]
    fn revert_branches_and_removal_closes_the_gap() {
        let tree = Tree::of_base(id(1))
            .with_sealed_head(id(2))
            .with_sealed_head(id(3))
            .with_head_on(id(1), id(4));
        assert_eq!(tree.chain(), [id(4), id(1)]);
        assert_eq!(tree.children(id(1)).collect::<Vec<_>>(), [id(2), id(4)]);
        assert!(!tree.contains(id(3)));
        assert_eq!(tree.without(id(2)).without(id(1)).chain(), [id(4)]);
    }
}
