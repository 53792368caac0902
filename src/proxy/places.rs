//! So many may wait, and no more.

use std::cell::Cell;
use std::rc::Rc;

/// Places for those who wait on one worker.
#[derive(Debug)]
pub struct Places {
    count: usize,
    free: Rc<Cell<usize>>,
}

/// A place; free again when this is dropped.
#[derive(Debug)]
pub struct Place(Rc<Cell<usize>>);

impl Places {
    /// So many.
    pub fn new(count: usize) -> Self {
        Self { count, free: Rc::new(Cell::new(count)) }
    }

    /// Takes a place, if one is free.
    pub fn enter(&self) -> Option<Place> {
        let left = self.free.get().checked_sub(1)?;
        self.free.set(left);
        Some(Place(Rc::clone(&self.free)))
    }

    /// Takes a place, if one is free and fewer than `most` are taken.
    pub fn enter_among(&self, most: usize) -> Option<Place> {
        (self.count - self.free.get() < most).then(|| self.enter()).flatten()
    }

    /// How many are free.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.free.get()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}
