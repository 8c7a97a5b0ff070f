//! Where a server listens: `unix:PATH`, `unix:///PATH` or `HOST:PORT`.

use std::{net::IpAddr, path::absolute};

use crate::Error;

const SOCKET_PATH_BYTES_MAX: usize = 107;
const FORMS: &str = "must be unix:PATH, unix:///PATH or HOST:PORT";

/// A parsed address.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Address {
    /// The absolute path of a socket.
    Unix(String),
    /// Host and port, as they stand in a URI.
    Tcp(String),
}

impl Address {
    pub(crate) fn parse(address: &str) -> Result<Self, Error> {
        let wrong = |problem: &str| Error::Usage(format!("address {address:?} {problem}"));
        let Some(path) = address.strip_prefix("unix:") else {
            let (host, port) = address.rsplit_once(':').ok_or_else(|| wrong(FORMS))?;
            if !is_host(host) || !port.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(wrong(FORMS));
            }
            if !port.parse::<u16>().is_ok_and(|port| port > 0) {
                return Err(wrong("must have a port from 1 to 65535"));
            }
            return Ok(Self::Tcp(address.to_owned()));
        };
        let path = match path.strip_prefix("//") {
            Some(absolute) if !absolute.starts_with('/') => {
                return Err(wrong("must have an absolute path after unix://"));
            }
            Some(absolute) => absolute,
            None => path,
        };
        if path.is_empty() || path.contains('\0') {
            return Err(wrong(FORMS));
        }
        let path =
            absolute(path).map_err(|error| wrong(&format!("has no absolute path: {error}")))?;
        let path = path.to_str().ok_or_else(|| wrong("has a path that is no UTF-8"))?;
        if path.len() > SOCKET_PATH_BYTES_MAX {
            let problem = format!(
                "has a path of {} bytes; a socket's path has at most {SOCKET_PATH_BYTES_MAX}",
                path.len()
            );
            return Err(wrong(&problem));
        }
        Ok(Self::Unix(path.to_owned()))
    }

    /// Whether what is sent there stays on this machine.
    pub(crate) fn stays_here(&self) -> bool {
        let Self::Tcp(address) = self else { return true };
        let host = address.rsplit_once(':').map_or("", |(host, _)| host);
        let host = host.trim_matches(['[', ']']);
        host.eq_ignore_ascii_case("localhost")
            || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !host.is_empty() && host.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_forms() {
        let unix = |path: &str| Ok(Address::Unix(path.to_owned()));
        assert_eq!(parse("unix:/run/a b%20?#.sock"), unix("/run/a b%20?#.sock"));
        assert_eq!(parse("unix:///run/x"), unix("/run/x"));
        let here = std::env::current_dir().unwrap().join("x.sock");
        assert_eq!(parse("unix:x.sock"), unix(here.to_str().unwrap()));
        for address in ["localhost:1", "[::1]:65535", "10.0.0.1:80", "a-b.c_d:8080"] {
            assert_eq!(parse(address), Ok(Address::Tcp(address.to_owned())));
        }
    }

    #[test]
    fn refuses_everything_else() {
        let long = format!("unix:/{}", "x".repeat(107));
        let addresses = [
            "", "unix:", "unix://", "unix://x", "x", ":1", "h:", "h:0", "h:65536", "h:+1", "a/b:1",
            "::1:1", &long,
        ];
        for address in addresses {
            assert!(parse(address).is_err_and(|error| error.contains("address")), "{address}");
        }
    }

    #[test]
    fn knows_what_stays_here() {
        for (address, here) in [
            ("unix:/x", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("LocalHost:1", true),
            ("10.0.0.1:1", false),
            ("localhost.example:1", false),
            ("[2001:db8::1]:1", false),
        ] {
            assert_eq!(Address::parse(address).unwrap().stays_here(), here, "{address}");
        }
    }

    fn parse(address: &str) -> Result<Address, String> {
        Address::parse(address).map_err(|error| error.to_string())
    }
}
