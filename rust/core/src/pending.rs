//! Who waits for which answer, and until when. The core never wakes anybody: it hands the waiter back.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use foldhash::fast::RandomState;

/// The messages sent and not answered, by their ids.
#[derive(Debug)]
pub struct Pending<W> {
    calls: HashMap<Key, Call<W>, RandomState>,
    earliest: f64,
    sequence: u64,
}

#[derive(Debug)]
struct Call<W> {
    waiter: W,
    deadline: f64,
    sequence: u64,
}

/// A message's id and, behind it, its task id: one allocation, and only the first part is the key.
#[derive(Debug)]
pub struct Key {
    text: Box<str>,
    id_length: usize,
}

impl Key {
    fn new(id: &str, task_id: &str) -> Self {
        let text = if task_id.is_empty() { id.into() } else { [id, task_id].concat().into() };
        Self { text, id_length: id.len() }
    }

    /// The message's id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.text.get(..self.id_length).unwrap_or_default()
    }

    /// The message's task id.
    #[must_use]
    pub fn task_id(&self) -> &str {
        self.text.get(self.id_length..).unwrap_or_default()
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        self.id()
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Key {}

impl<W> Default for Pending<W> {
    fn default() -> Self {
        Self { calls: HashMap::default(), earliest: f64::INFINITY, sequence: 0 }
    }
}

impl<W> Pending<W> {
    /// Whether a message with this id awaits its answer.
    #[must_use]
    pub fn contains(&self, id: &str) -> bool {
        self.calls.contains_key(id)
    }

    /// Adds a call whose id is not there yet.
    pub fn insert(&mut self, id: &str, task_id: &str, waiter: W, deadline: f64) {
        self.earliest = self.earliest.min(deadline);
        self.sequence += 1;
        self.calls.insert(Key::new(id, task_id), Call { waiter, deadline, sequence: self.sequence });
    }

    /// A call that goes on: who waits, and the message's ids.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<(&W, &Key)> {
        self.calls.get_key_value(id).map(|(key, call)| (&call.waiter, key))
    }

    /// Takes a call out: who waits, and the message's ids.
    pub fn remove(&mut self, id: &str) -> Option<(W, Key)> {
        let (key, call) = self.calls.remove_entry(id)?;
        if self.calls.is_empty() {
            self.rest();
        }
        Some((call.waiter, key))
    }

    /// Takes out the waiters whose deadline is `now` or before, in the order in which their messages were sent.
    pub fn expire(&mut self, now: f64) -> Vec<W> {
        if now < self.earliest {
            return Vec::new();
        }
        let due = |(_, call): &(&Key, &Call<W>)| call.deadline <= now;
        let ids: Vec<String> = self.calls.iter().filter(due).map(|(key, _)| key.id().to_owned()).collect();
        let expired = ids.iter().filter_map(|id| self.calls.remove(id.as_str())).collect();
        self.earliest = self.calls.values().map(|call| call.deadline).fold(f64::INFINITY, f64::min);
        in_sending_order(expired)
    }

    /// Takes out all waiters, in the order in which their messages were sent.
    pub fn abandon(&mut self) -> Vec<W> {
        let all = std::mem::take(&mut self.calls).into_values().collect();
        self.earliest = f64::INFINITY;
        in_sending_order(all)
    }

    /// A lower bound of all deadlines; infinite when there is none. Not raised when a call is answered: that
    /// would cost a heap, and the early look that it spares is one scan.
    #[must_use]
    pub const fn earliest(&self) -> f64 {
        self.earliest
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Who waits, in no order.
    pub fn waiters(&self) -> impl Iterator<Item = &W> {
        self.calls.values().map(|call| &call.waiter)
    }

    /// Nobody waits: no deadline is left, and a table that has been large gives its memory back.
    fn rest(&mut self) {
        self.earliest = f64::INFINITY;
        if self.calls.capacity() > KEPT {
            self.calls = HashMap::default();
        }
    }
}

fn in_sending_order<W>(mut calls: Vec<Call<W>>) -> Vec<W> {
    calls.sort_unstable_by_key(|call| call.sequence);
    calls.into_iter().map(|call| call.waiter).collect()
}

/// Calls for which room is kept when nobody waits; 1,792 is a full table of 2,048 places.
const KEPT: usize = 1792;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_with_and_without_a_task_id() {
        let mut pending = Pending::default();
        pending.insert("a", "task", 1, 9.0);
        pending.insert("at", "", 2, 9.0);
        assert!(pending.contains("a") && pending.contains("at") && !pending.contains("atask"));
        let (waiter, key) = pending.remove("a").unwrap();
        assert_eq!((waiter, key.id(), key.task_id()), (1, "a", "task"));
        assert!(pending.remove("a").is_none());
        assert!(!pending.is_empty());
        assert_eq!(pending.remove("at").unwrap().1.task_id(), "");
        assert!(pending.is_empty());
    }

    #[test]
    fn a_call_is_its_id() {
        assert!(Key::new("a", "task") == Key::new("a", ""));
        assert!(Key::new("a", "") != Key::new("b", ""));
    }

    #[test]
    fn tells_who_waits() {
        let mut pending = Pending::default();
        for number in 0..3 {
            pending.insert(&number.to_string(), "", number, 9.0);
        }
        pending.remove("1");
        let mut waiters: Vec<_> = pending.waiters().copied().collect();
        waiters.sort_unstable();
        assert_eq!(waiters, [0, 2]);
    }

    #[test]
    fn expires_what_is_due_in_sending_order() {
        let mut pending = Pending::default();
        for number in 0..100_u32 {
            pending.insert(&format!("m-{number}"), "", number, f64::from(number % 10));
        }
        assert!(pending.earliest() <= 0.0);
        assert_eq!(pending.expire(0.0), [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]);
        assert!(pending.expire(0.5).is_empty());
        assert_eq!(pending.earliest().to_bits(), 1.0_f64.to_bits());
        assert_eq!(pending.expire(8.0).len(), 80);
        assert_eq!(pending.abandon(), [9, 19, 29, 39, 49, 59, 69, 79, 89, 99]);
        assert!(pending.is_empty() && pending.earliest().is_infinite());
    }

    #[test]
    fn abandons_in_sending_order_whatever_was_removed() {
        let mut pending = Pending::default();
        for number in 0..3_000 {
            pending.insert(&number.to_string(), "", number, f64::INFINITY);
        }
        assert!(pending.remove("1").is_some());
        let all = pending.abandon();
        assert_eq!(all.len(), 2_999);
        assert_eq!(all[..3], [0, 2, 3]);
    }

    #[test]
    fn an_empty_table_forgets_deadlines_and_gives_memory_back() {
        let mut pending = Pending::default();
        for number in 0..3_000 {
            pending.insert(&number.to_string(), "", (), 5.0);
        }
        for number in 0..3_000 {
            pending.remove(&number.to_string());
        }
        assert!(pending.earliest().is_infinite());
        assert!(pending.calls.capacity() < 10);
    }
}
