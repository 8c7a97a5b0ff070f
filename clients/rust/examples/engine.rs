//! A loop of continuous batching on a pool with memory, which stamps its blocks and checks that
//! nobody has written over them:
//!
//! `engine --address A --engine NAME [--seed N] [--iterations N]`
//!
//! It exits with 0, with 1 when a stamp was overwritten, and with 2 when it could not run.

use std::{
    cell::Cell,
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, Instant},
};

use kvblock::{
    Arena, Client, Error, Options, Session, Stepped, Then,
    v1::{EngineStep, SessionAttach, StepPolicy},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

const SEQUENCES_MAX: usize = 16;
/// Stands for the time that a model computes.
const COMPUTE: Duration = Duration::from_millis(1);
/// How long one call may take, and so how late the program may end.
const TIMEOUT: Duration = Duration::from_secs(5);
const STAMP_BYTES: usize = 24;

struct Arguments {
    address: String,
    engine: String,
    seed: u64,
    iterations: u64,
}

#[derive(Default)]
struct Counts {
    iterations: u64,
    granted: u64,
    refused: u64,
    checked: u64,
    overwritten: u64,
    leases_lost: u64,
}

/// The engine under one lease.
struct Loop<'a> {
    engine: &'a str,
    session: Session,
    /// Set when the program is to end.
    stop: &'a Cell<bool>,
    arena: Arena,
    /// The block table of each sequence.
    tables: BTreeMap<u64, Vec<u32>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match arguments() {
        Ok(arguments) => match run(&arguments).await {
            Ok(0) => ExitCode::SUCCESS,
            Ok(_) => ExitCode::from(1),
            Err(error) => could_not_run(&error.to_string()),
        },
        Err(problem) => could_not_run(&problem),
    }
}

fn could_not_run(problem: &str) -> ExitCode {
    eprintln!("error: {problem}");
    ExitCode::from(2)
}

/// How many stamps were overwritten.
async fn run(arguments: &Arguments) -> Result<u64, Error> {
    let client = Client::connect(
        &arguments.address,
        Options::default().engine(&arguments.engine).timeout(TIMEOUT),
    )?;
    let mut terminate = signal(SignalKind::terminate()).expect("a handler of SIGTERM can be set");
    let stop = Cell::new(false);
    let work = work(&client, arguments, &stop);
    tokio::pin!(work);
    let counts = tokio::select! {
        done = &mut work => done?,
        _ = terminate.recv() => {
            stop.set(true);
            work.await?
        }
    };
    print(&counts, &arguments.engine, true);
    Ok(counts.overwritten)
}

/// Run under one lease after the other, until the last iteration or until it is to stop.
async fn work(client: &Client, arguments: &Arguments, stop: &Cell<bool>) -> Result<Counts, Error> {
    let mut counts = Counts::default();
    let mut random = Random(arguments.seed);
    while counts.iterations < arguments.iterations {
        let attached = Loop::attach(client, &arguments.engine, stop).await?;
        let Some(mut lease) = attached else { break };
        match lease.iterate(&mut counts, &mut random, arguments).await {
            Err(Error::LeaseLost { .. }) => counts.leases_lost += 1,
            Err(error) if !stop.get() => return Err(error),
            _ => {
                if let Err(error) = lease.session.detach(None).await {
                    eprintln!("the lease is left to run out: {error}");
                }
            }
        }
        if stop.get() {
            break;
        }
    }
    Ok(counts)
}

impl<'a> Loop<'a> {
    /// Attach, however long the server is away; none when the program is to end.
    async fn attach(
        client: &Client,
        engine: &'a str,
        stop: &'a Cell<bool>,
    ) -> Result<Option<Self>, Error> {
        while !stop.get() {
            match client.attach(SessionAttach::default(), |lost| eprintln!("lost: {lost}")).await {
                Ok(session) => {
                    let arena = session.arena()?;
                    let tables = BTreeMap::new();
                    return Ok(Some(Self { engine, session, stop, arena, tables }));
                }
                Err(error) => sleep(pause_after(&error).ok_or(error)?).await,
            }
        }
        Ok(None)
    }

    async fn iterate(
        &mut self,
        counts: &mut Counts,
        random: &mut Random,
        arguments: &Arguments,
    ) -> Result<(), Error> {
        let (mut next, mut printed) = (1, Instant::now());
        while counts.iterations < arguments.iterations && !self.stop.get() {
            let mut step =
                EngineStep { policy: StepPolicy::InOrderUntilRefused.into(), ..Default::default() };
            for sequence in self.tables.keys() {
                match random.below(12) {
                    0 => step.free_sequence_ids.push(*sequence),
                    1..=4 => step.allocate_sequence_ids.push(*sequence),
                    _ => {}
                }
            }
            step.allocate_num_blocks = vec![1; step.allocate_sequence_ids.len()];
            if self.tables.len() < SEQUENCES_MAX {
                step.allocate_sequence_ids.push(next);
                step.allocate_num_blocks.push(1 + random.below(8) as u32);
                next += 1;
            }
            for sequence in &step.free_sequence_ids {
                for (place, block) in self.tables[sequence].iter().enumerate() {
                    self.check(*sequence, place, *block, counts)?;
                }
            }
            let stepped = self.step(&step).await?;
            self.take(&step, &stepped, counts)?;
            for _ in 0..4 {
                let Some((sequence, table)) = random.pick(&self.tables) else { break };
                let place = random.below(table.len() as u64) as usize;
                self.check(sequence, place, table[place], counts)?;
            }
            counts.iterations += 1;
            if printed.elapsed() >= Duration::from_secs(1) {
                print(counts, self.engine, false);
                printed = Instant::now();
            }
            sleep(COMPUTE).await;
        }
        Ok(())
    }

    /// Make a step, however long the server is away.
    async fn step(&self, step: &EngineStep) -> Result<Stepped, Error> {
        let mut answer = self.session.step(step.clone()).await;
        while answer.is_err() && self.session.unanswered() && !self.stop.get() {
            answer = self.session.recover(None).await;
        }
        answer
    }

    fn take(
        &mut self,
        step: &EngineStep,
        stepped: &Stepped,
        counts: &mut Counts,
    ) -> Result<(), Error> {
        for sequence in &step.free_sequence_ids {
            self.tables.remove(sequence);
        }
        let result = &stepped.result;
        let mut blocks = result.block_numbers.iter();
        let served = step.allocate_sequence_ids.iter().zip(&step.allocate_num_blocks);
        for (sequence, count) in served.take(result.granted as usize) {
            let table = self.tables.entry(*sequence).or_default();
            let first = table.len();
            table.extend(blocks.by_ref().take(*count as usize));
            let granted = table[first..].to_vec();
            for (place, block) in (first..).zip(granted) {
                self.stamp(*sequence, place, block)?;
            }
        }
        counts.granted += result.block_numbers.len() as u64;
        counts.refused += step.allocate_sequence_ids.len() as u64 - u64::from(result.granted);
        Ok(())
    }

    fn stamp(&self, sequence: u64, place: usize, block: u32) -> Result<(), Error> {
        let stamp = self.stamp_of(sequence, place);
        for region in 0..self.arena.regions() {
            for at in [0, self.arena.piece_bytes() - stamp.len()] {
                // A lost lease is told by the next step; until then nothing may be written.
                if self.session.lease_valid() {
                    self.arena.write(block, region, at, &stamp)?;
                }
            }
        }
        Ok(())
    }

    fn check(
        &self,
        sequence: u64,
        place: usize,
        block: u32,
        counts: &mut Counts,
    ) -> Result<(), Error> {
        let stamp = self.stamp_of(sequence, place);
        let mut found = vec![0; stamp.len()];
        let mut whole = true;
        for region in 0..self.arena.regions() {
            for at in [0, self.arena.piece_bytes() - stamp.len()] {
                self.arena.read(block, region, at, &mut found)?;
                whole &= found == stamp;
            }
        }
        // What was read counts only if the block was the engine's until then.
        if self.session.lease_valid() {
            counts.checked += 1;
            if !whole {
                counts.overwritten += 1;
                eprintln!("block {block}, place {place} of sequence {sequence}, was overwritten");
            }
        }
        Ok(())
    }

    /// Who has a block: engine, epoch, sequence and place.
    fn stamp_of(&self, sequence: u64, place: usize) -> Vec<u8> {
        let engine = self
            .engine
            .bytes()
            .fold(5381_u32, |hash, byte| hash.wrapping_mul(33).wrapping_add(byte.into()));
        let mut stamp = self.session.epoch().to_le_bytes().to_vec();
        stamp.extend(sequence.to_le_bytes());
        stamp.extend((place as u32).to_le_bytes());
        stamp.extend(engine.to_le_bytes());
        stamp.truncate(STAMP_BYTES.min(self.arena.piece_bytes() / 2));
        stamp
    }
}

/// How long to wait before another attach; none when that cannot help.
fn pause_after(error: &Error) -> Option<Duration> {
    match error {
        Error::Deadline(_) | Error::LeaseLost { .. } => Some(Duration::ZERO),
        Error::Server(error) if error.then == Then::GiveUp => error.retry_after,
        Error::Server(_) => Some(Duration::from_millis(250)),
        _ => None,
    }
}

fn print(counts: &Counts, engine: &str, ended: bool) {
    let Counts { iterations, granted, refused, checked, overwritten, leases_lost } = counts;
    println!(
        "{{\"language\": \"rust\", \"engine\": {engine:?}, \"iterations\": {iterations}, \
         \"granted\": {granted}, \"refused\": {refused}, \"checked\": {checked}, \
         \"overwritten\": {overwritten}, \"leases_lost\": {leases_lost}, \"ended\": {ended}}}"
    );
}

fn arguments() -> Result<Arguments, String> {
    let mut given = std::env::args().skip(1);
    let (mut address, mut engine, mut seed, mut iterations) = (None, None, 0, u64::MAX);
    while let Some(name) = given.next() {
        let value = given.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{name} needs a whole number"));
        match name.as_str() {
            "--address" => address = Some(value),
            "--engine" => engine = Some(value),
            "--seed" => seed = number()?,
            "--iterations" => iterations = number()?,
            _ => return Err(format!("{name} is no option of this program")),
        }
    }
    match (address, engine) {
        (Some(address), Some(engine)) => Ok(Arguments { address, engine, seed, iterations }),
        _ => Err("--address and --engine are needed".to_owned()),
    }
}

/// Numbers that follow from a seed: splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn pick<'t>(&mut self, tables: &'t BTreeMap<u64, Vec<u32>>) -> Option<(u64, &'t Vec<u32>)> {
        let count = tables.len() as u64;
        let chosen = if count > 0 { self.below(count) as usize } else { return None };
        tables.iter().nth(chosen).map(|(sequence, table)| (*sequence, table))
    }
}
