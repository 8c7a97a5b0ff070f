//! Sessions.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use common::{Server, eventually, pool_stats};
use kvblock::{Client, Error, Reason, Session, StepOptions, v1};

const ARGUMENTS: [&str; 6] = [
    "--pool",
    "main:total=64,block_size=16,device=0,quarantine=0",
    "--lease-ttl-min",
    "0.5",
    "--state-dir",
    "FOLDER/state",
];

fn attach_for(milliseconds: i32) -> v1::SessionAttach {
    let ttl = prost_types::Duration {
        seconds: (milliseconds / 1000).into(),
        nanos: milliseconds % 1000 * 1_000_000,
    };
    v1::SessionAttach { engine: "e".to_owned(), ttl: Some(ttl), ..Default::default() }
}

fn acquire(count: u32) -> v1::EngineStep {
    v1::EngineStep { acquire_num_blocks: count, ..Default::default() }
}

fn within(milliseconds: u64) -> StepOptions {
    StepOptions { timeout: Some(Duration::from_millis(milliseconds)), ..Default::default() }
}

async fn attached(client: &Client) -> Session {
    client.attach(attach_for(10_000), |_| ()).await.unwrap()
}

/// A session, and how often its callback was called.
async fn counted(client: &Client, milliseconds: i32) -> (Session, Arc<AtomicU32>) {
    let lost = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&lost);
    let on_lost = move |error: &Error| {
        assert!(matches!(error, Error::LeaseLost { .. }), "{error:?}");
        count.fetch_add(1, SeqCst);
    };
    (client.attach(attach_for(milliseconds), on_lost).await.unwrap(), lost)
}

#[tokio::test]
async fn steps_go_on_over_a_restart_of_the_server_and_take_effect_once() {
    let mut server = Server::start(&ARGUMENTS);
    let client = server.client();
    let (session, lost) = counted(&client, 10_000).await;
    let first = session.step(acquire(2)).await.unwrap();
    assert_eq!(first.result.acquired_block_numbers, [0, 1]);
    server.kill();
    let session = Arc::new(session);
    let step = tokio::spawn({
        let session = Arc::clone(&session);
        async move { session.step(acquire(3)).await }
    });
    server.run();
    let stepped = step.await.unwrap().unwrap();
    assert_eq!(stepped.result.acquired_block_numbers, [2, 3, 4]);
    assert_eq!(pool_stats(&client).await.acquired_blocks, 5);
    assert_eq!(session.detach(None).await, Ok(5));
    assert_eq!(lost.load(SeqCst), 0);
}

#[tokio::test]
async fn a_step_without_an_answer_stays_in_flight_until_it_is_recovered() {
    let server = Server::start(&ARGUMENTS);
    let session = attached(&server.client()).await;
    session.step(acquire(1)).await.unwrap();
    server.signal(libc::SIGSTOP);
    let error = session.step_with(acquire(2), within(200)).await.unwrap_err();
    assert!(matches!(error, Error::Deadline(_)), "{error:?}");
    assert!(session.unanswered() && session.lease_valid());
    assert_eq!(session.step(acquire(4)).await, Err(Error::Unanswered));
    assert!(session.recover(Some(Duration::from_millis(200))).await.is_err());
    server.signal(libc::SIGCONT);
    let recovered = session.recover(None).await.unwrap();
    assert_eq!(recovered.result.acquired_block_numbers, [1, 2]);
    assert!(matches!(session.recover(None).await, Err(Error::Usage(_))));
    let next = session.step(acquire(1)).await.unwrap();
    assert_eq!(next.result.acquired_block_numbers, [3]);
}

#[tokio::test]
async fn a_step_whose_future_is_dropped_stays_in_flight() {
    let server = Server::start(&ARGUMENTS);
    let session = attached(&server.client()).await;
    server.signal(libc::SIGSTOP);
    let step = session.step(acquire(2));
    assert!(tokio::time::timeout(Duration::from_millis(100), step).await.is_err());
    server.signal(libc::SIGCONT);
    assert_eq!(session.step(acquire(1)).await, Err(Error::Unanswered));
    let recovered = session.recover(None).await.unwrap();
    assert_eq!(recovered.result.acquired_block_numbers, [0, 1]);
}

#[tokio::test]
async fn one_step_at_a_time() {
    let server = Server::start(&ARGUMENTS);
    let session = Arc::new(attached(&server.client()).await);
    let steps: Vec<_> = (0..20)
        .map(|_| {
            let session = Arc::clone(&session);
            tokio::spawn(async move { session.step(acquire(1)).await.unwrap().result })
        })
        .collect();
    let mut blocks = Vec::new();
    for step in steps {
        blocks.extend(step.await.unwrap().acquired_block_numbers);
    }
    blocks.sort_unstable();
    assert_eq!(blocks, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn any_other_error_ends_the_steps_and_keeps_the_lease() {
    let server = Server::start(&ARGUMENTS);
    let client = server.client();
    let session = client.attach(attach_for(500), |_| ()).await.unwrap();
    session.step(acquire(2)).await.unwrap();
    let wrong = v1::EngineStep { release_block_numbers: vec![9], ..Default::default() };
    let error = session.step(wrong).await.unwrap_err();
    assert_eq!(error.server().unwrap().reason, Some(Reason::BlockNotHeld));
    assert!(!session.is_open() && session.lease_valid());
    assert!(matches!(session.step(acquire(1)).await, Err(Error::Closed(_))));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(session.lease_valid());
    assert_eq!(pool_stats(&client).await.acquired_blocks, 2);
    assert_eq!(session.detach(None).await, Ok(2));
    assert!(matches!(session.detach(None).await, Err(Error::Closed(_))));
}

/// The renewal has a thread of its own: this test blocks the only thread of the runtime.
#[tokio::test(flavor = "current_thread")]
async fn an_engine_that_blocks_its_runtime_keeps_its_lease() {
    let server = Server::start(&ARGUMENTS);
    let (session, lost) = counted(&server.client(), 500).await;
    std::thread::sleep(Duration::from_millis(2000));
    assert!(session.lease_valid());
    session.step(acquire(1)).await.unwrap();
    assert_eq!(lost.load(SeqCst), 0);
}

#[tokio::test]
async fn a_lease_that_another_takes_over_is_lost_once() {
    let server = Server::start(&ARGUMENTS);
    let client = server.client();
    let (session, lost) = counted(&client, 10_000).await;
    let request = v1::SessionAttach { takeover: true, ..attach_for(10_000) };
    let successor = client.attach(request, |_| ()).await.unwrap();
    for _ in 0..2 {
        let error = session.step(acquire(1)).await.unwrap_err();
        assert!(matches!(error, Error::LeaseLost { .. }), "{error:?}");
    }
    assert!(matches!(session.renew().await, Err(Error::LeaseLost { .. })));
    assert!(matches!(session.detach(None).await, Err(Error::LeaseLost { .. })));
    assert_eq!(lost.load(SeqCst), 1);
    drop(session);
    successor.step(acquire(1)).await.unwrap();
}

#[tokio::test]
async fn the_renewal_finds_out_that_a_lease_is_lost() {
    let server = Server::start(&ARGUMENTS);
    let client = server.client();
    let (session, lost) = counted(&client, 800).await;
    let request = v1::SessionAttach { takeover: true, ..attach_for(10_000) };
    let _successor = client.attach(request, |_| ()).await.unwrap();
    eventually("the loss", async || lost.load(SeqCst) == 1).await;
    assert!(!session.lease_valid());
}

#[tokio::test]
async fn a_lease_ends_by_the_clock_while_the_server_stands_still() {
    let server = Server::start(&ARGUMENTS);
    let (session, lost) = counted(&server.client(), 500).await;
    server.signal(libc::SIGSTOP);
    // The step's own deadline is later: the end of the lease comes first.
    let error = session.step(acquire(1)).await.unwrap_err();
    assert!(matches!(error, Error::LeaseLost { server: None, .. }), "{error:?}");
    eventually("the callback", async || lost.load(SeqCst) == 1).await;
    assert!(!session.lease_valid() && !session.unanswered());
    server.signal(libc::SIGCONT);
}

#[tokio::test]
async fn dropping_a_session_detaches_it() {
    let server = Server::start(&ARGUMENTS);
    let client = server.client();
    let (session, lost) = counted(&client, 10_000).await;
    session.step(acquire(3)).await.unwrap();
    drop(session);
    eventually("free blocks", async || pool_stats(&client).await.free_blocks == 64).await;
    assert_eq!(pool_stats(&client).await.expired_leases_total, 0);
    assert_eq!(lost.load(SeqCst), 0);
}

#[tokio::test]
async fn another_session_goes_on_with_the_lease_of_one_that_was_closed() {
    let server = Server::start(&ARGUMENTS);
    let client = server.client();
    let session = attached(&client).await;
    session.step(acquire(2)).await.unwrap();
    session.close();
    session.close();
    assert!(matches!(session.step(acquire(1)).await, Err(Error::Closed(_))));
    let request = v1::SessionAttach { epoch: session.epoch(), ..attach_for(10_000) };
    drop(session);
    let next = client.attach(request, |_| ()).await.unwrap();
    assert_eq!((next.attached().acquired_blocks, next.attached().last_step_id), (2, 1));
    assert_eq!(next.step(acquire(1)).await.unwrap().result.acquired_block_numbers, [2]);
}

#[tokio::test]
async fn a_session_that_was_replaced_leaves_the_lease_to_the_other_one() {
    let server = Server::start(&ARGUMENTS);
    let client = server.client();
    let (session, lost) = counted(&client, 10_000).await;
    let request = v1::SessionAttach { epoch: session.epoch(), ..attach_for(10_000) };
    let other = client.attach(request, |_| ()).await.unwrap();
    other.step(acquire(2)).await.unwrap();
    let error = session.step(acquire(1)).await.unwrap_err();
    assert_eq!(error.server().unwrap().reason, Some(Reason::SessionReplaced));
    assert!(!session.lease_valid());
    assert!(matches!(session.detach(None).await, Err(Error::Closed(_))));
    drop(session);
    assert_eq!(lost.load(SeqCst), 0);
    assert_eq!(other.detach(None).await, Ok(2));
}

#[tokio::test]
async fn detaching_and_closing_the_client_end_a_step_that_runs() {
    let server = Server::start(&ARGUMENTS);
    let client = server.client();
    for close in [true, false] {
        let session = Arc::new(attached(&client).await);
        server.signal(libc::SIGSTOP);
        let step = tokio::spawn({
            let session = Arc::clone(&session);
            async move { session.step(acquire(1)).await }
        });
        eventually("a step", async || session.unanswered()).await;
        let detach = session.detach(Some(Duration::from_secs(20)));
        let resume = async { server.signal(libc::SIGCONT) };
        if close {
            let (detached, ()) = tokio::join!(detach, resume);
            detached.unwrap();
        } else {
            client.close();
            resume.await;
        }
        assert!(matches!(step.await.unwrap(), Err(Error::Closed(_))));
        assert!(!session.lease_valid());
    }
}

#[tokio::test]
async fn an_attach_may_be_refused() {
    let server = Server::start(&ARGUMENTS);
    let client = server.client();
    let _session = attached(&client).await;
    let Err(error) = client.attach(attach_for(1000), |_| ()).await else { panic!("attached") };
    assert_eq!(error.server().unwrap().reason, Some(Reason::EngineAttached));
    let expect = v1::ExpectedGeometry { block_size: Some(1), ..Default::default() };
    let request = v1::SessionAttach {
        engine: "other".to_owned(),
        expect: Some(expect),
        ..Default::default()
    };
    let Err(error) = client.attach(request, |_| ()).await else { panic!("attached") };
    assert_eq!(error.server().unwrap().reason, Some(Reason::GeometryMismatch));
}
