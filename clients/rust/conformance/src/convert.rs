//! Between protobuf's JSON form and the client's messages and errors.

use std::{path::Path, sync::LazyLock};

use kvblock::{Code, Error};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Value, json};

/// What a line failed with.
pub enum Failure {
    Client(Error),
    Usage(String),
    Unsupported,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

static MESSAGES: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../protos");
    let files = protox::compile(["kvblock/v1/kvblock.proto"], [protos]);
    DescriptorPool::from_file_descriptor_set(files.expect("the protos compile"))
        .expect("the protos are whole")
});

fn kind(name: &str) -> prost_reflect::MessageDescriptor {
    let full = format!("kvblock.v1.{name}");
    MESSAGES.get_message_by_name(&full).unwrap_or_else(|| panic!("{full} is in the protos"))
}

/// The message of that name from its JSON form; one that is not there is empty.
pub fn from_json<M: Message + Default>(name: &str, value: &Value) -> Result<M, Failure> {
    if value.is_null() {
        return Ok(M::default());
    }
    let wrong = |error: String| Failure::Usage(format!("no {name}: {error}"));
    let dynamic = DynamicMessage::deserialize(kind(name), value);
    dynamic
        .map_err(|error| wrong(error.to_string()))?
        .transcode_to()
        .map_err(|error| wrong(error.to_string()))
}

pub fn to_json<M: Message>(name: &str, message: &M) -> Value {
    let bytes = message.encode_to_vec();
    let dynamic = DynamicMessage::decode(kind(name), &*bytes).expect("a message decodes");
    let options = SerializeOptions::new().use_proto_field_name(true);
    dynamic
        .serialize_with_options(serde_json::value::Serializer, &options)
        .expect("a message has a JSON form")
}

impl Failure {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Client(Error::Server(_)) => "server",
            Self::Client(Error::Deadline(_)) => "deadline",
            Self::Client(Error::LeaseLost { .. }) => "lease_lost",
            Self::Client(Error::Unanswered) => "unanswered",
            Self::Client(Error::Closed(_)) => "closed",
            Self::Client(Error::Usage(_)) | Self::Usage(_) => "usage",
            Self::Unsupported => "unsupported",
        }
    }

    pub fn to_json(&self) -> Value {
        let error = match self {
            Self::Client(error) => error,
            Self::Usage(message) => return json!({ "kind": self.kind(), "message": message }),
            Self::Unsupported => return json!({ "kind": self.kind() }),
        };
        let mut told = json!({ "kind": self.kind(), "message": error.to_string() });
        if let Some(server) = error.server() {
            let reason =
                server.reason.map(|reason| reason.as_str_name().replace("ERROR_REASON_", ""));
            let fields: Vec<_> = server.violations.iter().map(|one| &one.field).collect();
            told["code"] = code(server.code).into();
            told["reason"] = reason.into();
            told["metadata"] = json!(server.metadata);
            told["violations"] = json!(fields);
            told["retry_after"] = server.retry_after.map(|time| time.as_secs_f64()).into();
            told["then"] = server.then.as_str().into();
            told["fate_unknown"] = server.fate_unknown.into();
        }
        told
    }
}

fn code(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
