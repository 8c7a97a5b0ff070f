//! The driver of the conformance tests: one JSON object a line on stdin, one on stdout.

mod convert;
mod fork;
mod objects;

use std::sync::LazyLock;

use opentelemetry_sdk::propagation::TraceContextPropagator;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, stdin, stdout};

use crate::{convert::Failure, objects::Driver};

static PROPAGATOR: LazyLock<TraceContextPropagator> = LazyLock::new(TraceContextPropagator::new);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let mut lines = BufReader::new(stdin()).lines();
    let mut out = stdout();
    let mut driver = Driver::default();
    while let Some(line) = lines.next_line().await? {
        let answer = match serde_json::from_str::<Value>(&line) {
            Ok(asked) => driver.carry_out(&asked).await,
            Err(error) => Err(Failure::Usage(format!("no JSON: {error}"))),
        };
        let answer = match answer {
            Ok(ok) => json!({ "ok": ok }),
            Err(failure) => json!({ "error": failure.to_json() }),
        };
        out.write_all(format!("{answer}\n").as_bytes()).await?;
        out.flush().await?;
    }
    Ok(())
}
