//! One engine's lease, and its steps on one stream.

use std::{
    future::Future,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{select, time::sleep};

use crate::{
    Arena, Client, Error, Reason, Then,
    client::identify,
    lease::Lease,
    renewal,
    retry::{Retries, after, may_repeat, set},
    stream::Stream,
    trace,
    v1::{
        EngineHints, EngineStep, SessionAttach, SessionAttached, SessionStep, StepResult,
        session_request::Message as Asked, session_response::Message as Answer,
    },
};

/// What came of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Stepped {
    /// What was freed, granted, refused and acquired.
    pub result: StepResult,
    /// How many of the engine's idle blocks others lack now.
    pub owed_blocks: u32,
}

/// What a step may have besides its work.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepOptions {
    /// What the engine lacks and could give back; none: as it said last.
    pub hints: Option<EngineHints>,
    /// How long the step may take; none: the timeout of the session's client.
    pub timeout: Option<Duration>,
}

/// One engine's loop under one lease; made by [`Client::attach`].
///
/// - The lease is renewed by a thread of its own, for as long as the session is there.
/// - One step at a time: another caller waits. When the stream breaks, the step is sent again on a new
///   one until its timeout, and takes effect once.
/// - A step without an answer, also one whose future was dropped, stays in flight: the next one fails
///   with [`Error::Unanswered`] until [`recover`](Self::recover) has its answer.
/// - Any other error that is answered to a step ends the session's steps; the lease is kept, and the
///   blocks stay held, until the session is detached or closed.
/// - A lost lease is final: every use fails with [`Error::LeaseLost`].
/// - Dropping a session detaches it, without waiting: the thread of its lease does that, for at most
///   2 seconds. A process that ends right then leaves the lease to run out; call
///   [`detach`](Self::detach) to wait for it, and to learn of an error.
/// - In a forked child it sends nothing, its use fails, and dropping it ends nothing.
pub struct Session {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    attached: SessionAttached,
    expect: Option<crate::v1::ExpectedGeometry>,
    lease: Arc<Lease>,
    /// Held by who steps, renews or detaches.
    turn: tokio::sync::Mutex<()>,
    steps: Mutex<Steps>,
}

struct Steps {
    stream: Option<Stream>,
    in_flight: Option<SessionStep>,
    last_step_id: u64,
    ended_by: Option<String>,
    /// Attaches without an answer: one that is late may yet end the stream after it.
    stray_attaches: u32,
}

/// A try of a step that failed.
struct Failed {
    error: Error,
    /// The step had been sent: the error is not that of the attach before it.
    of_step: bool,
}

impl Client {
    /// Attach an engine, and begin a session. `on_lost` is called once when the lease is lost, from
    /// the thread of its renewal or in the call that finds out; it must not panic.
    ///
    /// `recall` of the request has no effect. With an `epoch` the session goes on with that lease.
    ///
    /// # Errors
    ///
    /// [`Error::Server`]: `EngineAttached`, while another client has a lease under the name;
    /// `GeometryMismatch`, when the pool is not what is expected; `StaleEpoch`, when the lease to go
    /// on with has ended. [`Error::Deadline`], [`Error::Closed`], [`Error::Usage`].
    pub async fn attach(
        &self,
        mut request: SessionAttach,
        on_lost: impl FnOnce(&Error) + Send + 'static,
    ) -> Result<Session, Error> {
        self.check()?;
        self.mean(&mut request.pool, &mut request.engine);
        identify(&mut request.request_id);
        request.recall = false;
        let mut retries = self.retries(self.timeout());
        let mut stray_attaches = 0;
        let tries = async {
            loop {
                match Stream::open(self, request.clone()).await {
                    Ok(opened) => return Ok(opened),
                    Err(error) => {
                        stray_attaches += u32::from(error.fate_unknown());
                        sleep(retries.delay(error)?).await;
                    }
                }
            }
        };
        let ends = after(Instant::now(), self.timeout());
        let (stream, mut attached, sent) = self.until(ends, tries).await?;
        let Some(granted) = attached.lease else {
            return Err(Error::unexpected(self.address()));
        };
        let (pool, engine) = (attached.pool.clone(), attached.engine.clone());
        let lease = Arc::new(Lease::new(pool, engine, granted, sent, Box::new(on_lost)));
        renewal::start(Arc::clone(&lease), self.dialer().clone(), self.closed())?;
        let steps = Steps {
            stream: Some(stream),
            in_flight: None,
            last_step_id: attached.last_step_id,
            ended_by: None,
            stray_attaches,
        };
        attached.lease = Some(granted);
        let shared = Arc::new(Shared {
            client: self.clone(),
            attached,
            expect: request.expect,
            lease,
            turn: tokio::sync::Mutex::new(()),
            steps: Mutex::new(steps),
        });
        shared.lease.check()?;
        Ok(Session { shared })
    }
}

impl Session {
    /// What the server told when the session attached.
    pub fn attached(&self) -> &SessionAttached {
        &self.shared.attached
    }

    /// The epoch of the lease. Given to another attach, that goes on with the lease.
    pub fn epoch(&self) -> u64 {
        self.shared.lease.epoch
    }

    /// Whether the blocks are the engine's at this moment: to be asked right before KV memory is
    /// written. No call is made.
    pub fn lease_valid(&self) -> bool {
        self.shared.client.check().is_ok() && self.shared.lease.valid()
    }

    /// Whether steps can be made: the lease is valid, and no error has ended the session.
    pub fn is_open(&self) -> bool {
        self.lease_valid() && self.shared.steps().ended_by.is_none()
    }

    /// Whether a step has no answer yet: [`recover`](Self::recover) gets it.
    pub fn unanswered(&self) -> bool {
        self.is_open() && self.shared.steps().in_flight.is_some()
    }

    /// How many of the engine's idle blocks others lack, by the last answer.
    pub fn owed_blocks(&self) -> u32 {
        if self.shared.client.is_here() { self.shared.lease.owed_blocks() } else { 0 }
    }

    /// Why the session cannot be used, if it cannot.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.shared.client.check()?;
        self.shared.open_steps().map(|_| ())
    }

    /// Have renewals say this from now on.
    pub(crate) fn say(&self, hints: EngineHints) {
        self.shared.lease.say(hints);
    }

    /// Map the memory of the pool.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`]: the pool has none that can be mapped.
    pub fn arena(&self) -> Result<Arena, Error> {
        Arena::open(&self.shared.attached)
    }

    /// One engine iteration: what it gives back, then what it takes. What was refused is part of
    /// the result.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`], and [`Error::Server`] with `Then::Repeat`: no answer came in time, and the
    /// step stays in flight. Any other [`Error::Server`]: the step had no effect, and the session has
    /// ended. [`Error::Unanswered`], [`Error::LeaseLost`], [`Error::Closed`], [`Error::Usage`].
    pub async fn step(&self, step: EngineStep) -> Result<Stepped, Error> {
        self.step_with(step, StepOptions::default()).await
    }

    /// As [`step`](Self::step), with hints or with a timeout of its own.
    pub async fn step_with(
        &self,
        step: EngineStep,
        options: StepOptions,
    ) -> Result<Stepped, Error> {
        let shared = &*self.shared;
        let retries = shared.begin(options.timeout)?;
        let _turn = shared.turn(&retries).await?;
        let (step, stream) = {
            let mut steps = shared.open_steps()?;
            if steps.in_flight.is_some() {
                return Err(Error::Unanswered);
            }
            let step = SessionStep {
                step_id: steps.last_step_id + 1,
                step: Some(step),
                traceparent: trace::traceparent(),
                hints: options.hints,
            };
            steps.in_flight = Some(step.clone());
            (step, steps.stream.take())
        };
        if let Some(hints) = options.hints {
            shared.lease.say(hints);
        }
        shared.carry(step, stream, retries).await
    }

    /// Answer the step that has no answer yet: it is sent again, and takes effect once.
    ///
    /// `timeout` holds as for a step. Errors are those of a step; [`Error::Usage`]: every step was
    /// answered.
    pub async fn recover(&self, timeout: Option<Duration>) -> Result<Stepped, Error> {
        let shared = &*self.shared;
        let retries = shared.begin(timeout)?;
        let _turn = shared.turn(&retries).await?;
        let (step, stream) = {
            let mut steps = shared.open_steps()?;
            let Some(step) = steps.in_flight.clone() else {
                return Err(Error::Usage("every step of this session was answered".to_owned()));
            };
            (step, steps.stream.take())
        };
        drop(stream);
        shared.carry(step, None, retries).await
    }

    /// Renew the lease now, with the last hints, and answer how many of the engine's idle blocks
    /// others lack. Nobody has to call this to keep the lease: that is done in the background.
    pub async fn renew(&self) -> Result<u32, Error> {
        let shared = &*self.shared;
        let retries = shared.begin(None)?;
        let renewed = shared.client.renew_timed(shared.lease.renewal(), shared.client.timeout());
        let (answer, sent) = match shared.guard(retries.ends, renewed).await {
            Ok(renewed) => renewed,
            Err(error) => return Err(shared.lost_or(error)),
        };
        let granted = answer.lease.ok_or_else(|| Error::unexpected(shared.client.address()))?;
        shared.lease.renewed(sent, &granted)?;
        shared.lease.owe(answer.owed_blocks);
        Ok(answer.owed_blocks)
    }

    /// End the lease, free all of the engine's blocks, and answer how many these were. It ends a step
    /// that is running. It may be tried again when it was not answered.
    ///
    /// `timeout`: how long it may take; none: the timeout of the session's client.
    pub async fn detach(&self, timeout: Option<Duration>) -> Result<u32, Error> {
        let shared = &*self.shared;
        shared.client.check()?;
        let timeout = timeout.unwrap_or(shared.client.timeout());
        {
            let mut steps = shared.steps();
            if steps.ended_by.as_deref() != Some(DETACHING) {
                shared.lease.check()?;
                steps.ended_by = Some(DETACHING.to_owned());
            }
        }
        // The lease is not renewed any more, and its end is no loss.
        shared.lease.release(DETACHING);
        let ends = after(Instant::now(), timeout);
        let waiting = async { Ok(shared.turn.lock().await) };
        let _turn = shared.client.until(ends, waiting).await?;
        if shared.steps().ended_by.as_deref() == Some(DETACHED) {
            return Err(Error::Closed(format!("this session has ended: {DETACHED}")));
        }
        shared.steps().stream = None;
        let left = ends.saturating_duration_since(Instant::now());
        let detached = shared.client.with_timeout(left).detach_engine(shared.lease.detach()).await;
        let detached = detached.map_err(Error::under_lease);
        if matches!(&detached, Ok(_) | Err(Error::LeaseLost { .. })) {
            shared.steps().ended_by = Some(DETACHED.to_owned());
        }
        detached
    }

    /// End the stream and the renewal, and leave the lease to run out. Safe to repeat.
    pub fn close(&self) {
        if self.shared.client.is_here() {
            self.shared.lease.release("it was closed");
            self.shared.steps().stream = None;
        }
    }
}

const DETACHING: &str = "it was detached";
const DETACHED: &str = "it is detached";

impl Shared {
    /// Whether a call can be made, and until when it may be tried.
    fn begin(&self, timeout: Option<Duration>) -> Result<Retries, Error> {
        self.client.check()?;
        self.lease.check()?;
        Ok(self.client.retries(timeout.unwrap_or(self.client.timeout())))
    }

    async fn turn(&self, retries: &Retries) -> Result<tokio::sync::MutexGuard<'_, ()>, Error> {
        self.guard(retries.ends, async { Ok(self.turn.lock().await) }).await
    }

    /// The steps, if they can go on.
    fn open_steps(&self) -> Result<MutexGuard<'_, Steps>, Error> {
        self.lease.check()?;
        let steps = self.steps();
        match &steps.ended_by {
            Some(why) => Err(Error::Closed(format!("this session has ended: {why}"))),
            None => Ok(steps),
        }
    }

    /// Wait for what ends with an answer, with its deadline, or with the lease.
    async fn guard<T>(
        &self,
        ends: Instant,
        what: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        select! {
            biased;
            answer = self.client.until(ends, what) => answer,
            () = set(self.lease.ended()) => Err(self.lease.error()),
        }
    }

    /// Send a step until it is answered, and note what became of it.
    async fn carry(
        &self,
        step: SessionStep,
        mut stream: Option<Stream>,
        mut retries: Retries,
    ) -> Result<Stepped, Error> {
        let mut of_step = false;
        let ends = retries.ends;
        let tries = async {
            loop {
                let failed = match self.attempt(&step, stream.take()).await {
                    Ok(stepped) => return Ok(stepped),
                    Err(failed) => failed,
                };
                of_step = failed.of_step;
                sleep(retries.delay(failed.error)?).await;
            }
        };
        let failure = match self.guard(ends, tries).await {
            Ok(stepped) => return Ok(stepped),
            Err(failure) => self.lost_or(failure),
        };
        if of_step && matches!(failure, Error::Server(_)) && !may_repeat(&failure) {
            self.end(&failure);
        }
        // A lease that ended meanwhile is what there is to tell.
        match self.lease.check() {
            Err(lost @ Error::LeaseLost { .. }) => Err(lost),
            _ => Err(failure),
        }
    }

    async fn attempt(&self, step: &SessionStep, stream: Option<Stream>) -> Result<Stepped, Failed> {
        let mut stream = match stream {
            Some(stream) => stream,
            None => self.resume().await.map_err(|error| Failed { error, of_step: false })?,
        };
        let sent = Instant::now();
        let answered = stream.exchange(Asked::Step(step.clone()), &self.client).await;
        self.take(step, stream, sent, answered)
            .map_err(|error| Failed { error: self.unless_stray(error), of_step: true })
    }

    fn take(
        &self,
        step: &SessionStep,
        stream: Stream,
        sent: Instant,
        answered: Result<Answer, Error>,
    ) -> Result<Stepped, Error> {
        let unexpected = || Error::unexpected(self.client.address());
        let Answer::Stepped(stepped) = answered? else { return Err(unexpected()) };
        if stepped.step_id != step.step_id {
            return Err(unexpected());
        }
        let result = stepped.result.ok_or_else(unexpected)?;
        self.lease.confirm(sent)?;
        self.lease.owe(stepped.owed_blocks);
        let mut steps = self.steps();
        steps.stream = Some(stream);
        steps.in_flight = None;
        steps.last_step_id = step.step_id;
        Ok(Stepped { result, owed_blocks: stepped.owed_blocks })
    }

    /// Go on with the lease on a new stream.
    async fn resume(&self) -> Result<Stream, Error> {
        let attach = SessionAttach {
            pool: self.lease.pool.clone(),
            engine: self.lease.engine.clone(),
            epoch: self.lease.epoch,
            expect: self.expect.clone(),
            ..SessionAttach::default()
        };
        self.steps().stray_attaches += 1;
        let opened = Stream::open(&self.client, attach).await;
        if opened.as_ref().err().is_none_or(|error| !error.fate_unknown()) {
            self.steps().stray_attaches -= 1;
        }
        let (stream, attached, sent) = opened?;
        match attached.lease {
            Some(granted) if granted.epoch == self.lease.epoch => {
                self.lease.renewed(sent, &granted)?;
                Ok(stream)
            }
            _ => Err(Error::unexpected(self.client.address())),
        }
    }

    /// The stream was replaced by an attach of our own that was late: the lease goes on.
    fn unless_stray(&self, error: Error) -> Error {
        let mut steps = self.steps();
        match error {
            Error::Server(mut error)
                if error.reason == Some(Reason::SessionReplaced) && steps.stray_attaches > 0 =>
            {
                steps.stray_attaches -= 1;
                error.then = Then::Resume;
                Error::Server(error)
            }
            other => other,
        }
    }

    fn lost_or(&self, error: Error) -> Error {
        match error.under_lease() {
            lost @ Error::LeaseLost { .. } => self.lease.lose(lost),
            other => other,
        }
    }

    /// No step can be made any more.
    fn end(&self, error: &Error) {
        self.steps().ended_by = Some(error.to_string());
        if error.server().is_some_and(|error| error.reason == Some(Reason::SessionReplaced)) {
            // The lease and its blocks are those of who has the other stream.
            self.lease.release(&error.to_string());
        }
    }

    fn steps(&self) -> MutexGuard<'_, Steps> {
        // Nothing is called under the lock that could leave the steps half written.
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.shared.client.is_here() {
            self.shared.lease.leave("it was dropped");
        } else {
            // In a forked child nothing may touch a runtime whose threads are not there.
            mem::forget(Arc::clone(&self.shared));
        }
    }
}
