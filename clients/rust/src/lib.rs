#![doc = include_str!("../README.md")]

mod address;
mod arena;
mod block_pool;
mod client;
mod error;
mod lease;
mod options;
mod renewal;
mod retry;
mod session;
mod stash;
mod stream;
mod trace;

/// The messages of `kvblock.v1`, and the stock stubs that this client is made on.
#[allow(missing_docs, clippy::all, rustdoc::all)]
#[rustfmt::skip]
#[path = "generated/kvblock.v1.rs"]
pub mod v1;

pub use arena::Arena;
pub use block_pool::{Acquired, BlockPool};
pub use client::{Allocated, Client};
pub use error::{Error, Reason, ServerError, Then, Violation};
pub use options::{Options, Tls};
pub use session::{Session, StepOptions, Stepped};
pub use tonic::Code;
