//! The block pool of an engine's scheduler, over a session.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, task::JoinHandle, time::timeout};

use crate::{
    Error, Session, StepOptions,
    retry::{backoff, may_repeat},
    session::Stepped,
    stash::{Exchange, Stash},
    v1::{EngineHints, EngineStep, Refusal, StepPolicy},
};

const READY_MAX: u32 = 8192;
/// While no iteration comes, half of the demand is forgotten each time that so long has passed.
const REST: Duration = Duration::from_secs(1);
const FOR_EVER: Duration = Duration::from_secs(3600 * 24 * 365);

/// What came of an acquire.
#[derive(Clone, Debug, PartialEq)]
pub enum Acquired {
    /// The blocks, to be used in this order.
    Granted(Vec<u32>),
    /// Nothing was taken.
    Refused(Refusal),
}

/// Hands out the blocks of one session from a stash: blocks that the engine has acquired and does not
/// use yet.
///
/// - [`acquire`](Self::acquire) and [`release`](Self::release) make no call as long as the stash has
///   what it takes. [`flush`](Self::flush) ends an iteration, and has the stash settled with the
///   server meanwhile, in one step, by a task of the runtime in which the pool was made.
/// - While no iteration comes, the stash goes back by and by; what others lack goes back at once.
/// - No block is handed out that the lease does not cover: every use fails then, and every block that
///   was handed out is lost.
/// - A step that was not answered stays open, and the next call or the task settles it: no block is
///   lost by it, and none is there twice.
/// - It alone makes the session's steps. Any number of tasks may share it.
/// - [`close`](Self::close) gives the stash back. A pool that is dropped leaves it to the session's
///   end. Blocks that are handed out stay the engine's.
pub struct BlockPool {
    inner: Arc<Inner>,
    worker: JoinHandle<()>,
}

struct Inner {
    session: Arc<Session>,
    issuable: u32,
    state: Mutex<State>,
    /// Held by who settles something with the server.
    calls: tokio::sync::Mutex<()>,
    wake: Notify,
    closed: AtomicBool,
}

struct State {
    stash: Stash,
    cached_blocks: u32,
    free_blocks: u32,
}

impl BlockPool {
    /// Begin with an empty stash. `ready_max`: how many blocks are fetched ahead at most; none: 8192, or
    /// an eighth of the pool where that is less.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], [`Error::LeaseLost`]: the session has ended. [`Error::Usage`]: no tokio
    /// runtime is here.
    pub fn new(session: Arc<Session>, ready_max: Option<u32>) -> Result<Self, Error> {
        session.check()?;
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|_| Error::Usage("a block pool is made within a tokio runtime".to_owned()))?;
        let attached = session.attached();
        let issuable = attached.total_blocks - attached.reserved_blocks;
        let ready_max = ready_max.unwrap_or(READY_MAX.min(issuable / 8));
        let stash = Stash::new(ready_max, issuable);
        let inner = Arc::new(Inner {
            session,
            issuable,
            state: Mutex::new(State { stash, cached_blocks: 0, free_blocks: 0 }),
            calls: tokio::sync::Mutex::new(()),
            wake: Notify::new(),
            closed: AtomicBool::new(false),
        });
        let worker = runtime.spawn(Arc::clone(&inner).work());
        Ok(Self { inner, worker })
    }

    /// Blocks that could be acquired now: those ready here, and those free at the last call.
    pub fn free_blocks(&self) -> u32 {
        let state = self.inner.state();
        state.stash.ready().saturating_add(state.free_blocks)
    }

    /// Blocks that can be acquired without a call.
    pub fn ready_blocks(&self) -> u32 {
        self.inner.state().stash.ready()
    }

    /// The part of the pool that is not free, from 0 to 1; by whomever it is used.
    pub fn usage(&self) -> f64 {
        1.0 - f64::from(self.free_blocks()) / f64::from(self.inner.issuable)
    }

    /// Idle blocks that the engine's cache should release, since others lack them. What is ready goes
    /// back without being asked for.
    pub fn owed_blocks(&self) -> u32 {
        let ready = self.ready_blocks();
        self.inner.session.owed_blocks().saturating_sub(ready)
    }

    /// Take so many blocks, all or none.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`]: `count` is 0. [`Error::LeaseLost`], [`Error::Closed`]. When more were needed
    /// than were ready, those of a step; nothing was taken.
    pub async fn acquire(&self, count: u32) -> Result<Acquired, Error> {
        self.inner.check()?;
        if count == 0 {
            return Err(Error::Usage("count must be at least 1".to_owned()));
        }
        let taken = self.inner.state().stash.take(count);
        match taken {
            Some(blocks) => Ok(Acquired::Granted(blocks)),
            None => self.inner.fetch(count).await,
        }
    }

    /// Give blocks back, in order: the last one is the first to be handed out again.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`]: one of them is not handed out, or is there twice; none is taken.
    /// [`Error::LeaseLost`], [`Error::Closed`].
    pub fn release(&self, blocks: &[u32]) -> Result<(), Error> {
        self.inner.check()?;
        self.inner.state().stash.give(blocks).map_err(Error::Usage)
    }

    /// End an iteration: what the stash needs, or does not need, is settled in the background.
    ///
    /// `cached_blocks`: how many of the blocks that are handed out the engine could release without
    /// preempting a sequence: its prefix cache.
    pub fn flush(&self, cached_blocks: u32) -> Result<(), Error> {
        if self.inner.end_iteration(cached_blocks)? {
            self.inner.wake.notify_one();
        }
        Ok(())
    }

    /// As [`flush`](Self::flush), and wait until it is settled.
    pub async fn settle(&self, cached_blocks: u32) -> Result<(), Error> {
        self.inner.end_iteration(cached_blocks)?;
        let _turn = self.inner.calls.lock().await;
        self.inner.settle().await
    }

    /// Give the stash back; every use fails from then on. Safe to repeat.
    pub async fn close(&self) -> Result<(), Error> {
        if self.inner.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        self.inner.wake.notify_one();
        let _turn = self.inner.calls.lock().await;
        self.inner.settle_open().await?;
        let exchange = self.inner.state().stash.empty();
        self.inner.exchange(exchange, 0).await.map(|_| ())
    }
}

impl Drop for BlockPool {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl Inner {
    fn check(&self) -> Result<(), Error> {
        self.session.check()?;
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::Closed("this block pool was closed".to_owned()));
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is called under the lock that could leave the stash half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an exchange is due.
    fn end_iteration(&self, cached_blocks: u32) -> Result<bool, Error> {
        self.check()?;
        let mut state = self.state();
        state.cached_blocks = cached_blocks;
        let due = state.stash.end_iteration(self.session.owed_blocks());
        self.session.say(state.hints(0, 0));
        Ok(due)
    }

    /// Take more blocks than are ready.
    async fn fetch(&self, count: u32) -> Result<Acquired, Error> {
        let _turn = self.calls.lock().await;
        let mut refused = None;
        loop {
            // It may have been closed while this waited for its turn.
            self.check()?;
            self.settle_open().await?;
            let exchange = {
                let stash = &mut self.state().stash;
                // What was on its way, or what was fetched, may be enough.
                if let Some(blocks) = stash.take(count) {
                    return Ok(Acquired::Granted(blocks));
                }
                if let Some(refusal) = refused {
                    return Ok(Acquired::Refused(Refusal { needed: count.into(), ..refusal }));
                }
                stash.begin(self.session.owed_blocks(), count)
            };
            refused = self.exchange(exchange, count).await?;
        }
    }

    /// Settle what is due, or let the stash become smaller as no iteration comes.
    async fn work(self: Arc<Self>) {
        let (mut pause, mut failures) = (REST, 0);
        while !self.closed.load(Ordering::SeqCst) {
            let woken = timeout(pause, self.wake.notified()).await.is_ok() || failures > 0;
            pause = match self.work_once(woken).await {
                Ok(()) => {
                    failures = 0;
                    REST
                }
                Err(error) if may_repeat(&error) || matches!(error, Error::Deadline(_)) => {
                    failures += 1;
                    backoff(failures)
                }
                // Whoever uses the pool next finds the same.
                Err(_) => FOR_EVER,
            };
        }
    }

    async fn work_once(&self, woken: bool) -> Result<(), Error> {
        let _turn = self.calls.lock().await;
        self.check()?;
        self.settle_open().await?;
        let due = woken || self.state().stash.rest();
        if due { self.settle().await } else { Ok(()) }
    }

    async fn settle(&self) -> Result<(), Error> {
        self.settle_open().await?;
        loop {
            let (exchange, is_open) = {
                let stash = &mut self.state().stash;
                (stash.begin(self.session.owed_blocks(), 0), stash.is_open())
            };
            let gave_back = !exchange.release.is_empty();
            if is_open {
                self.exchange(exchange, 0).await?;
            }
            // The answer may say that others lack what was idle before, too.
            let more = self.session.owed_blocks() > 0 && self.state().stash.ready() > 0;
            if !gave_back || !more {
                return Ok(());
            }
        }
    }

    /// Settle an exchange that has no answer yet, or that was never sent.
    async fn settle_open(&self) -> Result<(), Error> {
        if !self.state().stash.is_open() {
            return Ok(());
        }
        if self.session.unanswered() {
            let stepped = self.session.recover(None).await?;
            self.settled(&stepped, 0);
        } else {
            self.session.check()?;
            self.state().stash.undo();
        }
        Ok(())
    }

    async fn exchange(&self, exchange: Exchange, need: u32) -> Result<Option<Refusal>, Error> {
        let hints = self.state().hints(exchange.acquire, need);
        let step = EngineStep {
            release_block_numbers: exchange.release,
            acquire_num_blocks: exchange.acquire,
            policy: StepPolicy::InOrderUntilRefused.into(),
            ..EngineStep::default()
        };
        let options = StepOptions { hints: Some(hints), timeout: None };
        let stepped = self.session.step_with(step, options).await?;
        self.settled(&stepped, need);
        Ok(stepped.result.refusal)
    }

    fn settled(&self, stepped: &Stepped, need: u32) {
        let mut state = self.state();
        let result = &stepped.result;
        state.stash.settle(&result.acquired_block_numbers, need, result.free_blocks);
        state.free_blocks = result.free_blocks;
    }
}

impl State {
    /// What the engine lacks, and what is idle once so many were acquired and `need` taken.
    fn hints(&self, acquire: u32, need: u32) -> EngineHints {
        let ready = self.stash.ready();
        let lacked = if need > 0 { need } else { self.stash.lacked() };
        let idle = ready.saturating_add(acquire).saturating_sub(need);
        EngineHints {
            want_blocks: lacked.saturating_sub(ready).into(),
            idle_blocks: idle.saturating_add(self.cached_blocks),
        }
    }
}
