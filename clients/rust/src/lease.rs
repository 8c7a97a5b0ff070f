//! A lease as far as this process can tell.
//!
//! It is valid for one TTL from the moment at which the last message was sent that was answered
//! under it. The server counts from when it carried the message out, which is later: so here it ends
//! before any of its blocks can have another owner.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::{
    Error,
    retry::after,
    v1::{DetachEngineRequest, EngineHints, Lease as Granted, RenewLeaseRequest},
};

pub(crate) type OnLost = Box<dyn FnOnce(&Error) + Send>;

/// How long the detach may take of a session that goes out of scope.
pub(crate) const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) struct Lease {
    pub(crate) pool: String,
    pub(crate) engine: String,
    pub(crate) epoch: u64,
    /// The same for all detaches, which so takes effect once.
    pub(crate) detach_id: String,
    state: Mutex<State>,
    ended: watch::Sender<bool>,
}

struct State {
    confirmed: Instant,
    ttl: Duration,
    renew_after: Duration,
    end: Option<Error>,
    /// Detach when the renewal's thread ends.
    leave: bool,
    on_lost: Option<OnLost>,
    hints: Option<EngineHints>,
    owed_blocks: u32,
}

impl Lease {
    pub(crate) fn new(
        pool: String,
        engine: String,
        granted: Granted,
        sent: Instant,
        on_lost: OnLost,
    ) -> Self {
        let ttl = length(granted.ttl);
        let renew_after = granted.renew_after.map_or(ttl / 3, |time| length(Some(time)));
        let state = State {
            confirmed: sent,
            ttl,
            renew_after,
            end: None,
            leave: false,
            on_lost: Some(on_lost),
            hints: None,
            owed_blocks: 0,
        };
        let mut detach_id = String::new();
        crate::client::identify(&mut detach_id);
        let (state, ended) = (Mutex::new(state), watch::Sender::new(false));
        Self { pool, engine, epoch: granted.epoch, detach_id, state, ended }
    }

    /// Whether it has neither ended nor run out.
    pub(crate) fn valid(&self) -> bool {
        self.remaining() > Duration::ZERO
    }

    /// For how long it is valid unless it is renewed.
    pub(crate) fn remaining(&self) -> Duration {
        let state = self.state();
        if state.end.is_some() {
            return Duration::ZERO;
        }
        after(state.confirmed, state.ttl).saturating_duration_since(Instant::now())
    }

    /// When it has to be renewed; none once it has ended.
    pub(crate) fn due(&self) -> Option<Instant> {
        let state = self.state();
        state.end.is_none().then(|| after(state.confirmed, state.renew_after))
    }

    /// Why it cannot be used, if it cannot.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.valid() { Ok(()) } else { Err(self.error()) }
    }

    /// Why it is not valid; one that ran out is lost by this.
    pub(crate) fn error(&self) -> Error {
        let (engine, ttl) = (&self.engine, self.state().ttl);
        let message = format!(
            "the lease of engine {engine:?} was not renewed within its {ttl:?}; its blocks may have \
             new owners, attach again"
        );
        self.lose(Error::LeaseLost { message, server: None })
    }

    /// A message under it that was sent at that moment has been answered; an error when the lease
    /// has ended meanwhile, and what was answered cannot be used.
    pub(crate) fn confirm(&self, sent: Instant) -> Result<(), Error> {
        {
            let mut state = self.state();
            state.confirmed = state.confirmed.max(sent);
        }
        self.check()
    }

    /// As `confirm`, by an answer that tells the TTL.
    pub(crate) fn renewed(&self, sent: Instant, granted: &Granted) -> Result<(), Error> {
        self.state().ttl = length(granted.ttl);
        self.confirm(sent)
    }

    /// It has ended, and not by us, unless it has ended before; answers what has ended it.
    pub(crate) fn lose(&self, error: Error) -> Error {
        let (error, on_lost) = {
            let mut state = self.state();
            match &state.end {
                Some(before) => (before.clone(), None),
                None => {
                    state.end = Some(error.clone());
                    (error, state.on_lost.take())
                }
            }
        };
        self.ended.send_replace(true);
        if let Some(on_lost) = on_lost {
            on_lost(&error);
        }
        error
    }

    /// It is not renewed any more, and its end is no loss.
    pub(crate) fn release(&self, why: &str) {
        self.end_by_us(why, false);
    }

    /// As `release`, and the renewal's thread detaches it.
    pub(crate) fn leave(&self, why: &str) {
        self.end_by_us(why, true);
    }

    fn end_by_us(&self, why: &str, leave: bool) {
        {
            let mut state = self.state();
            if state.end.is_none() {
                state.end = Some(Error::Closed(format!("this session has ended: {why}")));
                state.leave = leave;
                state.on_lost = None;
            }
        }
        self.ended.send_replace(true);
    }

    pub(crate) fn is_left(&self) -> bool {
        self.state().leave
    }

    pub(crate) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    pub(crate) fn say(&self, hints: EngineHints) {
        self.state().hints = Some(hints);
    }

    pub(crate) fn owe(&self, owed_blocks: u32) {
        self.state().owed_blocks = owed_blocks;
    }

    pub(crate) fn owed_blocks(&self) -> u32 {
        self.state().owed_blocks
    }

    pub(crate) fn renewal(&self) -> RenewLeaseRequest {
        RenewLeaseRequest {
            pool: self.pool.clone(),
            engine: self.engine.clone(),
            epoch: self.epoch,
            hints: self.state().hints,
        }
    }

    pub(crate) fn detach(&self) -> DetachEngineRequest {
        DetachEngineRequest {
            pool: self.pool.clone(),
            engine: self.engine.clone(),
            epoch: self.epoch,
            request_id: self.detach_id.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is called under the lock that could leave the state half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn length(time: Option<prost_types::Duration>) -> Duration {
    time.and_then(|time| Duration::try_from(time).ok()).unwrap_or_default()
}
