//! How a client is made.

use std::{fmt, fs, path::PathBuf, time::Duration};

use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::{Error, address::Address};

/// TLS to the server; all files are PEM files, read when the client is made.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The authorities that the server's certificate may come from; none: those of the system.
    pub ca: Option<PathBuf>,
    /// The client's own certificate, for a server that asks for one.
    pub cert: Option<PathBuf>,
    /// The key of `cert`.
    pub key: Option<PathBuf>,
    /// The name in the server's certificate, where it is not the one in the address.
    pub server_name: Option<String>,
}

/// What a client is made with; `Options::default()` will do for a server without access control.
#[derive(Clone)]
pub struct Options {
    pub(crate) pool: String,
    pub(crate) engine: String,
    pub(crate) timeout: Duration,
    pub(crate) retries: bool,
    token: Option<String>,
    tls: Option<Tls>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pool: String::new(),
            engine: String::new(),
            timeout: Duration::from_secs(30),
            retries: true,
            token: None,
            tls: None,
        }
    }
}

/// The token is left out.
impl fmt::Debug for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Options")
            .field("pool", &self.pool)
            .field("engine", &self.engine)
            .field("timeout", &self.timeout)
            .field("retries", &self.retries)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The pool that is meant where a request names none; empty: the server's default pool.
    pub fn pool(mut self, pool: impl Into<String>) -> Self {
        self.pool = pool.into();
        self
    }

    /// The engine that is meant where a request names none; empty: `default`.
    pub fn engine(mut self, engine: impl Into<String>) -> Self {
        self.engine = engine.into();
        self
    }

    /// How long a call may take in all, with its repeats; 30 seconds unless it is set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Whether a call that found the server unavailable is made again; so it is unless it is unset.
    pub fn retries(mut self, retries: bool) -> Self {
        self.retries = retries;
        self
    }

    /// The token that goes out with every call. It needs TLS, a Unix socket or a loopback address.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Use TLS, which goes with `HOST:PORT` only.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }
}

/// Makes connections to one server.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) address: String,
    pub(crate) authorization: Option<MetadataValue<Ascii>>,
    endpoint: Endpoint,
}

impl Dialer {
    pub(crate) fn new(address: &str, options: &Options) -> Result<Self, Error> {
        let parsed = Address::parse(address)?;
        let uri = match (&parsed, &options.tls) {
            (Address::Unix(_), Some(_)) => {
                return Err(usage("tls goes with HOST:PORT; a Unix socket is plain"));
            }
            (Address::Unix(path), None) => format!("unix:{path}"),
            (Address::Tcp(address), None) => format!("http://{address}"),
            (Address::Tcp(address), Some(_)) => format!("https://{address}"),
        };
        let unusable = |error| usage(&format!("address {address:?} cannot be used: {error}"));
        let mut endpoint = Endpoint::from_shared(uri).map_err(unusable)?;
        endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        if let Some(tls) = &options.tls {
            let refused = |error| usage(&format!("tls cannot be used: {error}"));
            endpoint = endpoint.tls_config(tls_config(tls)?).map_err(refused)?;
        }
        let authorization = match &options.token {
            None => None,
            Some(_) if options.tls.is_none() && !parsed.stays_here() => {
                let problem = "would go over the network readable for everyone; use TLS";
                return Err(usage(&format!("the token {problem}")));
            }
            Some(token) => Some(bearer(token)?),
        };
        Ok(Self { address: address.to_owned(), authorization, endpoint })
    }

    /// A channel on the current tokio runtime; it connects when it is used.
    pub(crate) fn dial(&self) -> Channel {
        self.endpoint.connect_lazy()
    }
}

/// A try that cannot connect for so long ends, so that the next one has a chance.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

fn bearer(token: &str) -> Result<MetadataValue<Ascii>, Error> {
    let printable = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let value = format!("Bearer {token}").parse::<MetadataValue<Ascii>>();
    match value {
        Ok(mut value) if printable => {
            value.set_sensitive(true);
            Ok(value)
        }
        _ => Err(usage("the token must be printable ASCII characters without blanks")),
    }
}

fn tls_config(tls: &Tls) -> Result<ClientTlsConfig, Error> {
    let mut config = match &tls.ca {
        Some(ca) => {
            let pem = read_pem("tls.ca", ca, "CERTIFICATE")?;
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
        }
        None => ClientTlsConfig::new().with_native_roots(),
    };
    config = match (&tls.cert, &tls.key) {
        (None, None) => config,
        (Some(cert), Some(key)) => config.identity(Identity::from_pem(
            read_pem("tls.cert", cert, "CERTIFICATE")?,
            read_pem("tls.key", key, "PRIVATE KEY")?,
        )),
        _ => return Err(usage("tls.cert and tls.key go together")),
    };
    Ok(match &tls.server_name {
        Some(name) => config.domain_name(name),
        None => config,
    })
}

fn read_pem(field: &str, path: &PathBuf, kind: &str) -> Result<String, Error> {
    let wrong = |problem: &str| usage(&format!("{field} {path:?} {problem}"));
    let content =
        fs::read_to_string(path).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    if !content.contains(kind) {
        return Err(wrong(&format!("is no PEM file with a {}", kind.to_lowercase())));
    }
    Ok(content)
}

fn usage(message: &str) -> Error {
    Error::Usage(message.to_owned())
}
