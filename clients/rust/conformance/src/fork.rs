//! What a forked child finds when it uses the session of its parent, and ends it.

use std::{
    fs::File,
    future::Future,
    io::{Read, Write, pipe},
    os::fd::OwnedFd,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use kvblock::{Session, v1::EngineStep};

use crate::convert::Failure;

/// The session, which nothing else may have, and what its use in the child failed with.
pub fn use_in_child(session: Arc<Session>) -> Result<(Arc<Session>, String), Failure> {
    let failed =
        |what: &str| Failure::Usage(format!("{what}: {}", std::io::Error::last_os_error()));
    let session = Arc::try_unwrap(session);
    let session =
        session.map_err(|_| Failure::Usage("something else has the session".to_owned()))?;
    let (reader, writer) = pipe().map_err(|_| failed("no pipe"))?;
    // SAFETY: the child uses nothing of the runtime, and ends without running what others left.
    match unsafe { libc::fork() } {
        -1 => Err(failed("no child")),
        0 => {
            let told = try_step(&session);
            session.close();
            drop(session);
            let mut writer = File::from(OwnedFd::from(writer));
            let status = i32::from(writer.write_all(told.as_bytes()).is_err());
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(status) }
        }
        child => {
            drop(writer);
            let mut told = String::new();
            let mut reader = File::from(OwnedFd::from(reader));
            reader.read_to_string(&mut told).map_err(|_| failed("the child told nothing"))?;
            // SAFETY: waits for the child that was made above; null: its status is not asked for.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            Ok((Arc::new(session), told))
        }
    }
}

/// A use in a child must fail at once: nothing would ever wake it.
fn try_step(session: &Session) -> String {
    let step = pin!(session.step(EngineStep::default()));
    match step.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Err(error)) => Failure::Client(error).kind().to_owned(),
        Poll::Ready(Ok(_)) => "nothing: it made a step".to_owned(),
        Poll::Pending => "nothing: it waits".to_owned(),
    }
}
