//! The objects that lines name, and what is done with them.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use kvblock::{
    Acquired, Allocated, Arena, BlockPool, Client, Options, Session, StepOptions, Stepped, Tls,
};
use opentelemetry::{Context, context::FutureExt, propagation::TextMapPropagator};
use serde_json::{Value, json};

use crate::{
    PROPAGATOR,
    convert::{Failure, from_json, to_json},
    fork,
};

type Outcome = Result<Value, Failure>;

struct Attached {
    session: Arc<Session>,
    lost: Arc<AtomicU32>,
}

#[derive(Default)]
pub struct Driver {
    clients: HashMap<String, Client>,
    sessions: HashMap<String, Attached>,
    arenas: HashMap<String, Arena>,
    block_pools: HashMap<String, BlockPool>,
}

impl Driver {
    pub async fn carry_out(&mut self, asked: &Value) -> Outcome {
        let (on, name) = (text(asked, "on"), text(asked, "as"));
        match asked["do"].as_str() {
            Some("connect") => {
                let client = Client::connect(&text(asked, "address"), options(asked))?;
                self.clients.insert(name, client);
                Ok(json!({}))
            }
            Some("call") => {
                let client = with_timeout(named(&self.clients, &on)?, asked);
                call(&client, asked).with_context(context(asked)).await
            }
            Some("attach") => self.attach(&on, name, asked).await,
            Some("step") => {
                let session = &named(&self.sessions, &on)?.session;
                let step = from_json("EngineStep", &asked["step"])?;
                let hints = match &asked["hints"] {
                    Value::Null => None,
                    hints => Some(from_json("EngineHints", hints)?),
                };
                let options = StepOptions { hints, timeout: timeout(asked) };
                let stepped = session.step_with(step, options).with_context(context(asked)).await?;
                Ok(stepped_json(&stepped))
            }
            Some("recover") => {
                let session = &named(&self.sessions, &on)?.session;
                Ok(stepped_json(&session.recover(timeout(asked)).await?))
            }
            Some("renew") => {
                named(&self.sessions, &on)?.session.renew().await?;
                Ok(json!({}))
            }
            Some("detach") => {
                let freed = named(&self.sessions, &on)?.session.detach(timeout(asked)).await?;
                Ok(json!({ "freed_blocks": freed }))
            }
            Some("close") => {
                match self.sessions.get(&on) {
                    Some(attached) => attached.session.close(),
                    None => named(&self.clients, &on)?.close(),
                }
                Ok(json!({}))
            }
            Some("state") => self.state(&on),
            Some("arena") => {
                let arena = named(&self.sessions, &on)?.session.arena()?;
                let told = json!({
                    "piece_bytes": arena.piece_bytes(),
                    "total_blocks": arena.total_blocks(),
                    "regions": arena.regions(),
                });
                self.arenas.insert(name, arena);
                Ok(told)
            }
            Some("write") => {
                let bytes = unhex(&text(asked, "bytes"))?;
                let arena = named(&self.arenas, &on)?;
                let [block, region, at] = place(asked)?;
                arena.write(block, region, at as usize, &bytes)?;
                Ok(json!({}))
            }
            Some("read") => {
                let mut bytes = vec![0; number(asked, "count")? as usize];
                let arena = named(&self.arenas, &on)?;
                let [block, region, at] = place(asked)?;
                arena.read(block, region, at as usize, &mut bytes)?;
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                Ok(json!({ "bytes": hex }))
            }
            Some("block_pool") => {
                let session = Arc::clone(&named(&self.sessions, &on)?.session);
                self.block_pools.insert(name, BlockPool::new(session, None)?);
                Ok(json!({}))
            }
            Some("acquire") => {
                let pool = named(&self.block_pools, &on)?;
                Ok(match pool.acquire(number(asked, "count")?).await? {
                    Acquired::Granted(blocks) => json!({ "blocks": blocks }),
                    Acquired::Refused(refusal) => {
                        json!({ "refused": to_json("Refusal", &refusal) })
                    }
                })
            }
            Some("release") => {
                let blocks: Vec<u32> = serde_json::from_value(asked["blocks"].clone())
                    .map_err(|error| Failure::Usage(format!("blocks: {error}")))?;
                named(&self.block_pools, &on)?.release(&blocks)?;
                Ok(json!({}))
            }
            Some("flush") => {
                named(&self.block_pools, &on)?.settle(0).await?;
                Ok(json!({}))
            }
            Some("counts") => {
                let pool = named(&self.block_pools, &on)?;
                Ok(json!({ "ready": pool.ready_blocks(), "free": pool.free_blocks() }))
            }
            Some("fork") => {
                let attached = self.sessions.remove(&on);
                let attached = attached.ok_or_else(|| unknown(&on))?;
                let (session, child) = fork::use_in_child(attached.session)?;
                self.sessions.insert(on, Attached { session, lost: attached.lost });
                Ok(json!({ "child": child }))
            }
            _ => Err(Failure::Unsupported),
        }
    }

    async fn attach(&mut self, on: &str, name: String, asked: &Value) -> Outcome {
        let client = with_timeout(named(&self.clients, on)?, asked);
        let request = from_json("SessionAttach", &asked["request"])?;
        let lost = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&lost);
        let on_lost = move |_: &kvblock::Error| {
            count.fetch_add(1, Ordering::SeqCst);
        };
        let session = client.attach(request, on_lost).with_context(context(asked)).await?;
        let told = to_json("SessionAttached", session.attached());
        self.sessions.insert(name, Attached { session: Arc::new(session), lost });
        Ok(told)
    }

    fn state(&self, on: &str) -> Outcome {
        let Attached { session, lost } = named(&self.sessions, on)?;
        Ok(json!({
            "attached": session.is_open(),
            "lease_valid": session.lease_valid(),
            "unanswered": session.unanswered(),
            "lost": lost.load(Ordering::SeqCst),
            "epoch": session.epoch(),
        }))
    }
}

/// Call a method of a client, with its request and answer as JSON.
macro_rules! method {
    ($client:ident, $asked:ident, $name:literal, $method:ident, $wrap:expr) => {{
        let request = from_json(concat!($name, "Request"), &$asked["request"])?;
        let answer = $client.$method(request).await?;
        Ok(to_json(concat!($name, "Response"), &$wrap(answer)))
    }};
}

async fn call(client: &Client, asked: &Value) -> Outcome {
    use kvblock::v1::{self, allocate_response::Result as Result_};
    match asked["method"].as_str() {
        Some("Allocate") => method!(client, asked, "Allocate", allocate, |answer| {
            let result = match answer {
                Allocated::Granted(grant) => Result_::Granted(grant),
                Allocated::Refused(refusal) => Result_::Refused(refusal),
            };
            v1::AllocateResponse { result: Some(result) }
        }),
        Some("Free") => method!(client, asked, "Free", free, |()| v1::FreeResponse {}),
        Some("FreeReturningCount") => {
            method!(client, asked, "FreeReturningCount", free_returning_count, |freed_blocks| {
                v1::FreeReturningCountResponse { freed_blocks }
            })
        }
        Some("GetBlockTable") => method!(client, asked, "GetBlockTable", get_block_table, same),
        Some("CanAllocate") => method!(client, asked, "CanAllocate", can_allocate, same),
        Some("Stats") => method!(client, asked, "Stats", stats, same),
        Some("Step") => method!(client, asked, "Step", step, same),
        Some("AttachEngine") => method!(client, asked, "AttachEngine", attach_engine, same),
        Some("RenewLease") => method!(client, asked, "RenewLease", renew_lease, same),
        Some("DetachEngine") => {
            method!(client, asked, "DetachEngine", detach_engine, |freed_blocks| {
                v1::DetachEngineResponse { freed_blocks }
            })
        }
        _ => Err(Failure::Unsupported),
    }
}

fn same<T>(answer: T) -> T {
    answer
}

fn stepped_json(stepped: &Stepped) -> Value {
    json!({
        "result": to_json("StepResult", &stepped.result),
        "owed_blocks": stepped.owed_blocks,
    })
}

fn options(asked: &Value) -> Options {
    let mut options = Options::default().pool(text(asked, "pool")).engine(text(asked, "engine"));
    if let Some(timeout) = timeout(asked) {
        options = options.timeout(timeout);
    }
    if let Some(retries) = asked["retries"].as_bool() {
        options = options.retries(retries);
    }
    if let Some(token) = asked["token"].as_str() {
        options = options.token(token);
    }
    if let Some(tls) = asked["tls"].as_object() {
        let path = |key| tls.get(key).and_then(Value::as_str).map(Into::into);
        let server_name = tls.get("server_name").and_then(Value::as_str).map(str::to_owned);
        options =
            options.tls(Tls { ca: path("ca"), cert: path("cert"), key: path("key"), server_name });
    }
    options
}

/// The context of a line's `traceparent`; without one, none.
fn context(asked: &Value) -> Context {
    let traceparent = text(asked, "traceparent");
    let headers = HashMap::from([("traceparent".to_owned(), traceparent)]);
    PROPAGATOR.extract_with_context(&Context::new(), &headers)
}

fn with_timeout(client: &Client, asked: &Value) -> Client {
    timeout(asked).map_or_else(|| client.clone(), |timeout| client.with_timeout(timeout))
}

fn timeout(asked: &Value) -> Option<Duration> {
    asked["timeout"].as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

fn place(asked: &Value) -> Result<[u32; 3], Failure> {
    Ok([number(asked, "block")?, number(asked, "region")?, number(asked, "at")?])
}

fn number(asked: &Value, key: &str) -> Result<u32, Failure> {
    let value = &asked[key];
    if value.is_null() {
        return Ok(0);
    }
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| Failure::Usage(format!("{key} is no number of a block: {value}")))
}

fn text(asked: &Value, key: &str) -> String {
    asked[key].as_str().unwrap_or_default().to_owned()
}

fn named<'a, T>(objects: &'a HashMap<String, T>, name: &str) -> Result<&'a T, Failure> {
    objects.get(name).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Failure {
    Failure::Usage(format!("nothing suitable is named {name:?}"))
}

fn unhex(text: &str) -> Result<Vec<u8>, Failure> {
    let wrong = || Failure::Usage(format!("no bytes in hex: {text}"));
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return Err(wrong());
    }
    let pairs = (0..text.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong())).collect()
}
