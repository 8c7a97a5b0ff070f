//! Tokens and TLS.

mod common;

use std::{fs, path::Path, time::Duration};

use common::{Server, pool_stats};
use kvblock::{Client, Code, Error, Options, Reason, Tls, v1::StatsRequest};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

const POOL: [&str; 2] = ["--pool", "main:total=8"];

/// `ca.pem`, and `server.pem` with `server.key` for one name.
fn issue(folder: &Path, name: &str) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    let server = params.signed_by(&key, &authority).unwrap();
    let contents = [
        ("ca.pem", authority.pem()),
        ("server.pem", server.pem()),
        ("server.key", key.serialize_pem()),
    ];
    for (file, content) in contents {
        fs::write(folder.join(file), content).unwrap();
    }
}

#[tokio::test]
async fn tls_reaches_a_server_by_its_name_and_no_other() {
    let tls = ["--tls-cert", "FOLDER/server.pem", "--tls-key", "FOLDER/server.key"];
    let mut server = Server::new(&[&POOL[..], &["--listen", "127.0.0.1:0"], &tls].concat());
    issue(&server.folder, "kv.example");
    fs::set_permissions(
        server.folder.join("server.key"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    server.run();
    let ca = Some(server.folder.join("ca.pem"));
    let named = Tls { ca, server_name: Some("kv.example".to_owned()), ..Default::default() };
    let client = Client::connect(&server.tcp(), Options::default().tls(named.clone())).unwrap();
    assert_eq!(pool_stats(&client).await.free_blocks, 8);
    for tls in [Tls { server_name: None, ..named.clone() }, Tls { ca: None, ..named }] {
        let options = Options::default().tls(tls).timeout(Duration::from_millis(500));
        let client = Client::connect(&server.tcp(), options).unwrap();
        let error = client.stats(StatsRequest::default()).await.unwrap_err();
        assert_eq!(error.server().unwrap().code, Code::Unavailable);
    }
}

#[tokio::test]
async fn a_token_says_who_is_calling() {
    let flags = ["--access-file", "FOLDER/access.toml"];
    let mut server = Server::new(&[&POOL[..], &flags].concat());
    let access = "unix = \"token\"\n[[identity]]\nname = \"a\"\ntoken = \"s3cret-of-at-least-16\"\n\
                  engines = [\"*\"]\npools = [\"*\"]\nadmin = true\n[end]\n";
    let path = server.folder.join("access.toml");
    fs::write(&path, access).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    server.run();
    let right = server.client_with(Options::default().token("s3cret-of-at-least-16"));
    assert_eq!(pool_stats(&right).await.free_blocks, 8);
    let session = right.attach(Default::default(), |_| ()).await.unwrap();
    assert_eq!(session.detach(None).await, Ok(0));
    let wrong = server.client_with(Options::default().token("other"));
    let error = wrong.stats(StatsRequest::default()).await.unwrap_err();
    assert_eq!(error.server().unwrap().reason, Some(Reason::Unauthenticated));
    assert!(!format!("{error:?}").contains("other"));
}

#[tokio::test]
async fn a_token_goes_nowhere_where_it_can_be_read_and_is_shown_nowhere() {
    let options = Options::default().token("s3cret");
    assert!(!format!("{options:?}").contains("s3cret"));
    for (address, token) in [("10.0.0.1:1", "s3cret"), ("unix:/x", "s3cret x"), ("unix:/x", "")] {
        match Client::connect(address, Options::default().token(token)) {
            Err(Error::Usage(message)) => assert!(!message.contains("s3cret"), "{message}"),
            other => panic!("{address}: {other:?}"),
        }
    }
    let client = Client::connect("127.0.0.1:1", options).unwrap();
    assert!(!format!("{client:?}").contains("s3cret"));
}

#[tokio::test]
async fn tls_that_cannot_be_used_is_an_error() {
    let tls = |tls| Options::default().tls(tls);
    let missing = Tls { ca: Some("/nowhere/ca.pem".into()), ..Default::default() };
    let half = Tls { cert: Some("x.pem".into()), ..Default::default() };
    for (address, options) in
        [("unix:/x", tls(Tls::default())), ("h:1", tls(missing)), ("h:1", tls(half))]
    {
        assert!(matches!(Client::connect(address, options), Err(Error::Usage(_))), "{address}");
    }
}
