//! A set of things with stable numbers, for what a worker's tick must visit.
//!
//! Inserting and removing cost a few instructions and, once grown, no allocation. Not a map: a
//! number is given out again after it was removed.

/// Things, each in a numbered slot.
#[derive(Debug)]
pub struct Slots<T> {
    slots: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Puts a thing into a free slot and says which.
    pub fn insert(&mut self, thing: T) -> usize {
        if let Some(slot) = self.free.pop() {
            self.slots[slot] = Some(thing);
            slot
        } else {
            self.slots.push(Some(thing));
            self.slots.len() - 1
        }
    }

    /// Takes the thing out of a slot.
    pub fn remove(&mut self, slot: usize) -> Option<T> {
        let thing = self.slots.get_mut(slot)?.take();
        if thing.is_some() {
            self.free.push(slot);
        }
        thing
    }

    /// The thing in a slot.
    pub fn get_mut(&mut self, slot: usize) -> Option<&mut T> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// How many things there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Everything that is in a slot.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_given_again() {
        let mut slots = Slots::default();
        let (a, b) = (slots.insert('a'), slots.insert('b'));
        assert_eq!(slots.remove(a), Some('a'));
        assert_eq!(slots.remove(a), None);
        assert_eq!(slots.insert('c'), a);
        assert_eq!(slots.iter().copied().collect::<String>(), "cb");
        assert_eq!(slots.remove(b), Some('b'));
        assert_eq!(slots.iter().count(), 1);
        assert_eq!(slots.remove(99), None);
    }
}
