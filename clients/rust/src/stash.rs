//! The stash of a block pool: blocks that an engine holds ready, without any I/O.
//!
//! - A block of the engine is ready here, handed out to the scheduler, or on its way back in the one
//!   exchange that is open; never two of these. Only ready blocks are handed out.
//! - The most recently released block is handed out first: its bytes are the warmest. What is given
//!   back is what was ready the longest.
//! - How many are held ready follows the demand: the deepest that an iteration has drawn, fading with
//!   each that needs less. In a wide band around it nothing is exchanged, so that a steady engine
//!   makes no call. Fetched ahead is at most half of what the pool had free at the last exchange.
//! - What others lack goes back first. After a refusal all that is ready goes back: two engines that
//!   each hold a part of what they need would wait for ever.

use std::collections::{HashSet, VecDeque};

const REFILL_ITERATIONS: u32 = 4;
const SPARE_ITERATIONS: u32 = 4;
const FADE: f64 = 16.0;

/// What one step is to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Exchange {
    pub(crate) acquire: u32,
    pub(crate) release: Vec<u32>,
}

impl Exchange {
    pub(crate) fn is_empty(&self) -> bool {
        self.acquire == 0 && self.release.is_empty()
    }
}

pub(crate) struct Stash {
    ready_max: u32,
    total: u32,
    free: Option<u32>,
    /// The last at the end.
    ready: VecDeque<u32>,
    handed_out: HashSet<u32>,
    open: Option<Exchange>,
    demand: f64,
    /// Blocks that a request was for that could not be served; and what the server was told of it.
    lacked: u32,
    told: u32,
    /// Of this iteration: how many were ready at its start, and at the least; what was exchanged
    /// meanwhile moves both.
    first: i64,
    lowest: i64,
    fetched: bool,
    refused: bool,
    ended_since_rest: bool,
}

impl Stash {
    /// `ready_max` bounds what is fetched ahead, `total` is what the engine can have in all.
    pub(crate) fn new(ready_max: u32, total: u32) -> Self {
        Self {
            ready_max,
            total,
            free: None,
            ready: VecDeque::new(),
            handed_out: HashSet::new(),
            open: None,
            demand: 0.0,
            lacked: 0,
            told: 0,
            first: 0,
            lowest: 0,
            fetched: false,
            refused: false,
            ended_since_rest: false,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(crate) fn ready(&self) -> u32 {
        // A stash holds blocks of one pool, whose numbers have 32 bits.
        self.ready.len() as u32
    }

    pub(crate) fn lacked(&self) -> u32 {
        self.lacked
    }

    /// Hand out so many blocks, the most recently released first; none when fewer are ready.
    pub(crate) fn take(&mut self, count: u32) -> Option<Vec<u32>> {
        let left = self.ready.len().checked_sub(count as usize)?;
        let blocks: Vec<u32> = self.ready.drain(left..).rev().collect();
        self.handed_out.extend(&blocks);
        self.lowest = self.lowest.min(left as i64);
        self.lacked = 0;
        Some(blocks)
    }

    /// Take blocks back, in order; or tell what is wrong with one of them, and take none.
    pub(crate) fn give(&mut self, blocks: &[u32]) -> Result<(), String> {
        for (row, block) in blocks.iter().enumerate() {
            if !self.handed_out.remove(block) {
                self.handed_out.extend(&blocks[..row]);
                let problem = match blocks[..row].iter().position(|before| before == block) {
                    Some(first) => format!("is a duplicate of entry {first}"),
                    None => "is not handed out".to_owned(),
                };
                return Err(format!("blocks[{row}]: {block} {problem}"));
            }
        }
        self.ready.extend(blocks);
        Ok(())
    }

    /// Note what the iteration needed; true: an exchange is due.
    pub(crate) fn end_iteration(&mut self, owed: u32) -> bool {
        let demand = (self.demand - self.demand / FADE).max(self.deepest() as f64);
        self.demand = if demand >= 1.0 { demand } else { 0.0 };
        self.first = self.ready.len() as i64;
        self.lowest = self.first;
        self.ended_since_rest = true;
        let fetched = std::mem::take(&mut self.fetched);
        if !self.refused {
            self.lacked = 0;
        }
        if self.open.is_some() {
            return false;
        }
        if self.told > self.lacked || (!self.ready.is_empty() && (owed > 0 || self.refused)) {
            return true;
        }
        !fetched && self.wanted(owed) != 0
    }

    /// Let the demand fade if no iteration has ended since the last call; true: as there.
    pub(crate) fn rest(&mut self) -> bool {
        if !std::mem::take(&mut self.ended_since_rest) {
            self.demand = (self.demand / 2.0).floor();
        }
        self.open.is_none() && self.wanted(1) < 0
    }

    /// What the next step is to do: fetch for a request of `need` blocks, and settle the rest. It is
    /// open until `settle` or `undo`, and there is one at a time. An empty one is open only if it has
    /// to tell that nothing is lacked any more.
    pub(crate) fn begin(&mut self, owed: u32, need: u32) -> Exchange {
        let ready = self.ready();
        let exchange = if need > ready {
            let drawn = (self.first - i64::from(ready) + i64::from(need)) as f64;
            let hold = owed > 0 || self.lacked > 0;
            let ahead = if hold { 0 } else { self.ahead(self.demand.max(drawn)) };
            let missing = need - ready;
            let room = self.room().saturating_sub(missing);
            self.fetched = true;
            Exchange { acquire: missing.saturating_add(ahead.min(room)), release: Vec::new() }
        } else {
            let back = if self.refused { ready } else { owed.min(ready) };
            self.refused = false;
            let wanted = self.wanted(owed);
            let release = self.oldest(i64::from(back).max(-wanted) as usize);
            Exchange { acquire: wanted.max(0) as u32, release }
        };
        if !exchange.is_empty() || self.told > self.lacked {
            self.open = Some(exchange.clone());
        }
        exchange
    }

    /// Close the exchange: these were acquired, and what was to be released is gone. The pool has
    /// `free` blocks left.
    pub(crate) fn settle(&mut self, acquired: &[u32], need: u32, free: u32) {
        self.free = Some(free);
        self.open = None;
        self.ready.extend(acquired.iter().rev());
        self.shift(acquired.len() as i64);
        if need > self.ready() {
            self.lacked = need;
            self.refused = true;
        }
        self.told = self.lacked;
    }

    /// Close the exchange, of which nothing was carried out.
    pub(crate) fn undo(&mut self) {
        let release = self.open.take().unwrap_or_default().release;
        self.shift(release.len() as i64);
        for block in release.into_iter().rev() {
            self.ready.push_front(block);
        }
    }

    /// Give back all that is ready; as `begin`.
    pub(crate) fn empty(&mut self) -> Exchange {
        let exchange = Exchange { acquire: 0, release: self.oldest(self.ready.len()) };
        self.open = Some(exchange.clone());
        exchange
    }

    fn deepest(&self) -> i64 {
        self.first - self.lowest
    }

    fn ahead(&self, demand: f64) -> u32 {
        let ahead = (demand as u32).saturating_mul(REFILL_ITERATIONS).min(self.ready_max);
        self.free.map_or(ahead, |free| ahead.min(free / 2))
    }

    /// Blocks that the engine could have besides those it has.
    fn room(&self) -> u32 {
        self.total.saturating_sub(self.ready()).saturating_sub(self.handed_out.len() as u32)
    }

    /// Blocks to fetch ahead; below 0: how many more than are needed are ready.
    fn wanted(&self, owed: u32) -> i64 {
        let ready = self.ready();
        let demand = self.demand.max(self.deepest() as f64) as u32;
        let most = demand.saturating_mul(REFILL_ITERATIONS + SPARE_ITERATIONS);
        let ahead = self.ahead(f64::from(demand));
        if ready > most.min(self.ready_max) {
            return i64::from(ahead) - i64::from(ready);
        }
        if owed > 0 || self.lacked > 0 || ready >= demand.min(self.ready_max) {
            return 0;
        }
        i64::from(ahead.saturating_sub(ready).min(self.room()))
    }

    fn oldest(&mut self, count: usize) -> Vec<u32> {
        let blocks: Vec<u32> = self.ready.drain(..count).collect();
        self.shift(-(blocks.len() as i64));
        blocks
    }

    fn shift(&mut self, count: i64) {
        self.first += count;
        self.lowest += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(blocks: &[u32]) -> Stash {
        let mut stash = Stash::new(100, 1000);
        let count = blocks.len() as u32;
        stash.begin(0, count);
        stash.settle(blocks, count, 1000);
        stash
    }

    #[test]
    fn hands_out_what_came_back_last() {
        let mut stash = filled(&[1, 2, 3]);
        assert_eq!(stash.take(4), None);
        assert_eq!(stash.take(3), Some(vec![1, 2, 3]));
        stash.give(&[2, 1]).unwrap();
        assert_eq!(stash.take(1), Some(vec![1]));
        assert_eq!(stash.take(2), None);
        assert_eq!(stash.take(1), Some(vec![2]));
    }

    #[test]
    fn takes_nothing_back_when_one_block_is_wrong() {
        let mut stash = filled(&[1, 2, 3]);
        stash.take(2).unwrap();
        assert_eq!(stash.give(&[1, 3]), Err("blocks[1]: 3 is not handed out".to_owned()));
        assert_eq!(stash.give(&[2, 2]), Err("blocks[1]: 2 is a duplicate of entry 0".to_owned()));
        assert_eq!(stash.ready(), 1);
        stash.give(&[1, 2]).unwrap();
        assert_eq!(stash.ready(), 3);
    }

    #[test]
    fn fetches_for_four_iterations_of_half_of_what_is_free() {
        let mut stash = Stash::new(100, 1000);
        assert_eq!(stash.begin(0, 3), Exchange { acquire: 15, release: vec![] });
        stash.settle(&(0..15).collect::<Vec<_>>(), 3, 8);
        stash.take(3).unwrap();
        assert!(!stash.end_iteration(0));
        stash.take(12).unwrap();
        assert!(stash.end_iteration(0));
        assert_eq!(stash.begin(0, 0), Exchange { acquire: 4, release: vec![] });
    }

    #[test]
    fn gives_back_what_others_lack_and_what_is_undone_stays() {
        let mut stash = filled(&[1, 2, 3, 4]);
        assert_eq!(stash.begin(2, 0).release, [4, 3, 2, 1]);
        stash.undo();
        assert_eq!(stash.take(4), Some(vec![1, 2, 3, 4]));
        stash.give(&[1, 2, 3, 4]).unwrap();
        assert!(stash.end_iteration(2));
        assert_eq!(stash.begin(2, 0).release, [1, 2]);
    }

    #[test]
    fn gives_everything_back_after_a_refusal_and_when_no_iteration_comes() {
        let mut stash = filled(&[1, 2]);
        stash.begin(0, 9);
        stash.settle(&[], 9, 0);
        assert_eq!(stash.lacked(), 9);
        assert!(stash.end_iteration(0));
        assert_eq!(stash.begin(0, 0).release.len(), 2);
        stash.settle(&[], 0, 2);
        let mut stash = filled(&[1, 2, 3, 4]);
        stash.take(4).unwrap();
        stash.give(&[1, 2, 3, 4]).unwrap();
        stash.end_iteration(0);
        let rests = (0..10).take_while(|_| !stash.rest()).count();
        assert!((1..10).contains(&rests), "{rests}");
    }
}
