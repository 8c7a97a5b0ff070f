//! What calls fail with.

use std::{collections::HashMap, error::Error as _, fmt, time::Duration};

use tonic::{Code, ConnectError, Status, TimeoutExpired};
use tonic_types::StatusExt;

pub use crate::v1::ErrorReason as Reason;

const DOMAIN: &str = "kvblock.v1";
const THEN: &str = "kvblock-then";
const RETRY_AFTER: &str = "kvblock-retry-after-ms";
const NO_STATUS: &str = "protocol error: missing grpc-status";

/// What to do after an error: the server says it with each of its own.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Then {
    /// Make the same call again, with the same `request_id`.
    Repeat,
    /// Attach again with the lease's epoch: the lease goes on.
    Resume,
    /// Use nothing that the engine held, and attach anew.
    LeaseLost,
    /// A repeat cannot help: the request or its caller is wrong, or somebody has to decide.
    GiveUp,
}

impl Then {
    /// The word of the trailer `kvblock-then`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Repeat => "repeat",
            Self::Resume => "resume",
            Self::LeaseLost => "lease_lost",
            Self::GiveUp => "give_up",
        }
    }

    fn of(word: &str) -> Option<Self> {
        [Self::Repeat, Self::Resume, Self::LeaseLost, Self::GiveUp]
            .into_iter()
            .find(|then| then.as_str() == word)
    }
}

/// A field of a request that cannot be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// Its path in the request.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// What a server, or gRPC on the way to it, answered.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerError {
    /// The gRPC status code.
    pub code: Code,
    /// Why; none when it does not come from a kvblock server, and `Unspecified` when this client
    /// does not know the reason.
    pub reason: Option<Reason>,
    /// The facts (field, value, limit, pool, ...) that belong to the reason.
    pub metadata: HashMap<String, String>,
    /// The fields that are wrong.
    pub violations: Vec<Violation>,
    /// When the server wants to be asked again, from now.
    pub retry_after: Option<Duration>,
    /// What to do next.
    pub then: Then,
    /// The text.
    pub message: String,
    /// Whether the call may have been carried out all the same; the same call with the same
    /// `request_id` finds out.
    pub fate_unknown: bool,
}

impl fmt::Display for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

/// Why a call failed; the text says what to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    /// A server, or gRPC on the way to it, answered an error.
    Server(Box<ServerError>),
    /// No answer came in time; whether the call was carried out is unknown.
    Deadline(String),
    /// The lease has ended without a detach: no block that was held under it is the engine's.
    LeaseLost {
        /// What has ended it.
        message: String,
        /// What the server said, unless it was this client's clock.
        server: Option<Box<ServerError>>,
    },
    /// The step before this one has no answer yet: `recover` gets it.
    Unanswered,
    /// The client or the session has ended.
    Closed(String),
    /// The program uses the client in a way that cannot work; nothing was sent.
    Usage(String),
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Server(error) => &error.message,
            Self::LeaseLost { message, .. } => message,
            Self::Unanswered => "the step before this one was not answered; recover answers it",
            Self::Deadline(message) | Self::Closed(message) | Self::Usage(message) => message,
        })
    }
}

impl Error {
    pub(crate) fn too_late(address: &str) -> Self {
        Self::Deadline(format!(
            "{address} did not answer in time; whether the call was carried out is unknown"
        ))
    }

    /// The connection or the stream has ended before the answer came.
    pub(crate) fn broken(message: String, fate_unknown: bool) -> Self {
        Self::Server(Box::new(ServerError {
            code: Code::Unavailable,
            reason: None,
            metadata: HashMap::new(),
            violations: Vec::new(),
            retry_after: None,
            then: Then::Repeat,
            message,
            fate_unknown,
        }))
    }

    pub(crate) fn unexpected(address: &str) -> Self {
        let message = format!("{address} answered something else than was asked");
        Self::of(Status::unknown(message), address)
    }

    /// What a failed call to the server at `address` means.
    pub(crate) fn of(status: Status, address: &str) -> Self {
        let trailer = |key| status.metadata().get(key).and_then(|value| value.to_str().ok());
        let said = trailer(THEN).and_then(Then::of);
        let local = made_by(&status);
        let code = match status.code() {
            // tonic's own words for a connection that broke: gRPC calls this UNAVAILABLE.
            Code::Unknown | Code::Internal | Code::Cancelled if local == Local::Broken => {
                Code::Unavailable
            }
            code => code,
        };
        if local == Local::TooLate || (code == Code::DeadlineExceeded && said.is_none()) {
            return Self::too_late(address);
        }
        let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
        let reason = info.as_ref().map(|info| {
            let name = format!("ERROR_REASON_{}", info.reason);
            Reason::from_str_name(&name).unwrap_or(Reason::Unspecified)
        });
        let by_code = match code {
            Code::Unavailable | Code::Cancelled => Then::Repeat,
            _ => Then::GiveUp,
        };
        let violations = status.get_details_bad_request().map(|bad| bad.field_violations);
        let violation = |one: tonic_types::FieldViolation| Violation {
            field: one.field,
            description: one.description,
        };
        let millis = trailer(RETRY_AFTER).and_then(|text| text.parse().ok());
        let message = match (reason, code) {
            (None, Code::Unavailable) => {
                format!("no server answers at {address}: {}", chain(&status))
            }
            (None, Code::Cancelled) => {
                format!("{address} has dropped the call: {}", status.message())
            }
            (_, code) if status.message().is_empty() => format!("{address} answered {code:?}"),
            _ => status.message().to_owned(),
        };
        Self::Server(Box::new(ServerError {
            code,
            reason,
            metadata: info.map(|info| info.metadata).unwrap_or_default(),
            violations: violations.into_iter().flatten().map(violation).collect(),
            retry_after: millis.map(Duration::from_millis),
            then: said.unwrap_or(by_code),
            message,
            fate_unknown: reason.is_none() && local != Local::NotSent,
        }))
    }

    /// What a server or gRPC answered, if it was one of them.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Server(error) => Some(error),
            Self::LeaseLost { server, .. } => server.as_deref(),
            _ => None,
        }
    }

    /// Whether the call may have been carried out all the same.
    pub fn fate_unknown(&self) -> bool {
        match self {
            Self::Server(error) => error.fate_unknown,
            Self::Deadline(_) => true,
            _ => false,
        }
    }

    pub(crate) fn then(&self) -> Option<Then> {
        match self {
            Self::Server(error) => Some(error.then),
            _ => None,
        }
    }

    /// In a session, an error that says so is the loss of its lease.
    pub(crate) fn under_lease(self) -> Self {
        match self {
            Self::Server(error) if error.then == Then::LeaseLost => {
                Self::LeaseLost { message: error.message.clone(), server: Some(error) }
            }
            other => other,
        }
    }
}

#[derive(PartialEq)]
enum Local {
    /// It came from a server, or from what stands before it.
    No,
    /// There was no connection to send it on.
    NotSent,
    /// The connection or the stream broke.
    Broken,
    TooLate,
}

/// Whether a status was made on this side: only then it has a source.
fn made_by(status: &Status) -> Local {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return Local::NotSent;
        }
        if error.is::<TimeoutExpired>() {
            return Local::TooLate;
        }
        cause = error.source();
    }
    if status.source().is_some() || status.message().starts_with(NO_STATUS) {
        return Local::Broken;
    }
    Local::No
}

/// The text of a status with what caused it, each part once.
fn chain(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}
