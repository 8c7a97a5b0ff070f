//! Keeps a lease alive, on a thread with a runtime and a connection of its own: an engine that is
//! busy, or that blocks its runtime, keeps its lease.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    runtime, select,
    sync::watch,
    time::{sleep, sleep_until, timeout, timeout_at},
};
use tonic::transport::Channel;

use crate::{
    Error,
    client::{Stub, authorized, stub},
    lease::{LEAVE_TIMEOUT, Lease},
    options::Dialer,
    retry::{after, backoff, may_repeat, set},
};

const CALL_MIN: Duration = Duration::from_millis(50);

/// Start the thread, which ends with the lease, or with the client, whose `closed` this is.
pub(crate) fn start(
    lease: Arc<Lease>,
    dialer: Dialer,
    closed: watch::Receiver<bool>,
) -> Result<(), Error> {
    let failed = |error| Error::Usage(format!("the lease cannot be renewed here: {error}"));
    let own = runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let renewal = Renewal { lease, dialer, channel: None };
    let thread = std::thread::Builder::new().name("kvblock-renewal".to_owned());
    thread.spawn(move || own.block_on(renewal.run(closed))).map(|_| ()).map_err(failed)
}

struct Renewal {
    lease: Arc<Lease>,
    dialer: Dialer,
    channel: Option<Channel>,
}

impl Renewal {
    async fn run(mut self, closed: watch::Receiver<bool>) {
        let ended = set(self.lease.ended());
        select! {
            () = self.keep() => {}
            () = ended => {}
            // Also when the client is gone: its sessions keep it, so nobody is left to renew for.
            () = set(closed) => self.lease.release("its client was closed"),
        }
        if self.lease.is_left() {
            // Nobody is there to tell of a failure: the lease runs out then.
            let _ = timeout(LEAVE_TIMEOUT, self.detach()).await;
        }
    }

    /// Renew the lease until it ends.
    async fn keep(&mut self) {
        let mut failures = 0;
        while let Some(due) = self.lease.due() {
            if !self.lease.valid() {
                self.lease.error();
                return;
            }
            if due > Instant::now() {
                sleep_until(due.min(after(Instant::now(), self.lease.remaining())).into()).await;
                continue;
            }
            let Err(error) = self.renew().await else {
                failures = 0;
                continue;
            };
            if matches!(error, Error::LeaseLost { .. }) {
                self.lease.lose(error);
                return;
            }
            failures += 1;
            self.rest(&error, failures).await;
        }
    }

    async fn renew(&mut self) -> Result<(), Error> {
        let sent = Instant::now();
        // Half of what is left: there is time for another try on another connection.
        let ends = after(sent, CALL_MIN.max(self.lease.remaining() / 2));
        let request = authorized(self.lease.renewal(), &self.dialer);
        let mut stub = self.stub();
        let answer = match timeout_at(ends.into(), stub.renew_lease(request)).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return Err(Error::of(status, &self.dialer.address).under_lease()),
            Err(_) => return Err(Error::too_late(&self.dialer.address)),
        };
        let Some(granted) = answer.lease else {
            return Err(Error::unexpected(&self.dialer.address));
        };
        self.lease.owe(answer.owed_blocks);
        self.lease.renewed(sent, &granted)
    }

    async fn detach(&mut self) {
        for tries in 1.. {
            let request = authorized(self.lease.detach(), &self.dialer);
            let mut stub = self.stub();
            let Err(status) = stub.detach_engine(request).await else { return };
            let error = Error::of(status, &self.dialer.address);
            if !may_repeat(&error) {
                return;
            }
            self.rest(&error, tries).await;
        }
    }

    /// Wait before another try, which may need another connection.
    async fn rest(&mut self, error: &Error, failures: u32) {
        if error.server().is_none_or(|error| error.reason.is_none()) {
            self.channel = None;
        }
        let asked = error.server().and_then(|error| error.retry_after).unwrap_or_default();
        let pause = asked.saturating_add(backoff(failures));
        // While the lease lasts, there is another try before it ends.
        let left = self.lease.remaining();
        sleep(if left.is_zero() { pause } else { pause.min(left / 4) }).await;
    }

    fn stub(&mut self) -> Stub {
        stub(self.channel.get_or_insert_with(|| self.dialer.dial()).clone())
    }
}
