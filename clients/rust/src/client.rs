//! A connection to one server, and its calls.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    select,
    sync::watch,
    time::{sleep, sleep_until},
};
use tonic::{Request, Response, Status, transport::Channel};

use crate::{
    Error, Options,
    options::Dialer,
    retry::{Retries, after, random, set},
    trace,
    v1::{
        self, allocate_response::Result as Outcome, kv_block_service_client::KvBlockServiceClient,
    },
};

pub(crate) type Stub = KvBlockServiceClient<Channel>;

const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// The server learns of a call's deadline that much later, so that this client is the first to tell.
const SERVER_DEADLINE_MARGIN: Duration = Duration::from_millis(200);

/// What came of an allocation.
#[derive(Clone, Debug, PartialEq)]
pub enum Allocated {
    /// The blocks were taken.
    Granted(v1::Grant),
    /// Nothing was taken.
    Refused(v1::Refusal),
}

/// A connection to one server, and the pool and engine that its calls mean.
///
/// Clones share the connection, and any number of tasks may use them. A call that changes something
/// gets a `request_id` unless its request has one, and takes effect once, however often it is made
/// again: until its timeout, while the server is not to be had.
///
/// A request names a pool and an engine, or those of the options are meant.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    timeout: Duration,
}

struct Inner {
    options: Options,
    dialer: Dialer,
    channel: Channel,
    closed: watch::Sender<bool>,
    process: u32,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("Client");
        shown.field("address", &self.inner.dialer.address).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the server at `unix:PATH`, `unix:///PATH` or `HOST:PORT`. This does not wait for
    /// the server: the first call tells whether it is there.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`]: the address or the options cannot be used, or no tokio runtime is here.
    pub fn connect(address: &str, options: Options) -> Result<Self, Error> {
        let dialer = Dialer::new(address, &options)?;
        if Handle::try_current().is_err() {
            return Err(Error::Usage("a client is made within a tokio runtime".to_owned()));
        }
        let channel = dialer.dial();
        let timeout = options.timeout;
        let process = std::process::id();
        let closed = watch::Sender::new(false);
        Ok(Self { inner: Arc::new(Inner { options, dialer, channel, closed, process }), timeout })
    }

    /// The same connection, with another timeout for each call.
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { inner: Arc::clone(&self.inner), timeout }
    }

    /// End the calls of all clones; their sessions end, too, and leave their leases to run out.
    /// Safe to repeat.
    pub fn close(&self) {
        if self.is_here() {
            self.inner.closed.send_replace(true);
        }
    }

    /// Append blocks to a sequence's block table: all that were asked for, or none. With `max_wait`
    /// the call may take longer by that time.
    pub async fn allocate(&self, mut request: v1::AllocateRequest) -> Result<Allocated, Error> {
        self.mean(&mut request.pool, &mut request.engine);
        identify(&mut request.request_id);
        let wait = request.max_wait.and_then(|wait| Duration::try_from(wait).ok());
        let timeout = self.timeout.saturating_add(wait.unwrap_or_default());
        let send = |mut stub: Stub, request| async move { stub.allocate(request).await };
        match self.call(timeout, request, send).await?.0.result {
            Some(Outcome::Granted(grant)) => Ok(Allocated::Granted(grant)),
            Some(Outcome::Refused(refusal)) => Ok(Allocated::Refused(refusal)),
            None => Err(Error::unexpected(self.address())),
        }
    }

    /// Return all blocks of a sequence to the pool; an unknown sequence changes nothing.
    pub async fn free(&self, mut request: v1::FreeRequest) -> Result<(), Error> {
        self.mean(&mut request.pool, &mut request.engine);
        identify(&mut request.request_id);
        let send = |mut stub: Stub, request| async move { stub.free(request).await };
        self.call(self.timeout, request, send).await.map(|_| ())
    }

    /// Free a sequence and answer how many blocks went back; 0 for an unknown one.
    pub async fn free_returning_count(
        &self,
        mut request: v1::FreeReturningCountRequest,
    ) -> Result<u32, Error> {
        self.mean(&mut request.pool, &mut request.engine);
        identify(&mut request.request_id);
        let send =
            |mut stub: Stub, request| async move { stub.free_returning_count(request).await };
        Ok(self.call(self.timeout, request, send).await?.0.freed_blocks)
    }

    /// The blocks of a sequence in table order. An unknown one is `SequenceNotFound`.
    pub async fn get_block_table(
        &self,
        mut request: v1::GetBlockTableRequest,
    ) -> Result<v1::GetBlockTableResponse, Error> {
        self.mean(&mut request.pool, &mut request.engine);
        let send = |mut stub: Stub, request| async move { stub.get_block_table(request).await };
        Ok(self.call(self.timeout, request, send).await?.0)
    }

    /// Whether an allocation of so many blocks would be granted at this moment. Reserves nothing.
    pub async fn can_allocate(
        &self,
        mut request: v1::CanAllocateRequest,
    ) -> Result<v1::CanAllocateResponse, Error> {
        self.mean(&mut request.pool, &mut request.engine);
        let send = |mut stub: Stub, request| async move { stub.can_allocate(request).await };
        Ok(self.call(self.timeout, request, send).await?.0)
    }

    /// The state and the counters of pools, and of the engines that use them. Without names all are
    /// meant, whatever the options say.
    pub async fn stats(&self, request: v1::StatsRequest) -> Result<v1::StatsResponse, Error> {
        let send = |mut stub: Stub, request| async move { stub.stats(request).await };
        Ok(self.call(self.timeout, request, send).await?.0)
    }

    /// One engine iteration in one call. A loop of steps is quicker in a [`Session`](crate::Session).
    pub async fn step(&self, mut request: v1::StepRequest) -> Result<v1::StepResponse, Error> {
        self.mean(&mut request.pool, &mut request.engine);
        identify(&mut request.request_id);
        let send = |mut stub: Stub, request| async move { stub.step(request).await };
        Ok(self.call(self.timeout, request, send).await?.0)
    }

    /// Give an engine a lease, or resume the one it has. Nothing renews it: a
    /// [`Session`](crate::Session) does that by itself.
    pub async fn attach_engine(
        &self,
        mut request: v1::AttachEngineRequest,
    ) -> Result<v1::AttachEngineResponse, Error> {
        self.mean(&mut request.pool, &mut request.engine);
        identify(&mut request.request_id);
        let send = |mut stub: Stub, request| async move { stub.attach_engine(request).await };
        Ok(self.call(self.timeout, request, send).await?.0)
    }

    /// Let a lease last for a full TTL from now.
    pub async fn renew_lease(
        &self,
        request: v1::RenewLeaseRequest,
    ) -> Result<v1::RenewLeaseResponse, Error> {
        self.renew_timed(request, self.timeout).await.map(|(answer, _)| answer)
    }

    pub(crate) async fn renew_timed(
        &self,
        mut request: v1::RenewLeaseRequest,
        timeout: Duration,
    ) -> Result<(v1::RenewLeaseResponse, Instant), Error> {
        self.mean(&mut request.pool, &mut request.engine);
        let send = |mut stub: Stub, request| async move { stub.renew_lease(request).await };
        self.call(timeout, request, send).await
    }

    /// End a lease, free all of the engine's blocks, and answer how many these were.
    pub async fn detach_engine(&self, mut request: v1::DetachEngineRequest) -> Result<u32, Error> {
        self.mean(&mut request.pool, &mut request.engine);
        identify(&mut request.request_id);
        let send = |mut stub: Stub, request| async move { stub.detach_engine(request).await };
        Ok(self.call(self.timeout, request, send).await?.0.freed_blocks)
    }

    /// Make one call until it is answered; answers also when the try was sent that was answered.
    async fn call<Q, A, F, S>(
        &self,
        timeout: Duration,
        message: Q,
        send: F,
    ) -> Result<(A, Instant), Error>
    where
        Q: Clone,
        F: Fn(Stub, Request<Q>) -> S,
        S: Future<Output = Result<Response<A>, Status>>,
    {
        self.check()?;
        let mut retries = self.retries(timeout);
        let tries = async {
            loop {
                let mut request = self.request(message.clone());
                let sent = Instant::now();
                let left = retries.ends.saturating_duration_since(sent);
                request.set_timeout(left.saturating_add(SERVER_DEADLINE_MARGIN));
                match send(self.stub(), request).await {
                    Ok(answer) => return Ok((answer.into_inner(), sent)),
                    Err(status) => {
                        sleep(retries.delay(Error::of(status, self.address()))?).await;
                    }
                }
            }
        };
        let ends = after(Instant::now(), timeout);
        self.until(ends, tries).await
    }

    /// Wait for what ends with an answer, with its deadline, or with this client.
    pub(crate) async fn until<T>(
        &self,
        ends: Instant,
        what: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        select! {
            biased;
            answer = what => answer,
            // The sender lives as long as this client: an end of it cannot come first.
            () = set(self.closed()) => Err(ended()),
            () = sleep_until(ends.into()) => Err(Error::too_late(self.address())),
        }
    }

    pub(crate) fn retries(&self, timeout: Duration) -> Retries {
        Retries::new(after(Instant::now(), timeout), self.inner.options.retries)
    }

    /// Whether this client can be used here and now.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !self.is_here() {
            let message = "this client belongs to the process that forked; make a new one";
            return Err(Error::Usage(message.to_owned()));
        }
        if *self.inner.closed.borrow() { Err(ended()) } else { Ok(()) }
    }

    pub(crate) fn is_here(&self) -> bool {
        self.inner.process == std::process::id()
    }

    pub(crate) fn stub(&self) -> Stub {
        stub(self.inner.channel.clone())
    }

    pub(crate) fn request<Q>(&self, message: Q) -> Request<Q> {
        let mut request = authorized(message, &self.inner.dialer);
        trace::write(&trace::current(), request.metadata_mut());
        request
    }

    pub(crate) fn mean(&self, pool: &mut String, engine: &mut String) {
        for (name, usual) in
            [(pool, &self.inner.options.pool), (engine, &self.inner.options.engine)]
        {
            if name.is_empty() {
                name.clone_from(usual);
            }
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.inner.dialer.address
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.inner.dialer
    }

    pub(crate) fn closed(&self) -> watch::Receiver<bool> {
        self.inner.closed.subscribe()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.is_here() {
            // In a forked child nothing may touch a runtime whose threads are not there.
            std::mem::forget(Arc::clone(&self.inner));
        }
    }
}

pub(crate) fn stub(channel: Channel) -> Stub {
    Stub::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

pub(crate) fn authorized<Q>(message: Q, dialer: &Dialer) -> Request<Q> {
    let mut request = Request::new(message);
    if let Some(authorization) = &dialer.authorization {
        request.metadata_mut().insert("authorization", authorization.clone());
    }
    request
}

/// Give a change an id, unless it has one.
pub(crate) fn identify(request_id: &mut String) {
    if request_id.is_empty() {
        *request_id = format!("{:032x}", u128::from_ne_bytes(random()));
    }
}

fn ended() -> Error {
    Error::Closed("this client was closed".to_owned())
}
