//! Arenas and block pools.

mod common;

use std::{sync::Arc, time::Duration};

use common::{Server, eventually, pool_stats};
use kvblock::{Acquired, BlockPool, Error, Session, v1::SessionAttach};

const POOL: &str = "main:total=64,reserved=1,quarantine=0,block_bytes=256,regions=2,memory=shm";

fn server() -> Server {
    let server = Server::new(&["--pool", POOL, "--memory-dir", "FOLDER/a memory"]);
    std::fs::create_dir(server.folder.join("a memory")).unwrap();
    server
}

async fn session(server: &Server, engine: &str) -> Arc<Session> {
    let request = SessionAttach { engine: engine.to_owned(), ..Default::default() };
    Arc::new(server.client().attach(request, |_| ()).await.unwrap())
}

fn blocks(acquired: Result<Acquired, Error>) -> Vec<u32> {
    match acquired {
        Ok(Acquired::Granted(blocks)) => blocks,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn engines_see_the_same_bytes_at_their_places() {
    let mut server = server();
    server.run();
    let (one, two) = (session(&server, "one").await, session(&server, "two").await);
    let (mine, theirs) = (one.arena().unwrap(), two.arena().unwrap());
    assert_eq!((mine.piece_bytes(), mine.total_blocks(), mine.regions()), (128, 64, 2));
    mine.write(3, 1, 126, &[7, 8]).unwrap();
    let mut found = [0; 3];
    theirs.read(3, 1, 125, &mut found).unwrap();
    assert_eq!(found, [0, 7, 8]);
    let piece = theirs.block(3, 1).unwrap();
    // SAFETY: nothing writes to the piece while the slice is there.
    assert_eq!(unsafe { piece.as_ref() }[126..], [7, 8]);
    let path = one.attached().memory_uri.strip_prefix("shm://").unwrap().replace("%20", " ");
    let file = std::fs::read(path).unwrap();
    let place = 64 * 128 + 3 * 128 + 126;
    assert_eq!(file[place..place + 2], [7, 8]);
    assert_eq!(file.iter().map(|byte| u32::from(*byte)).sum::<u32>(), 15);
}

#[tokio::test]
async fn what_is_not_there_is_an_error() {
    let mut server = server();
    server.run();
    let session = session(&server, "one").await;
    let arena = session.arena().unwrap();
    for (block, region, at) in [(0, 0, 0), (64, 0, 0), (1, 2, 0), (1, 0, 127), (1, 0, usize::MAX)] {
        assert!(matches!(arena.write(block, region, at, &[1, 2]), Err(Error::Usage(_))));
    }
    let path = session.attached().memory_uri.strip_prefix("shm://").unwrap().replace("%20", " ");
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(100).unwrap();
    let Err(Error::Usage(message)) = session.arena() else { panic!("it was mapped") };
    assert!(message.contains("100 bytes"), "{message}");
    let plain = Server::start(&["--pool", "main:total=4"]);
    let attached = plain.client().attach(SessionAttach::default(), |_| ()).await.unwrap();
    assert!(matches!(attached.arena(), Err(Error::Usage(_))));
}

#[tokio::test]
async fn a_block_pool_answers_from_its_stash() {
    let mut server = server();
    server.run();
    let session = session(&server, "one").await;
    let pool = BlockPool::new(Arc::clone(&session), Some(20)).unwrap();
    assert_eq!(blocks(pool.acquire(3).await), [1, 2, 3]);
    assert_eq!(pool.ready_blocks(), 12);
    server.signal(libc::SIGSTOP);
    assert_eq!(blocks(pool.acquire(1).await), [4]);
    pool.release(&[2, 1]).unwrap();
    assert_eq!(blocks(pool.acquire(1).await), [1]);
    server.signal(libc::SIGCONT);
    let Err(Error::Usage(message)) = pool.release(&[3, 2]) else { panic!("block 2 is ready") };
    assert!(message.contains("blocks[1]"), "{message}");
    let Ok(Acquired::Refused(refusal)) = pool.acquire(200).await else { panic!("granted") };
    assert_eq!(refusal.needed, 200);
    pool.settle(0).await.unwrap();
    assert_eq!((pool.ready_blocks(), pool.free_blocks()), (0, 60));
    pool.close().await.unwrap();
    assert!(matches!(pool.acquire(1).await, Err(Error::Closed(_))));
    assert_eq!(session.detach(None).await, Ok(3));
}

#[tokio::test]
async fn a_block_pool_gives_back_what_no_iteration_needs() {
    let mut server = server();
    server.run();
    let session = session(&server, "one").await;
    let pool = BlockPool::new(session, Some(20)).unwrap();
    let taken = blocks(pool.acquire(3).await);
    pool.release(&taken).unwrap();
    pool.flush(0).unwrap();
    let client = server.client();
    eventually("free blocks", async || pool_stats(&client).await.free_blocks == 63).await;
    assert_eq!(pool.ready_blocks(), 0);
}

#[tokio::test]
async fn a_step_without_an_answer_loses_no_block() {
    let mut server = server();
    server.run();
    let request = SessionAttach { engine: "one".to_owned(), ..Default::default() };
    let short = server.client().with_timeout(Duration::from_millis(200));
    let session = Arc::new(short.attach(request, |_| ()).await.unwrap());
    let pool = BlockPool::new(Arc::clone(&session), Some(0)).unwrap();
    assert_eq!(blocks(pool.acquire(2).await), [1, 2]);
    server.signal(libc::SIGSTOP);
    assert!(matches!(pool.acquire(3).await, Err(Error::Deadline(_))));
    server.signal(libc::SIGCONT);
    eventually("a settled step", async || pool.acquire(1).await.is_ok()).await;
    let client = server.client();
    let held = pool_stats(&client).await.acquired_blocks;
    assert_eq!(held, 3 + pool.ready_blocks());
}
