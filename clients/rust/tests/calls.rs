//! Calls of a client.

mod common;

use std::time::{Duration, Instant};

use common::{Server, eventually, pool_stats};
use kvblock::{Allocated, Client, Code, Error, Options, Reason, Then, v1};

const POOL: [&str; 2] = ["--pool", "main:total=8,block_size=16,device=0"];

fn allocate(sequence_id: u64, num_blocks: u32) -> v1::AllocateRequest {
    v1::AllocateRequest { sequence_id, num_blocks: Some(num_blocks), ..Default::default() }
}

fn blocks(allocated: Allocated) -> Vec<u32> {
    match allocated {
        Allocated::Granted(grant) => grant.block_numbers,
        Allocated::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

#[tokio::test]
async fn all_methods_answer() {
    let server = Server::start(&[&POOL[..], &["--listen", "127.0.0.1:0"]].concat());
    for address in [server.address(), server.tcp()] {
        let client =
            Client::connect(&address, Options::default().pool("main").engine("e")).unwrap();
        assert_eq!(blocks(client.allocate(allocate(1, 2)).await.unwrap()).len(), 2);
        let Allocated::Refused(refusal) = client.allocate(allocate(1, 7)).await.unwrap() else {
            panic!("it cannot be granted")
        };
        assert_eq!((refusal.free_blocks, refusal.needed), (6, 7));
        let request = v1::GetBlockTableRequest { sequence_id: 1, ..Default::default() };
        assert_eq!(client.get_block_table(request).await.unwrap().block_numbers.len(), 2);
        let request = v1::CanAllocateRequest { num_blocks: Some(7), ..Default::default() };
        assert!(!client.can_allocate(request).await.unwrap().can_allocate);
        let step = v1::EngineStep { allocate_sequence_ids: vec![2, 3], ..Default::default() };
        let request = v1::StepRequest { step: Some(step), ..Default::default() };
        assert_eq!(client.step(request).await.unwrap().result.unwrap().granted, 2);
        let request = v1::FreeReturningCountRequest { sequence_id: 1, ..Default::default() };
        assert_eq!(client.free_returning_count(request.clone()).await, Ok(2));
        assert_eq!(client.free_returning_count(request).await, Ok(0));
        for sequence_id in [2, 3] {
            client.free(v1::FreeRequest { sequence_id, ..Default::default() }).await.unwrap();
        }
        assert_eq!(pool_stats(&client).await.free_blocks, 8);
        let attached = client.attach_engine(v1::AttachEngineRequest::default()).await.unwrap();
        let epoch = attached.lease.unwrap().epoch;
        let request = v1::RenewLeaseRequest { epoch, ..Default::default() };
        assert_eq!(client.renew_lease(request).await.unwrap().lease.unwrap().epoch, epoch);
        let request = v1::DetachEngineRequest { epoch, ..Default::default() };
        assert_eq!(client.detach_engine(request).await, Ok(0));
    }
}

#[tokio::test]
async fn errors_tell_all_that_the_server_says() {
    let server = Server::start(&POOL);
    let client = server.client();
    let error = client.allocate(allocate(1, 0)).await.unwrap_err();
    let told = error.server().unwrap();
    assert_eq!((told.code, told.reason), (Code::InvalidArgument, Some(Reason::InvalidField)));
    assert_eq!((told.then, told.fate_unknown, told.retry_after), (Then::GiveUp, false, None));
    assert_eq!(told.metadata["field"], "num_blocks");
    assert_eq!(told.violations[0].field, "num_blocks");
    assert_eq!(told.violations[0].description, "num_blocks: 0 must be at least 1");
    let attach = v1::AttachEngineRequest::default();
    let epoch = client.attach_engine(attach.clone()).await.unwrap().lease.unwrap().epoch;
    let error = client.attach_engine(attach).await.unwrap_err();
    let told = error.server().unwrap();
    assert_eq!(told.reason, Some(Reason::EngineAttached));
    assert!(told.retry_after.unwrap() > Duration::ZERO);
    let request = v1::RenewLeaseRequest { epoch: epoch + 1, ..Default::default() };
    assert_eq!(
        client.renew_lease(request).await.unwrap_err().server().unwrap().then,
        Then::LeaseLost
    );
}

#[tokio::test]
async fn a_change_with_the_same_id_takes_effect_once() {
    let server = Server::start(&POOL);
    let client = server.client();
    let request = v1::AllocateRequest { request_id: "a".to_owned(), ..allocate(1, 2) };
    let first = client.allocate(request.clone()).await.unwrap();
    assert_eq!(client.allocate(request).await.unwrap(), first);
    assert_eq!(blocks(client.allocate(allocate(1, 1)).await.unwrap()).len(), 1);
    assert_eq!(pool_stats(&client).await.held_blocks, 3);
}

#[tokio::test]
async fn a_call_waits_for_a_server_that_comes_later_and_for_one_that_comes_back() {
    let mut server = Server::new(&[&POOL[..], &["--state-dir", "FOLDER/state"]].concat());
    let client = server.client();
    let early = tokio::spawn({
        let client = client.clone();
        async move { client.allocate(allocate(1, 2)).await }
    });
    server.run();
    assert_eq!(blocks(early.await.unwrap().unwrap()), [0, 1]);
    server.kill();
    let again = tokio::spawn({
        let client = client.clone();
        async move { client.allocate(allocate(1, 2)).await }
    });
    server.run();
    assert_eq!(blocks(again.await.unwrap().unwrap()), [2, 3]);
    assert_eq!(pool_stats(&client).await.held_blocks, 4);
}

#[tokio::test]
async fn without_a_server_a_call_fails_and_nothing_was_sent() {
    let server = Server::new(&POOL);
    let client = server.client().with_timeout(Duration::from_millis(400));
    let error = client.allocate(allocate(1, 2)).await.unwrap_err();
    let told = error.server().unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!((told.code, told.then, told.fate_unknown), (Code::Unavailable, Then::Repeat, false));
    let once = server.client_with(Options::default().retries(false));
    assert_eq!(
        once.allocate(allocate(1, 2)).await.unwrap_err().server().unwrap().then,
        Then::Repeat
    );
}

#[tokio::test]
async fn a_server_that_stands_still_is_a_deadline() {
    let server = Server::start(&POOL);
    let client = server.client();
    pool_stats(&client).await;
    server.signal(libc::SIGSTOP);
    let short = client.with_timeout(Duration::from_millis(200));
    let error = short.allocate(allocate(1, 1)).await.unwrap_err();
    assert!(matches!(error, Error::Deadline(_)) && error.fate_unknown(), "{error:?}");
    server.signal(libc::SIGCONT);
    pool_stats(&client).await;
}

#[tokio::test]
async fn the_deadline_of_a_call_that_waits_is_longer_by_that_time() {
    let server = Server::start(&POOL);
    let client = server.client();
    client.allocate(allocate(1, 8)).await.unwrap();
    let max_wait = prost_types::Duration { seconds: 0, nanos: 700_000_000 };
    let request = v1::AllocateRequest { max_wait: Some(max_wait), ..allocate(2, 1) };
    let short = client.with_timeout(Duration::from_millis(300));
    let started = Instant::now();
    assert!(matches!(short.allocate(request).await, Ok(Allocated::Refused(_))));
    assert!(started.elapsed() >= Duration::from_millis(700));
}

#[tokio::test]
async fn closing_ends_calls_that_run_and_refuses_new_ones() {
    let server = Server::start(&POOL);
    let client = server.client();
    client.allocate(allocate(1, 8)).await.unwrap();
    let max_wait = prost_types::Duration { seconds: 20, nanos: 0 };
    let request = v1::AllocateRequest { max_wait: Some(max_wait), ..allocate(2, 1) };
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.allocate(request).await }
    });
    eventually("a waiting call", async || pool_stats(&client).await.waiting == 1).await;
    client.close();
    client.close();
    assert!(matches!(waiting.await.unwrap(), Err(Error::Closed(_))));
    assert!(matches!(client.allocate(allocate(3, 1)).await, Err(Error::Closed(_))));
    let other = server.client();
    eventually("the end of the wait", async || pool_stats(&other).await.waiting == 0).await;
}

#[test]
fn a_client_outside_of_a_runtime_is_an_error() {
    let made = Client::connect("unix:/x", Options::default());
    assert!(matches!(made, Err(Error::Usage(message)) if message.contains("runtime")));
}
