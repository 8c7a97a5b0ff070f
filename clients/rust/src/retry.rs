//! How often and when a call that found the server unavailable is made again.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::{Error, Then};

const FIRST_DELAY_MAX: Duration = Duration::from_millis(20);
const DELAY_MAX: Duration = Duration::from_millis(250);
/// Stands for a time that is never reached.
const FAR: Duration = Duration::from_secs(3600 * 24 * 365);

/// The moment so long after another one.
pub(crate) fn after(start: Instant, time: Duration) -> Instant {
    start + time.min(FAR)
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has random numbers");
    bytes
}

/// Wait until a flag is set, or nobody is left who could set it.
pub(crate) async fn set(mut flag: watch::Receiver<bool>) {
    // The answer keeps the flag locked: it must not outlive this.
    let _ = flag.wait_for(|set| *set).await;
}

/// How long to wait after so many tries in a row that failed: a random part of a growing time.
pub(crate) fn backoff(tries: u32) -> Duration {
    let limit = DELAY_MAX.min(FIRST_DELAY_MAX * 2_u32.pow(tries.saturating_sub(1).min(10)));
    limit.mul_f64(f64::from(u32::from_ne_bytes(random())) / f64::from(u32::MAX))
}

/// Whether another try can help.
pub(crate) fn may_repeat(failure: &Error) -> bool {
    matches!(failure.then(), Some(Then::Repeat | Then::Resume))
}

/// The tries of one call.
pub(crate) struct Retries {
    pub(crate) ends: Instant,
    enabled: bool,
    count: u32,
    failure: Option<Error>,
}

impl Retries {
    pub(crate) fn new(ends: Instant, enabled: bool) -> Self {
        Self { ends, enabled, count: 0, failure: None }
    }

    /// How long to wait before the next try, after one that failed; or what the call fails with.
    pub(crate) fn delay(&mut self, failure: Error) -> Result<Duration, Error> {
        if !may_repeat(&failure) {
            return Err(failure);
        }
        self.count += 1;
        let asked = failure.server().and_then(|error| error.retry_after);
        // A failure that leaves open whether the call was carried out is the one to tell of.
        let told = match self.failure.take() {
            Some(first) if first.fate_unknown() => first,
            _ => failure,
        };
        let delay = asked.unwrap_or_default().saturating_add(backoff(self.count));
        if !self.enabled || after(Instant::now(), delay) >= self.ends {
            return Err(told);
        }
        self.failure = Some(told);
        Ok(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(message: &str, fate_unknown: bool) -> Error {
        Error::broken(message.to_owned(), fate_unknown)
    }

    #[test]
    fn delays_grow_up_to_a_limit() {
        for (tries, limit) in [(1, 20), (2, 40), (3, 80), (4, 160), (5, 250), (1000, 250)] {
            let longest = (0..200).map(|_| backoff(tries)).max().unwrap();
            assert!(longest <= Duration::from_millis(limit), "{tries}: {longest:?}");
            assert!(longest > Duration::from_millis(limit / 2), "{tries}: {longest:?}");
        }
    }

    #[test]
    fn tells_of_the_first_try_whose_fate_is_unknown() {
        let mut retries = Retries::new(after(Instant::now(), FAR), true);
        for error in [failure("a", false), failure("b", true), failure("c", true)] {
            retries.delay(error).unwrap();
        }
        retries.ends = Instant::now();
        assert_eq!(retries.delay(failure("d", false)), Err(failure("b", true)));
        let mut retries = Retries::new(after(Instant::now(), FAR), true);
        retries.delay(failure("a", false)).unwrap();
        retries.ends = Instant::now();
        assert_eq!(retries.delay(failure("b", false)), Err(failure("b", false)));
    }

    #[test]
    fn does_not_repeat_what_cannot_help_nor_when_it_must_not() {
        let closed = Error::Closed("x".to_owned());
        let mut retries = Retries::new(after(Instant::now(), FAR), true);
        assert_eq!(retries.delay(closed.clone()), Err(closed));
        let mut retries = Retries::new(after(Instant::now(), FAR), false);
        assert_eq!(retries.delay(failure("a", true)), Err(failure("a", true)));
    }
}
