//! A server of one's own for each test.

// Each test file uses a part of this.
#![allow(dead_code)]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use kvblock::{Client, Options, v1};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A `kvblock serve` on a Unix socket in a folder of its own, which goes away with it.
pub struct Server {
    pub folder: PathBuf,
    arguments: Vec<String>,
    process: Option<Child>,
    ready: String,
}

impl Server {
    pub fn start(arguments: &[&str]) -> Self {
        let mut server = Self::new(arguments);
        server.run();
        server
    }

    /// A server that is not there yet.
    pub fn new(arguments: &[&str]) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let name = format!("kvblock-rust-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        let mut arguments: Vec<String> = arguments.iter().map(|&one| one.to_owned()).collect();
        for argument in &mut arguments {
            *argument = argument.replace("FOLDER", folder.to_str().unwrap());
        }
        if !arguments.iter().any(|argument| argument == "--state-dir") {
            arguments.push("--ephemeral".to_owned());
        }
        arguments.extend(["--listen".to_owned(), format!("unix:{}/x.sock", folder.display())]);
        Self { folder, arguments, process: None, ready: String::new() }
    }

    pub fn run(&mut self) {
        let program = std::env::var("KVBLOCK")
            .unwrap_or_else(|_| format!("{}/../../.venv/bin/kvblock", env!("CARGO_MANIFEST_DIR")));
        let mut process = Command::new(&program)
            .arg("serve")
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(self.folder.join("stderr")).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        self.ready.clear();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        self.process = Some(process);
        out.read_line(&mut self.ready).unwrap();
        let log = || fs::read_to_string(self.folder.join("stderr")).unwrap();
        assert!(self.ready.starts_with("kvblock ready "), "{}{}", self.ready, log());
    }

    pub fn signal(&self, signal: i32) {
        let process = self.process.as_ref().unwrap();
        // SAFETY: the process was started here and not waited for yet.
        assert_eq!(unsafe { libc::kill(process.id() as i32, signal) }, 0);
    }

    pub fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub fn address(&self) -> String {
        format!("unix:{}/x.sock", self.folder.display())
    }

    /// Its address that is no Unix socket.
    pub fn tcp(&self) -> String {
        let listens = self.ready.split_whitespace().filter_map(|word| word.strip_prefix("listen="));
        listens.into_iter().find(|address| !address.starts_with("unix:")).unwrap().to_owned()
    }

    pub fn client(&self) -> Client {
        self.client_with(Options::default())
    }

    pub fn client_with(&self, options: Options) -> Client {
        Client::connect(&self.address(), options).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// Wait until something holds, for as long as a test may reasonably wait.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(30), "never came: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub async fn pool_stats(client: &Client) -> v1::PoolStats {
    client.stats(v1::StatsRequest::default()).await.unwrap().pools.remove(0)
}
